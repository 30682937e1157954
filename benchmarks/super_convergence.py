"""Super-convergence on the digits: a small ResNet by one large cycle of the rate, and by steps.

    python benchmarks/super_convergence.py             # on the test part; curves and their picture
    python benchmarks/super_convergence.py --choose    # on a part held out of training; prints only

Smith and Topin (2018, arXiv:1708.07120) train a ResNet by one large cycle of the learning rate to
an accuracy that a piecewise constant rate does not reach in as few steps. Here the zoo's
``resnet8`` learns scikit-learn's digits in batches of 256 with several seeds: by one cycle over a
few epochs; by steps over as many, from the usual rate of ResNets as in the paper, from the largest
rate of the cycle, and from the one that ``--choose`` found best; and by steps over three times as
many. The curves go to ``training/super_convergence.csv``, their picture beside it, and means with
standard deviations are printed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import tilth
from tilth.training import Silent

FOLDER = Path(__file__).with_name("training")
NAME = "super_convergence"
SEEDS = 8
FEW, MANY = 12, 36
LARGE, USUAL, BEST = 1.0, 0.1, 0.3
HELD = 0.25
"""The share of the training part that ``--choose`` holds out."""


def settings(epochs: int, cycle: bool, rate: float) -> dict[str, object]:
    """What differs between the runs: steps fall at one half and three quarters of the epochs."""
    at = [epochs // 2, 3 * epochs // 4]
    schedule = f"one_cycle({epochs}, max={rate}, momentum=[0.85, 0.95])" if cycle else (
        f"multistep({at}, gamma=0.1)"
    )  # fmt: skip
    return {
        "train.epochs": epochs,
        "train.batch": 256,
        "train.schedule": schedule,
        "train.optimizer": f"sgd(lr={rate}, momentum=0.9, weight_decay=1e-4)",
        "train.label_smoothing": 0.0,
    }


WAYS = {
    f"one cycle up to {LARGE}, {FEW} epochs": settings(FEW, True, LARGE),
    f"steps from {USUAL}, {FEW} epochs": settings(FEW, False, USUAL),
    f"steps from {LARGE}, {FEW} epochs": settings(FEW, False, LARGE),
    f"steps from {BEST}, {FEW} epochs": settings(FEW, False, BEST),
    f"steps from {USUAL}, {MANY} epochs": settings(MANY, False, USUAL),
}

CHOICES = {
    **{f"one cycle up to {rate}": settings(FEW, True, rate) for rate in (0.5, 1.0, 2.0)},
    **{f"steps from {rate}": settings(FEW, False, rate) for rate in (0.1, 0.3, 1.0, 2.0)},
}
"""What ``--choose`` tries, over the few epochs."""

Row = dict[str, object]


def trained(way: str, changes: dict[str, object], seeds: int, held: float | None) -> list[Row]:
    """The validations of every seed's run; prints their ends."""
    extra = {} if held is None else {"train.validate.fraction": held}
    rows: list[Row] = []
    ends = []
    for seed in range(seeds):
        run = tilth.load("resnet8", set={**changes, **extra}).train(seed=seed, show=Silent())
        found = [(e, v) for _, e, part, v in run.history if part == "validate"]
        rows += [{"way": way, "seed": seed, "epoch": round(e), **values} for e, values in found]
        ends.append(found[-1][1]["accuracy"])
    print(f"{way}: {np.mean(ends):.2%} ± {np.std(ends, ddof=1):.2%}, "
          f"from {min(ends):.2%} to {max(ends):.2%}, {seeds} seeds", flush=True)  # fmt: skip
    return rows


def main() -> None:
    """Train, write the curves, draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--choose", action="store_true", help="hold out a part; never test")
    args = parser.parse_args()
    ways = CHOICES if args.choose else WAYS
    held = HELD if args.choose else None
    rows = [row for way in ways.items() for row in trained(*way, args.seeds, held)]
    if args.choose:
        return
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows)


def draw(rows: list[Row]) -> None:
    """Test accuracy over epochs: a line a way, one standard deviation of its seeds as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot(1, 1, 1)
    for colour, way in enumerate(WAYS):
        mine = [row for row in rows if row["way"] == way]
        epochs = sorted({int(str(row["epoch"])) for row in mine})
        table = np.array([[float(str(r["accuracy"])) for r in mine if r["epoch"] == epoch]
                          for epoch in epochs])  # fmt: skip
        mean, spread = table.mean(1), table.std(1, ddof=1)
        axes.plot(epochs, mean, color=f"C{colour}", marker=".", label=way)
        axes.fill_between(epochs, mean - spread, mean + spread, color=f"C{colour}", alpha=0.15)
    axes.set_ylim(0.8, 1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy")
    axes.set_title("resnet8 on the digits: super-convergence", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    figure.savefig(FOLDER / f"{NAME}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""Super-convergence on the digits: a small ResNet by one cycle, and by steps with more epochs.

    python benchmarks/super_convergence.py

Smith and Topin (2018, arXiv:1708.07120) train a ResNet with one large cycle of the learning rate in
a fraction of the steps that a piecewise constant rate takes, to the same accuracy or a better one.
Here the zoo's ``resnet8`` learns scikit-learn's digits three ways, three seeds each: one cycle over
a few epochs, steps over as many epochs, and steps over three times as many. The curves go to
``training/super_convergence.csv``, their picture beside it, and the means are printed.
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
SEEDS = 3
FEW, MANY = 8, 24


def settings(epochs: int, cycle: bool) -> dict[str, object]:
    """What differs between the runs: steps fall at one half and three quarters of the epochs."""
    at = [epochs // 2, 3 * epochs // 4]
    rate = "0.1" if not cycle else "0.05"
    schedule = f"one_cycle({epochs}, max=1.0, momentum=[0.8, 0.95])" if cycle else (
        f"multistep({at}, gamma=0.1)"
    )  # fmt: skip
    return {
        "train.epochs": epochs,
        "train.schedule": schedule,
        "train.optimizer": f"sgd(lr={rate}, momentum=0.9, weight_decay=1e-4)",
        "train.label_smoothing": 0.0,
    }


WAYS = {
    f"one cycle up to 1.0, {FEW} epochs": settings(FEW, True),
    f"steps from 0.1, {FEW} epochs": settings(FEW, False),
    f"steps from 0.1, {MANY} epochs": settings(MANY, False),
}


def main() -> None:
    """Train, write the curves, draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for way, changes in WAYS.items():
        ends = []
        for seed in range(args.seeds):
            run = tilth.load("resnet8", set=changes).train(seed=seed, show=Silent())
            found = [(e, v) for _, e, part, v in run.history if part == "validate"]
            rows += [
                {"way": way, "seed": seed, "epoch": round(epoch), **values}
                for epoch, values in found
            ]
            ends.append(found[-1][1]["accuracy"])
            print(f"{way}, seed {seed}: {ends[-1]:.2%}", flush=True)
        print(f"{way}: mean {np.mean(ends):.2%}", flush=True)
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows)


def draw(rows: list[dict[str, object]]) -> None:
    """Test accuracy over epochs: a line a way, its seeds as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot(1, 1, 1)
    for colour, way in enumerate(WAYS):
        mine = [row for row in rows if row["way"] == way]
        epochs = sorted({int(str(row["epoch"])) for row in mine})
        table = np.array([[float(str(r["accuracy"])) for r in mine if r["epoch"] == epoch]
                          for epoch in epochs])  # fmt: skip
        axes.plot(epochs, table.mean(1), color=f"C{colour}", label=way)
        axes.fill_between(epochs, table.min(1), table.max(1), color=f"C{colour}", alpha=0.15)
    axes.set_ylim(0.85, 1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy")
    axes.set_title("resnet8 on the digits: super-convergence", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    figure.savefig(FOLDER / f"{NAME}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

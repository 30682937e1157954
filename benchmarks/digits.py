"""Test accuracy on scikit-learn's digits: the mean of five seeds, each trained as its spec says.

    python benchmarks/digits.py                        # LeNet and a small ResNet, on the test part
    python benchmarks/digits.py --choose --set train.epochs=40    # on a part held out of training

The data is split once, stratified: 1,438 digits to train on and 359 to test on. Settings are chosen
with ``--choose``, which never sees the test part: a fifth of the training part is held out, another
one for each seed. Results go to ``training/digits.json`` with the machine's description.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tilth
from tilth.bench.results import describe_machine
from tilth.training import Silent

RESULTS = Path(__file__).with_name("training") / "digits.json"
NETS = ("lenet", "resnet8")


def trained(net: str, seed: int, engine: str, choose: bool, changes: list[str]) -> dict[str, Any]:
    """One run: errors and accuracy on what was held out after the last epoch, and seconds."""
    held = ["train.validate.fraction=0.2"] if choose else []
    program = tilth.load(net, set=[*held, *changes])
    start = time.perf_counter()
    run = program.train(seed=seed, engine=engine, show=Silent())
    seconds = time.perf_counter() - start
    assert run.confusion is not None
    counts = run.confusion.counts
    return {
        "seed": seed,
        "accuracy": run.confusion.accuracy,
        "errors": int(counts.sum() - np.trace(counts)),
        "of": int(counts.sum()),
        "epochs": run.epochs,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Train every net with every seed; print and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="names of zoo specs")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--engine", default="cpu", choices=("reference", "cpu"))
    parser.add_argument("--choose", action="store_true", help="hold out a part; never test")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--save", action="store_true", help=f"keep the runs in {RESULTS.name}")
    args = parser.parse_args()
    for net in args.nets.split(","):
        runs: list[dict[str, Any]] = []
        for seed in map(int, args.seeds.split(",")):
            runs.append(trained(net, seed, args.engine, args.choose, args.set))
            one = runs[-1]
            print(f"{net} seed {seed}: {one['accuracy']:.2%} ({one['errors']} of {one['of']} "
                  f"wrong), {one['seconds']} s", flush=True)  # fmt: skip
            if args.save and not args.choose and not args.set:
                runs = saved(net, args.engine, runs)
        found = np.array([run["accuracy"] for run in runs])
        seconds = max(run["seconds"] for run in runs)
        print(f"{net}: mean of {len(runs)} seeds {found.mean():.2%}, from {found.min():.2%} to "
              f"{found.max():.2%}; at most {seconds} s a seed", flush=True)  # fmt: skip


def saved(net: str, engine: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep runs on disk, and those of other seeds, nets and engines of the same machine."""
    here, nets = describe_machine(), []
    if RESULTS.exists():
        before = json.loads(RESULTS.read_text(encoding="utf-8"))
        nets = before["nets"] if before["machine"] == here else []
    mine = next((row for row in nets if (row["net"], row["engine"]) == (net, engine)), None)
    others = [row for row in nets if row is not mine]
    by_seed = {run["seed"]: run for run in [*(mine["runs"] if mine else []), *runs]}
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    mean = float(np.mean([run["accuracy"] for run in runs]))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"net": net, "engine": engine, "mean": mean, "runs": runs}
    RESULTS.parent.mkdir(exist_ok=True)
    held = {"measured": now, "machine": here, "nets": [*others, row]}
    RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    return runs


if __name__ == "__main__":
    main()

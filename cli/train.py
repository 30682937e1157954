"""``tilth train``: train a model by its spec, and keep the run in a folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ..program import Program
from ..steps import ENGINES
from ..training import Confusion, Run, range_test, train
from .console import Failure, columns, note, say, say_json
from .options import add_model_options, load_chosen

RUNS = Path("runs")

SHOWN = 10
"""How many classes the report at the end lists."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--data", metavar="DATA", help="a file, a folder, or a built-in set")
    parser.add_argument("--out", metavar="DIR", help="the run's folder; runs/NAME by default")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--weights", metavar="FILE", help="start from these, where they fit")
    parser.add_argument(
        "--engine", choices=tuple(ENGINES),
        help="cpu: compiled; reference: numpy, slow; by default compiled where ops have kernels",
    )  # fmt: skip
    parser.add_argument(
        "--precise", action="store_true", help="compile without Winograd and reassociation of sums"
    )
    parser.add_argument(
        "--range-test", nargs="?", const="1e-6:10", metavar="LOW:HIGH",
        help="find a learning rate instead: train for a while with a growing one (1e-6:10)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print an object at the end")
    add_model_options(parser)
    parser.epilog = (
        "`--set train.epochs=5` overrides what the spec says about training. Ctrl-C stops after "
        "the step and saves; `--resume` then goes on as if nothing had happened."
    )


def run(args: Namespace) -> int:
    """Train; 130 when it was interrupted."""
    program = load_chosen(args.spec, args)
    folder = Path(args.out) if args.out else RUNS / (program.variant or program.name)
    if args.range_test is not None:
        return _range_test(args, program, folder)
    outcome = train(
        program,
        args.data,
        out=folder,
        resume=args.resume,
        weights=args.weights,
        engine=args.engine,
        precise=args.precise,
        show=True,
    )
    if args.json:
        say_json(_as_json(program, outcome))
    else:
        _show(outcome)
    return 130 if outcome.reason == "interrupted" else 0


def _range_test(args: Namespace, program: Program, folder: Path) -> int:
    low, high = _bounds(args.range_test)
    found = range_test(
        program, args.data, low=low, high=high, out=folder, engine=args.engine,
        precise=args.precise, weights=args.weights,
    )  # fmt: skip
    numbers = {"steepest": found.steepest, "largest": found.largest, "suggested": found.suggested}
    if args.json:
        say_json({"name": program.name, "folder": str(folder), "steps": len(found.rates),
                  "diverged": found.diverged, **numbers, "diagnostics": []})  # fmt: skip
        return 0
    rows = [
        ("falls fastest at", f"{found.steepest:.3g}"),
        ("is least at", f"{found.largest:.3g}"),
        ("diverges from" if found.diverged else "was tried up to", f"{found.rates[-1]:.3g}"),
    ]
    say("the smoothed loss")
    for line in columns(rows):
        say(line)
    say(f"a rate to begin with: {found.suggested:.2g}, a tenth of where it is least")
    note(f"{len(found.rates)} steps; `tilth plot {folder}` draws them")
    return 0


def _bounds(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        hint = "such as `--range-test 1e-5:1`"
        raise Failure(f"`--range-test` takes LOW:HIGH, not `{text}`", hint, usage=True) from None


REASONS = {
    "epochs": "all epochs are done",
    "steps": "all steps are done",
    "early_stop": "stopped early: no improvement",
    "interrupted": "interrupted; `--resume` goes on from here",
}


BEST = ("metric", "value", "updates")
"""What is told of the best validation."""


def _show(outcome: Run) -> None:
    rows = [(name, f"{value:.6g}") for name, value in outcome.metrics.items()]
    if outcome.best_score is not None:
        name, value, update = outcome.best_score
        rows.append((f"best val {name}", f"{value:.6g}, after {update:,} updates"))
    for line in columns(rows):
        say(line)
    if outcome.confusion is not None:
        for line in _by_class(outcome.confusion):
            say(line)
    note(f"{REASONS[outcome.reason]}; {outcome.updates:,} updates, in {outcome.folder}")


def _by_class(confusion: Confusion) -> list[str]:
    """The least accurate classes, and what is taken for what most often."""
    found = [(r, n) for r, n in zip(confusion.recall, confusion.classes, strict=True) if r == r]
    found.sort(key=lambda row: row[0])
    head = "accuracy by class" + (f", the lowest {SHOWN}" if len(found) > SHOWN else "")
    shown = ", ".join(f"{name} {share:.1%}" for share, name in found[:SHOWN])
    wrong = confusion.worst(3)
    mistakes = ", ".join(f"{true} taken for {other} ({n})" for true, other, n in wrong)
    return [f"{head}: {shown}", *([f"most frequent mistakes: {mistakes}"] if wrong else [])]


def _as_json(program: Program, outcome: Run) -> dict[str, Any]:
    seen = outcome.confusion
    recall = [] if seen is None else zip(seen.classes, seen.recall.tolist(), strict=True)
    by_class = {name: share if share == share else None for name, share in recall}
    return {
        "name": program.name,
        "variant": program.variant,
        "folder": str(outcome.folder),
        "reason": outcome.reason,
        "epochs": outcome.epochs,
        "updates": outcome.updates,
        "metrics": dict(outcome.metrics),
        "best": outcome.best_score and dict(zip(BEST, outcome.best_score, strict=True)),
        "accuracy_by_class": by_class,
        "diagnostics": [],
    }

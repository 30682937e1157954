"""``tilth train``: train a model by its spec, and keep the run in a folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ..program import Program
from ..steps import ENGINES
from ..training import Run, train
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen

RUNS = Path("runs")


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--data", metavar="DATA", help="a file, a folder, or a built-in set")
    parser.add_argument("--out", metavar="DIR", help="the run's folder; runs/NAME by default")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--weights", metavar="FILE", help="start from these, where they fit")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="reference")
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
    outcome = train(
        program,
        args.data,
        out=folder,
        resume=args.resume,
        weights=args.weights,
        engine=args.engine,
        show=True,
    )
    if args.json:
        say_json(_as_json(program, outcome))
    else:
        _show(outcome)
    return 130 if outcome.reason == "interrupted" else 0


REASONS = {
    "epochs": "all epochs are done",
    "steps": "all steps are done",
    "early_stop": "stopped early: no improvement",
    "interrupted": "interrupted; `--resume` goes on from here",
}


def _show(outcome: Run) -> None:
    for line in columns([(name, f"{value:.6g}") for name, value in outcome.metrics.items()]):
        say(line)
    note(f"{REASONS[outcome.reason]}; {outcome.updates:,} updates, in {outcome.folder}")


def _as_json(program: Program, outcome: Run) -> dict[str, Any]:
    return {
        "name": program.name,
        "variant": program.variant,
        "folder": str(outcome.folder),
        "reason": outcome.reason,
        "epochs": outcome.epochs,
        "updates": outcome.updates,
        "metrics": dict(outcome.metrics),
        "diagnostics": [],
    }

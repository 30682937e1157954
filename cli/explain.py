"""``tilth explain``: how latent variables are summed out, and a proof that it is right."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .console import say, say_json
from .options import add_model_options, load_chosen

SHOWN = 12
"""Steps that are printed of a long elimination."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--seed", type=int, default=0, help="of the instance that is checked")
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Explain one model; 1 when inference and enumeration disagree."""
    program = load_chosen(args.spec, args)
    plan, check = program.explain(args.seed)
    agrees = check.worst is None or check.agrees
    if args.json:
        say_json({
            "name": program.name, "variables": list(plan.variables), "steps": list(plan.steps),
            "at": plan.instance, "result": plan.result, "cost": str(plan.cost),
            "bytes": str(plan.memory),
            "check": {"instance": check.instance, "assignments": check.assignments,
                      "worst": check.worst, "reason": check.reason},
        })  # fmt: skip
        return 0 if agrees else 1
    say(program.name + (f", at {plan.instance}" if plan.instance else ""))
    for line in plan.variables:
        say(f"  {line}")
    for line in plan.steps[: SHOWN if len(plan.steps) > SHOWN + 1 else None]:
        say(f"  {line}")
    if len(plan.steps) > SHOWN + 1:
        say(f"  ... and {len(plan.steps) - SHOWN} more; `--json` has them all")
    say(f"  {plan.result}")
    say(f"  cost {plan.cost} operations, largest table {plan.memory} bytes")
    if check.worst is None:
        say(f"  not checked by enumeration: {check.reason}")
    else:
        word = "agrees with" if check.agrees else "DISAGREES with"
        say(f"  check at {check.instance}: {word} enumeration of {check.assignments:,} assignments,"
            f" largest difference {check.worst:.2g}")  # fmt: skip
    return 0 if agrees else 1

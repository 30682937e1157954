"""``tilth explain``: how latent variables are summed out, and a proof that it is right."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from ..inference import AS_IT_STANDS, METHODS, Approximation, Explanation
from .console import say, say_json
from .options import add_model_options, load_chosen

SHOWN = 12
"""Steps that are printed of a long elimination."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--seed", type=int, default=0, help="of the instance that is checked")
    parser.add_argument(
        "--by",
        metavar="METHOD,...",
        type=_methods,
        default=(),
        help=f"explain these as well: {', '.join(METHODS)}, with commas between",
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def _methods(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        if name not in METHODS:
            raise ArgumentTypeError(f"`{name}` is none of {', '.join(METHODS)}")
    return found


def run(args: Namespace) -> int:
    """Explain one model; 1 when something disagrees with enumeration or with theory."""
    program = load_chosen(args.spec, args)
    found = program.explain(args.seed, args.by)
    if args.json:
        say_json(_plain(program.name, found))
    else:
        _show(program.name, found)
        for row in found.approximations:
            _show_approximation(row)
    return 0 if found.agrees else 1


def _plain(name: str, found: Explanation) -> dict[str, Any]:
    plan, check = found.plan, found.check
    return {
        "name": name, "variables": list(plan.variables), "steps": list(plan.steps),
        "at": plan.instance, "result": plan.result, "cost": str(plan.cost),
        "bytes": str(plan.memory),
        "check": {"instance": check.instance, "assignments": check.assignments,
                  "worst": check.worst, "reason": check.reason},
        "approximations": [
            {"asked": row.asked.text, "steps": list(row.steps), "at": row.instance,
             "cost": str(row.cost), "bytes": str(row.memory),
             "check": {"instance": row.checked_at, "reason": row.reason, "findings": [
                 {"what": f.what, "worst": f.worst, "exact": f.exact, "holds": f.holds}
                 for f in row.findings]}}
            for row in found.approximations
        ],
    }  # fmt: skip


def _show(name: str, found: Explanation) -> None:
    plan, check = found.plan, found.check
    say(name + (f", at {plan.instance}" if plan.instance else ""))
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
        return
    word = "agrees with" if check.agrees else "DISAGREES with"
    say(f"  check {_at(check.instance)}: {word} enumeration of {check.assignments:,} assignments,"
        f" largest difference {check.worst:.2g}")  # fmt: skip


def _show_approximation(row: Approximation) -> None:
    """Formulas, cost, and what was proven and measured."""
    say(f"{row.asked.text}" + (f", at {row.instance}" if row.instance else ""))
    for line in row.steps:
        say(f"  {line}")
    say(f"  cost {row.cost} operations, memory {row.memory} bytes")
    if not row.findings:
        say(f"  not checked: {row.reason}")
        return
    say(f"  check {_at(row.checked_at)}:")
    for finding in row.findings:
        word = "proven  " if finding.holds else "DISPROVEN"
        word = word if finding.exact else "measured"
        say(f"    {word}  {finding.what}: {finding.worst:.2g}")


def _at(instance: str) -> str:
    return instance if instance == AS_IT_STANDS else f"at {instance}"

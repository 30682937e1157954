"""``tilth solve``: values and policies of a decision process from its model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program import Program, located_faults, save_outputs
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen, place, positive

if TYPE_CHECKING:
    from ..decide import Solution

METHODS = (
    "value_iteration",
    "gauss_seidel",
    "prioritised",
    "policy_iteration",
    "modified_policy_iteration",
    "linear_program",
)
ARROWS = {"up": "↑", "right": "→", "down": "↓", "left": "←"}
MOST_CELLS = 400
MOST_COLUMNS = 16


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--method", choices=METHODS, help="the solver; the spec's by default")
    parser.add_argument("--tol", type=_above_zero, help="the error of the values that is allowed")
    parser.add_argument("--max-steps", type=positive, metavar="N", help="sweeps, at most")
    parser.add_argument(
        "--sweeps", type=positive, metavar="N", help="of modified policy iteration's evaluation"
    )
    parser.add_argument(
        "--evaluation", choices=("iterative", "direct"), help="of policies; direct needs SciPy"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="all processors by default")
    parser.add_argument(
        "--policy", metavar="FILE", help="evaluate this policy: probabilities by state and action"
    )
    parser.add_argument("--horizon", type=positive, metavar="T", help="the process ends after T")
    parser.add_argument(
        "--average", action="store_true", help="the reward a step in the long run counts"
    )
    parser.add_argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="FILE.npy or FILE.npz[:KEY]; a table also FILE.json or gym:NAME",
    )
    parser.add_argument("--output", metavar="FILE", help="save everything found as .npz")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw what was found")
    parser.add_argument(
        "--draw",
        choices=("policy", "convergence", "backup"),
        default="policy",
        help="values and actions, the error by step, or the backup diagram of --state",
    )
    parser.add_argument("--state", type=place, metavar="I,J", help="the state of --draw backup")
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Solve one spec."""
    from ..decide import read_inputs

    program = load_chosen(args.spec, args)
    solution = program.solve(
        read_inputs(program, args.input),
        method=args.method,
        tol=args.tol,
        max_steps=args.max_steps,
        sweeps=args.sweeps,
        evaluation=args.evaluation,
        threads=args.threads,
        policy=args.policy,
        horizon=args.horizon,
        average=args.average,
    )
    if args.json:
        say_json(_as_json(program, solution))
    else:
        _show(solution)
    with located_faults({}):
        if args.output:
            save_outputs(args.output, solution.arrays())
            note(f"wrote {args.output}")
        if args.plot:
            solution.plot(args.plot, args.draw, args.state)
            note(f"wrote {args.plot}")
    return 0


# ---------------------------------------------------------------- helpers


def _show(found: Solution) -> None:
    rows = [
        ("states", f"{found.states:,}, {found.terminal:,} of them ended"),
        ("actions", f"{found.rows:,} pairs of state and action, {found.entries:,} outcomes"),
        ("method", f"{found.method}, {found.steps:,} steps, {found.seconds:.3g} s"),
        ("error bound", "none" if found.error_bound is None else f"{found.error_bound:.2g}"),
        ("residual", f"{found.residual:.2g}"),
    ]
    if found.gain is not None:
        rows.append(("reward a step", f"{found.gain:.8g}"))
    for line in columns(rows, ""):
        say(line)
    values, policy = found.values, found.policy
    if values.ndim > policy.ndim or values.shape[: values.ndim] != policy.shape:
        values, policy = values[0], policy[0]
    if values.size > MOST_CELLS or values.ndim > 2 or values.shape[-1] > MOST_COLUMNS:
        return
    grid = np.atleast_2d(values)
    signs = np.vectorize(lambda a: _sign(found.actions, int(a)), otypes=[str])(
        np.atleast_2d(policy)
    )
    table = [[f"{v:.4g}" for v in row] for row in grid]
    say()
    for line in columns(table, "  "):
        say(line)
    if len(found.actions) > 1:
        say()
        for line in columns(signs.tolist(), "  "):
            say(line)


def _sign(actions: tuple[str, ...], action: int) -> str:
    return "·" if action < 0 else ARROWS.get(actions[action], actions[action])


def _as_json(program: Program, found: Solution) -> dict[str, Any]:
    return {
        "name": program.name,
        "variant": program.variant,
        "method": found.method,
        "states": found.states,
        "rows": found.rows,
        "outcomes": found.entries,
        "ended": found.terminal,
        "steps": found.steps,
        "seconds": found.seconds,
        "error_bound": found.error_bound,
        "residual": found.residual,
        "gain": found.gain,
        "actions": list(found.actions),
        "values": found.values.tolist(),
        "policy": found.policy.tolist(),
        "action_values": _plain(found.action_values),
        "diagnostics": [],
    }


def _plain(table: np.ndarray) -> Any:
    """Lists with ``None`` for an action that a state lacks."""
    plain = table.astype(object)
    plain[np.isnan(table)] = None
    return plain.tolist()


def _above_zero(text: str) -> float:
    from argparse import ArgumentTypeError

    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ArgumentTypeError(f"`{text}` is not a number above 0")
    return number

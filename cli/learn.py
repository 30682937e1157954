"""``tilth learn``: a decision process learned from episodes."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from ..program import located_faults, save_outputs
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen, place, positive

if TYPE_CHECKING:
    from ..learning import Lessons

METHODS = (
    *("monte_carlo", "td0", "td_n", "td_lambda"),
    *("sarsa", "expected_sarsa", "q_learning", "double_q"),
)


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--method", choices=METHODS, help="the learning rule; the spec's if absent")
    parser.add_argument("--episodes", type=positive, metavar="N", help="episodes of each seed")
    parser.add_argument("--max-steps", type=positive, metavar="N", help="steps of an episode")
    parser.add_argument("--seeds", type=positive, metavar="N", help="seeds 0 to N - 1, in parallel")
    parser.add_argument("--alpha", type=_fraction, help="the step size")
    parser.add_argument("--epsilon", type=_fraction, help="how often actions are random")
    parser.add_argument("--n", type=positive, help="steps of td_n")
    parser.add_argument("--lambda", dest="lambda_", type=_fraction, help="decay of td_lambda")
    parser.add_argument("--traces", choices=("accumulating", "replacing"), help="of td_lambda")
    parser.add_argument("--visits", choices=("first", "every"), help="of monte_carlo")
    parser.add_argument(
        "--importance", choices=("ordinary", "weighted"), help="monte_carlo from random episodes"
    )
    parser.add_argument("--start", type=place, metavar="I,J", help="where episodes start")
    parser.add_argument("--policy", metavar="FILE", help="the policy whose values are learned")
    parser.add_argument("--env", metavar="NAME", help="learn in this Gymnasium environment")
    parser.add_argument("--threads", type=positive, metavar="N", help="all processors by default")
    parser.add_argument(
        "--input", metavar="NAME=VALUE", action="append", default=[], help="as for `tilth solve`"
    )
    parser.add_argument("--output", metavar="FILE", help="save everything found as .npz")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the learning curve with its band")
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Learn one spec."""
    from ..decide import read_inputs

    program = load_chosen(args.spec, args)
    names = ("method", "episodes", "max_steps", "seeds", "alpha", "epsilon", "n", "lambda_",
             "traces", "visits", "importance", "start", "policy", "env", "threads")  # fmt: skip
    how = {name: getattr(args, name) for name in names}
    found = program.learn(read_inputs(program, args.input), **how)
    if args.json:
        say_json(_as_json(found))
    else:
        _show(found)
    with located_faults({}):
        if args.output:
            save_outputs(args.output, found.arrays())
            note(f"wrote {args.output}")
        if args.plot:
            found.plot(args.plot)
            note(f"wrote {args.plot}")
    return 0


# ---------------------------------------------------------------- helpers


def _figures(found: Lessons) -> dict[str, float]:
    """The last tenth of the episodes: the mean over seeds and its spread."""
    count = max(1, found.returns.shape[1] // 10)
    last = found.returns[:, -count:].mean(axis=1)
    figures = {"return": float(last.mean()), "return_spread": float(last.std())}
    if found.errors is not None:
        errors = found.errors[:, -count:].mean(axis=1)
        figures |= {"error": float(errors.mean()), "error_spread": float(errors.std())}
    return figures


def _show(found: Lessons) -> None:
    seeds, episodes = found.returns.shape
    rate = found.steps / max(found.seconds, 1e-9)
    figures = _figures(found)
    rows = [
        ("method", f"{found.method}, {seeds} seeds, {episodes:,} episodes each"),
        ("steps", f"{found.steps:,} in {found.seconds:.3g} s, {rate:.3g} a second"),
        ("return", f"{figures['return']:.4g} ± {figures['return_spread']:.2g}, last tenth"),
    ]
    if "error" in figures:
        text = f"{figures['error']:.4g} ± {figures['error_spread']:.2g}, last tenth"
        rows.append(("error", text))
    for line in columns(rows, ""):
        say(line)


def _as_json(found: Lessons) -> dict[str, Any]:
    return {
        "name": found.name,
        "method": found.method,
        "seeds": found.returns.shape[0],
        "episodes": found.returns.shape[1],
        "steps": found.steps,
        "seconds": found.seconds,
        "values": found.values.mean(axis=0).tolist(),
        "policy": None if found.policy is None else found.policy.tolist(),
        **_figures(found),
        "diagnostics": [],
    }


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"`{text}` is not a number from 0 to 1")
    return number

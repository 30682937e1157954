"""``tilth fit``: learn the parameters of a probabilistic model by EM."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from ..execution import ENGINES
from ..program import located_faults, save_outputs, save_weights
from .console import Failure, note, say, say_json
from .options import add_model_options, load_chosen, positive, sequences


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument(
        "--data",
        metavar="NAME=FILE[,FILE]",
        action="append",
        default=[],
        help="observations as FILE.npy or FILE.npz:KEY; several sequences with commas between; "
        "nan is missing",
    )
    parser.add_argument("--out", metavar="FILE", help="write the parameters: .safetensors or .npz")
    parser.add_argument("--weights", metavar="FILE", help="where to start")
    parser.add_argument("--fix", metavar="NAME", action="append", default=[],
                        help="a parameter that keeps its value")  # fmt: skip
    parser.add_argument("--iterations", type=positive, default=100, help="rounds at most")
    parser.add_argument("--tol", type=float, default=1e-4, help="least gain of a round, in nats")
    parser.add_argument("--floor", type=float, default=0.0, help="least standard deviation")
    parser.add_argument("--seed", type=int, default=0, help="of initialisers")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Fit one model."""
    program = load_chosen(args.spec, args)
    if args.out and not args.out.endswith((".safetensors", ".npz")):
        raise Failure(f"`{args.out}` is no kind of file for weights", ".safetensors or .npz", True)
    data = [program.read_inputs(row, args.seed) for row in sequences(args.data)]

    progress = _Progress()

    found = program.fit(
        data, args.weights, args.seed, iterations=args.iterations, tol=args.tol, floor=args.floor,
        fixed=args.fix, engine=args.engine, progress=progress,
    )  # fmt: skip
    if args.out:
        with located_faults({}):
            writer = save_weights if args.out.endswith(".safetensors") else save_outputs
            writer(args.out, found.params)
        note(f"wrote {args.out}")
    if args.json:
        say_json({"name": program.name, "history": list(found.history),
                  "converged": found.converged})  # fmt: skip
        return 0
    rest = "came to rest" if found.converged else "did not come to rest"
    say(f"{program.name}: {found.history[0]:.6f} to {found.history[-1]:.6f} nats in"
        f" {len(found.history) - 1} rounds; {rest}")  # fmt: skip
    return 0


class _Progress:
    """Lines about rounds: the first ones, then one a second."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, number: int, objective: float) -> None:
        now = time.monotonic()
        if number < 3 or now - self.last >= 1:
            note(f"round {number}: {objective:.6f} nats")
            self.last = now

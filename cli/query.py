"""``tilth query``: what a probabilistic model knows, given data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from ..execution import ENGINES
from ..inference import ASKS
from ..program import Program, located_faults, save_outputs
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen, sequences

LISTED = 8
"""Elements of an answer that are printed; of longer ones the first."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument(
        "--data",
        metavar="NAME=FILE[,FILE]",
        action="append",
        default=[],
        help="observations as FILE.npy or FILE.npz:KEY, or random; several sequences with commas "
        "between; nan is missing",
    )
    parser.add_argument(
        "--ask",
        metavar="WHAT",
        default="loglik,marginals,map",
        help=f"some of {', '.join(ASKS)}, with commas between; `map(z)` asks about one variable",
    )
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors or .npz file")
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="instead, the divergence KL(P || Q) from the model with --weights to the one with "
        "these: of posteriors with --data, else of the joint distribution",
    )
    parser.add_argument("--other", metavar="SPEC", help="the spec that --against belongs to")
    parser.add_argument("--seed", type=int, default=0, help="of initialisers and samples")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--output", metavar="FILE", help="save the answers as .npz or .npy")
    parser.add_argument("--json", action="store_true", help="print an object with all numbers")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Ask one model."""
    program = load_chosen(args.spec, args)
    data = [program.read_inputs(row, args.seed) for row in sequences(args.data)]
    if args.weights is None and program.parameters():
        note(f"no --weights: the spec's initialisers are used with seed {args.seed}")
    if args.against:
        return _compare(program, data, args)
    asks = [text.strip() for text in args.ask.split(",") if text.strip()]
    found = program.query(data or [{}], asks, args.weights, args.seed, args.engine)
    if args.output:
        with located_faults({}):
            save_outputs(args.output, _numbered(found))
        note(f"wrote {args.output}")
    if args.json:
        answers = [{name: _plain(array) for name, array in row.items()} for row in found]
        say_json({"name": program.name, "answers": answers if len(found) > 1 else answers[0]})
        return 0
    for line in columns([(name, *shown(a)) for name, a in _numbered(found).items()], ""):
        say(line)
    return 0


def _compare(program: Program, data: list[Any], args: Namespace) -> int:
    other = load_chosen(args.other, args) if args.other else None
    sizes = {name: size for name, size in dict(args.shape).items() if isinstance(size, int)}
    nats = program.kl(
        args.weights, args.against, data or None, other=other, sizes=sizes, engine=args.engine
    )
    if args.json:
        say_json({"name": program.name, "kl": nats if np.isfinite(nats) else str(nats)})
    else:
        say(f"kl  {nats:.12g}")
    return 0


def _numbered(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Answers about several sequences in one dictionary: ``0.loglik``, ``1.loglik``, ..."""
    if len(found) == 1:
        return found[0]
    return {f"{k}.{name}": array for k, row in enumerate(found) for name, array in row.items()}


def _plain(array: np.ndarray) -> Any:
    """Numbers as JSON has them: what is not finite is a text."""
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        return [str(x) for x in array.ravel()] if array.ndim else str(array)
    return array.tolist()


def shown(array: np.ndarray) -> tuple[str, str]:
    """An array's type and its first elements."""
    kind = f"{array.dtype}{list(array.shape)}"
    if array.ndim == 0:
        return kind, f"{array:.12g}"
    flat = array.ravel()
    text = np.array2string(flat[:LISTED], separator=", ", precision=6, max_line_width=10**6)
    return kind, text if flat.size <= LISTED else f"{text[:-1]}, ...]"

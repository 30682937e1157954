"""``tilth query``: what a probabilistic model knows, given data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from ..program import located_faults, save_outputs
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen

LISTED = 8
"""Elements of an answer that are printed; of longer ones the first."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument(
        "--data",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="observations as FILE.npy or FILE.npz:KEY, or random; nan is missing",
    )
    parser.add_argument(
        "--ask",
        metavar="WHAT",
        default="loglik,marginals,map",
        help="some of loglik, logprior, entropy, marginals, map, sample, with commas between; "
        "`map(z)` asks about one variable",
    )
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors or .npz file")
    parser.add_argument("--seed", type=int, default=0, help="of initialisers and samples")
    parser.add_argument("--engine", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--output", metavar="FILE", help="save the answers as .npz or .npy")
    parser.add_argument("--json", action="store_true", help="print an object with all numbers")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Ask one model."""
    program = load_chosen(args.spec, args)
    data = program.read_inputs(args.data, args.seed)
    if args.weights is None and program.parameters():
        note(f"no --weights: the spec's initialisers are used with seed {args.seed}")
    asks = [text.strip() for text in args.ask.split(",") if text.strip()]
    answers = program.query(data, asks, args.weights, args.seed, args.engine)
    if args.output:
        with located_faults({}):
            save_outputs(args.output, answers)
        note(f"wrote {args.output}")
    if args.json:
        say_json({"name": program.name, "answers": {n: _plain(a) for n, a in answers.items()}})
        return 0
    for line in columns([(name, *_shown(array)) for name, array in answers.items()], ""):
        say(line)
    return 0


def _plain(array: np.ndarray) -> Any:
    """Numbers as JSON has them: what is not finite is a text."""
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        return [str(x) for x in array.ravel()] if array.ndim else str(array)
    return array.tolist()


def _shown(array: np.ndarray) -> tuple[str, str]:
    kind = f"{array.dtype}{list(array.shape)}"
    if array.ndim == 0:
        return kind, f"{array:.12g}"
    flat = array.ravel()
    text = np.array2string(flat[:LISTED], separator=", ", precision=6, max_line_width=10**6)
    return kind, text if flat.size <= LISTED else f"{text[:-1]}, ...]"

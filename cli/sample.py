"""``tilth sample``: a joint draw of everything that a probabilistic model is about."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..program import located_faults, save_outputs
from .console import columns, note, say, say_json
from .options import add_model_options, load_chosen
from .query import shown


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors or .npz file")
    parser.add_argument(
        "--data",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="an input that the model does not draw, as FILE.npy or FILE.npz:KEY",
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisers and of the draw")
    parser.add_argument("--engine", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--output", metavar="FILE", help="save the draw as .npz")
    parser.add_argument("--json", action="store_true", help="print an object with all numbers")
    add_model_options(parser)
    parser.epilog = "`--shape T=100` says how long a sequence is, `--shape N=50` how many rows."


def run(args: Namespace) -> int:
    """Draw once."""
    program = load_chosen(args.spec, args)
    given = program.read_inputs(args.data, args.seed)
    if args.weights is None and program.parameters():
        note(f"no --weights: the spec's initialisers are used with seed {args.seed}")
    found = program.simulate({}, args.weights, args.seed, given=given, engine=args.engine)
    if args.output:
        with located_faults({}):
            save_outputs(args.output, found)
        note(f"wrote {args.output}")
    if args.json:
        draw = {name: array.tolist() for name, array in found.items()}
        say_json({"name": program.name, "draw": draw})
        return 0
    for line in columns([(name, *shown(array)) for name, array in found.items()], ""):
        say(line)
    return 0

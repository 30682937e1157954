"""``tilth why``: why two nodes were or were not fused."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..program import located_faults, why
from .console import Failure, say
from .options import add_model_options, load_chosen


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument(
        "first",
        metavar="A",
        help="a node by its name, or by its number as `inspect --format text` prints it: %%7",
    )
    parser.add_argument("second", metavar="B", help="another node")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Explain one pair."""
    with located_faults({}):
        program = load_chosen(args.spec, args)
        try:
            say(why(program.graph, args.first, args.second))
        except KeyError as fault:
            answered = "--after simplify " if program.graph.of_op("site", "factor") else ""
            hint = (
                f"`tilth inspect SPEC {answered}--format text` prints every node, its number and "
                "its name"
            )
            raise Failure(str(fault.args[0]), hint) from fault
    return 0

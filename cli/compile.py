"""``tilth compile``: a spec as one readable Python file for this machine's CPU."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..compiled import write_module
from ..program import located_faults
from .console import Failure, note, reason, say_json
from .options import add_model_options, load_chosen, positive


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("-o", "--output", metavar="FILE.py", required=True)
    parser.add_argument("--weights", metavar="FILE", help="the weights file that it will read")
    parser.add_argument("--threads", type=positive, metavar="N", help="plan for this many threads")
    parser.add_argument(
        "--precise", action="store_true", help="no Winograd and no reassociation of sums"
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Compile one spec."""
    path = Path(args.output)
    if path.suffix != ".py":
        raise Failure(f"`{path}` is not a Python file", "name it FILE.py", usage=True)
    with located_faults({}):
        program = load_chosen(args.spec, args)
        sizes = {"N": 1, **program.nominal_sizes()}
        sizes = {name: size for name, size in sizes.items() if name in program.graph.symbols}
        weights = None
        if args.weights:
            program.weights_for(args.weights)  # refused here rather than when the file runs
            weights = os.path.relpath(args.weights, path.parent)
        try:
            text = write_module(program, path, sizes, args.threads, args.precise, weights)
        except OSError as error:
            raise Failure(f"cannot write `{path}`: {reason(error)}") from error
    if args.json:
        say_json({"file": str(path), "lines": text.count("\n"), "sizes": sizes})
    else:
        note(f"wrote {path}: {text.count(chr(10))} lines; `python {path} --help` runs it")
    return 0

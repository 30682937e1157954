"""``tilth schema``: the JSON Schema of a spec file."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ..program import json_schema
from .console import write_result


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file")
    parser.epilog = (
        "An editor's YAML server uses it when a spec begins with the comment "
        "`# yaml-language-server: $schema=FILE`."
    )


def run(args: Namespace) -> int:
    """Print the schema."""
    write_result(json.dumps(json_schema(), indent=2), args.output)
    return 0

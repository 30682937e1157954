"""``tilth new``: a starter spec that checks, to be changed into one's own."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .console import Failure, note, reason
from .starters import STARTERS


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE.yaml", help="the file to write")
    parser.add_argument("--kind", choices=STARTERS, default="net", help="default: net")


def run(args: Namespace) -> int:
    """Write the spec; an existing file is left alone."""
    path = Path(args.file)
    if path.suffix not in (".yaml", ".yml"):
        raise Failure(f"`{args.file}` must end in .yaml", f"`tilth new {path.name}.yaml`")
    name = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_") or "model"
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(STARTERS[args.kind].replace("NAME", name))
    except FileExistsError as error:
        raise Failure(f"`{args.file}` exists already", "choose another name") from error
    except OSError as error:
        raise Failure(f"cannot write `{args.file}`: {reason(error)}") from error
    note(f"wrote {args.file}; next: `tilth check {args.file}`")
    return 0

"""``tilth fmt``: specs in the one style, in place."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..program import SpecError, decode_spec, format_spec
from .console import Failure, complain, note, reason, say


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", nargs="+", help="a spec file; - is stdin to stdout")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; 1 if any would change"
    )


def run(args: Namespace) -> int:
    """Format each file; 1 when one cannot be read or parsed, or would change under --check."""
    code = 0
    for file in args.file:
        try:
            changed = _format(file, args.check)
        except SpecError as error:
            complain(str(error))
            code = 1
        else:
            code = max(code, int(changed and args.check))
    return code


def _format(file: str, check: bool) -> bool:
    if file == "-":
        text = decode_spec(sys.stdin.buffer.read(), "stdin")
        styled = format_spec(text, "stdin")
        if not check:
            sys.stdout.write(styled)
        return styled != text
    path = Path(file)
    try:
        data = path.read_bytes()
        text = decode_spec(data, file)
        styled = format_spec(text, file)
        changed = styled.encode() != data
        if changed and not check:
            _replace(path.resolve(), styled.encode())
    except OSError as error:
        raise Failure(f"cannot format `{file}`: {reason(error)}") from error
    if changed:
        say(f"would change {file}") if check else note(f"formatted {file}")
    return changed


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

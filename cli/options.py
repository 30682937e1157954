"""Options that several commands share."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from ..program import Program, load
from .console import Failure


def add_model_options(parser: ArgumentParser) -> None:
    """Which variant, options and sizes a spec is loaded with."""
    parser.add_argument("--variant", metavar="NAME", help="one of the spec's variants")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="override an option"
    )
    parser.add_argument(
        "--shape",
        metavar="NAME=SIZES",
        action="append",
        default=[],
        type=shape,
        help="an input's shape (image=1x3x224x224) or an open size (T=100)",
    )


def load_chosen(spec: str, args: Namespace) -> Program:
    """The program of a spec, with the command line's variant, options and sizes."""
    return load(spec, set=args.set, sizes=dict(args.shape), variant=args.variant)


def shape(text: str) -> tuple[str, Any]:
    """``image=1x3x224x224`` or ``T=100``; a name in place of a number leaves a size open."""
    name, equals, sizes = text.partition("=")
    parts = [part.strip() for part in re.split(r"[x×,]", sizes)]
    good = all(re.fullmatch(r"[1-9]\d*|[A-Za-z_]\w*", part) for part in parts)
    if not equals or not name.strip().isidentifier() or not good:
        message = f"`{text}` is not a shape; write NAME=SIZES, such as image=1x3x224x224"
        raise ArgumentTypeError(message)
    numbers = tuple(int(part) if part.isdigit() else part for part in parts)
    return name.strip(), numbers[0] if len(numbers) == 1 else numbers


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"`{text}` is not a whole number of at least 1")
    return int(text)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"`{text}` is not a list of numbers such as 0.5,0.5,0.5"
        raise ArgumentTypeError(message) from error


def place(text: str) -> tuple[int, ...]:
    """Indices of a state, with commas between them."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ArgumentTypeError(f"`{text}` is not a state such as 3,0")
    return tuple(int(part) for part in parts)


def sequences(texts: list[str]) -> list[list[str]]:
    """``y=a.npy,b.npy`` as one list of ``name=file`` a sequence."""
    rows: dict[str, list[str]] = {}
    for text in texts:
        name, equals, files = text.partition("=")
        rows[name] = files.split(",") if equals else [name]
    counts: set[Any] = {len(files) for files in rows.values()}
    if len(counts) > 1:
        raise Failure("inputs have different numbers of sequences", usage=True)
    count = next(iter(counts), 0)
    return [
        [f"{name}={files[k]}" if files[k] != name else name for name, files in rows.items()]
        for k in range(count)
    ]

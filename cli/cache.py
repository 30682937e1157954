"""``tilth cache``: where compiled kernels are kept, how much they take, and how to clear them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..program import disk_cache, machine
from .console import Failure, columns, reason, say, say_json

KIB = 1024


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--clear", action="store_true", help="delete everything that is kept")
    parser.add_argument("--json", action="store_true", help="print an object")


def run(args: Namespace) -> int:
    """Show or clear the cache."""
    folder = machine.cache_folder()
    if args.clear:
        try:
            freed = disk_cache.clear()
        except OSError as error:
            raise Failure(f"cannot clear `{folder}`: {reason(error)}") from error
        if args.json:
            say_json({"folder": str(folder), "freed": freed})
        else:
            say(f"freed {freed / KIB:.0f} KiB in {folder}")
        return 0
    parts = {name: disk_cache.usage(name) for name in disk_cache.PARTS}
    if args.json:
        found = {name: {"files": files, "bytes": size} for name, (files, size) in parts.items()}
        say_json({"folder": str(folder), "writable": machine.is_writable(folder), **found})
        return 0
    say(f"{folder}{'' if machine.is_writable(folder) else ' (cannot be written)'}")
    rows = [(n, f"{files} files", f"{size / KIB:.0f} KiB") for n, (files, size) in parts.items()]
    for line in columns(rows):
        say(line)
    return 0

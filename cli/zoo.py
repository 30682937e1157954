"""``tilth zoo``: the specs that come with Tilth."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..program import find_spec, read_spec, zoo
from .console import say, say_json, say_table, write_result


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="list|show", required=True)
    listing = actions.add_parser("list", help="every spec with its variants")
    listing.add_argument("--json", action="store_true", help="print a list")
    show = actions.add_parser("show", help="the text of one spec")
    show.add_argument("spec", metavar="NAME", help="a spec or a variant")
    show.add_argument("--json", action="store_true", help="print an object")


def run(args: Namespace) -> int:
    """List the zoo or show one of its specs."""
    if args.action == "show":
        return _show(args)
    entries = zoo.entries()
    if args.json:
        say_json([entry.as_json() for entry in entries])
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(entries)} specs", title_justify="left")
    for name in ("family", "name", "variants", "title"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        cells = (entry.family, entry.name, " ".join(entry.variants), entry.title)
        table.add_row(*(Text(cell) for cell in cells))
    say_table(table)
    say("`tilth check NAME` takes the name of a spec or of a variant")
    return 0


def _show(args: Namespace) -> int:
    path, _ = find_spec(args.spec)
    text, _ = read_spec(path)
    if not args.json:
        write_result(text, None)
        return 0
    found = zoo.find(args.spec)
    head = found[0].as_json() if found else {"name": path.stem, "path": str(path)}
    say_json({**head, "text": text})
    return 0

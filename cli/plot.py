"""``tilth plot``: the curves of runs as drawings."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .console import note, say_json

FORMATS = ("png", "svg")


def configure(parser: ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, as `runs/x`")
    parser.add_argument("-o", "--output", metavar="FILE", help="a .png or .svg file")
    parser.add_argument(
        "--format", choices=FORMATS, action="append", help="default: both, in the run's folder"
    )
    parser.add_argument("--json", action="store_true", help="print the files' names as JSON")
    parser.epilog = "Several runs are drawn into the same panels."


def run(args: Namespace) -> int:
    """Draw."""
    from ..program import located_faults, plot_runs

    with located_faults({}):
        written = plot_runs(args.runs, args.output, args.format or FORMATS)
    if args.json:
        say_json([str(path) for path in written])
    else:
        for path in written:
            note(f"wrote {path}")
    return 0

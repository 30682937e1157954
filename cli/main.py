"""The entry point ``tilth``: finds the command, runs it, and says what went wrong."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
import warnings
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence

from .console import Failure, complain, say_json

COMMANDS = {
    "check": "find every fault of a spec and prove the facts that it states",
    "inspect": "show a spec or its graph: table, text, drawing, page, JSON",
    "run": "run a model on inputs",
    "query": "ask a probabilistic model about data",
    "sample": "draw everything that a probabilistic model is about",
    "fit": "learn the parameters of a probabilistic model by EM",
    "explain": "derive how a model's latent variables are summed out, and check it",
    "solve": "solve a decision process from its model",
    "learn": "learn a decision process from episodes",
    "why": "say why two nodes were or were not fused",
    "compile": "write a spec as one readable Python file for this CPU",
    "train": "train a model by its spec",
    "plot": "draw the curves of training runs",
    "bench": "measure a model side by side with other engines",
    "fmt": "put specs into the one style",
    "new": "write a starter spec",
    "schema": "print the JSON Schema of a spec file, for editors",
    "zoo": "list and show the specs that come with Tilth",
    "cache": "show or clear the compiled kernels that are kept",
    "doctor": "say what this machine and installation have",
}
"""Commands and what they do; each is the module of its name."""

EXIT_CODES = "exit codes: 0 fine, 1 fault found, 2 wrong command line, 130 interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a sign shows `?` in its place.
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(words: list[str]) -> int:
    try:
        args = _parser(words).parse_args(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    if args.command is None:
        _parser(words).print_help()
        return 2
    return _guarded(args)


def _parser(words: Sequence[str]) -> ArgumentParser:
    """The parser; only the chosen command's module is imported."""
    parser = ArgumentParser(
        prog="tilth",
        description="Write a model the way the paper prints it; check it, draw it, run it.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("--traceback", action="store_true", help="show where a bug happened")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            module = importlib.import_module(f".{name}", __package__)
            module.configure(command)
            command.set_defaults(run=module.run)
    return parser


def _guarded(args: Namespace) -> int:
    """Run a command; whatever goes wrong becomes a message and an exit code."""
    from ..program import SpecError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: complain(f"warning: {message}")
            return args.run(args)
    except SpecError as error:
        if getattr(args, "json", False):
            say_json({"diagnostics": [d.as_json() for d in error.diagnostics]})
        else:
            complain(str(error))
        return 1
    except Failure as failure:
        complain(f"error: {failure}" + (f"\n   hint: {failure.hint}" if failure.hint else ""))
        return 2 if failure.usage else 1
    except MemoryError:
        complain("error[E703]: out of memory\n   hint: use smaller sizes or a smaller batch")
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as bug:
        _report_bug(bug, args.traceback or os.environ.get("TILTH_DEBUG") == "1")
        return 1


def _report_bug(bug: Exception, shown: bool) -> None:
    if shown:
        traceback.print_exception(bug)
    what = f"{type(bug).__name__}: {bug}".splitlines()[0]
    lines = [f"internal error: {what}", "   this is a bug in Tilth, not a fault of your spec"]
    if not shown:
        lines.append("   hint: `tilth --traceback ...` or TILTH_DEBUG=1 shows where it happened;")
        lines.append("   please report that text, the spec and the output of `tilth doctor`")
    complain("\n".join(lines))


class _Version(Action):
    def __call__(self, parser: ArgumentParser, *rest: object) -> None:
        from importlib.metadata import version

        print(f"tilth {version('tilth')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())

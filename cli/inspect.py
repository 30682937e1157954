"""``tilth inspect``: a spec or its graph as table, text, drawing, page or JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace

from ..program import Program, format_spec, print_graph, read_spec, spec_syntax
from ..view.dot import render_dot
from ..view.html import render_html
from ..view.jsonview import graph_json
from ..view.svg import render_svg
from ..view.table import rich_table, summarise
from .console import Failure, say_table, table_text, write_result
from .options import add_model_options, load_chosen, positive

FORMATS = {
    "spec": ("text", "json"),
    "graph": ("table", "text", "dot", "svg", "json", "html"),
}
"""Formats by stage, the default first."""

SIZED = ("table", "dot", "svg", "html")
"""Formats for people, which show the sizes of the spec's facts unless others are given."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    every = list(dict.fromkeys(name for names in FORMATS.values() for name in names))
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument("--stage", choices=FORMATS, default="graph", help="default: graph")
    parser.add_argument("--format", choices=every, help="default: table, for the stage spec text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file")
    parser.add_argument(
        "--depth", type=positive, metavar="N", help="fold blocks deeper than N path levels"
    )
    parser.add_argument("--fold", action="store_true", help="the same as --depth 1")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Show one spec."""
    allowed = FORMATS[args.stage]
    chosen = args.format or allowed[0]
    if chosen not in allowed:
        message = f"the stage {args.stage} has no format {chosen}"
        raise Failure(message, f"it has {', '.join(allowed)}", usage=True)
    if args.stage == "spec":
        write_result(_SPEC_RENDERERS[chosen](args.spec), args.output)
        return 0
    program = load_chosen(args.spec, args)
    depth = args.depth or (1 if args.fold else None)
    if chosen in SIZED and not args.shape:
        program = replace(program, graph=program.graph.bind(program.nominal_sizes()))
    if chosen == "table" and args.output is None:
        say_table(rich_table(summarise(program.graph, _title(program), depth)))
    else:
        write_result(_RENDERERS[chosen](program, depth), args.output)
    return 0


def _title(program: Program) -> str:
    return program.variant or program.name


def _table(program: Program, depth: int | None) -> str:
    return table_text(rich_table(summarise(program.graph, _title(program), depth)))


def _json(program: Program, depth: int | None) -> str:
    return json.dumps(graph_json(program.graph), indent=1, allow_nan=False)


def _html(program: Program, depth: int | None) -> str:
    envelope = program.model.envelope
    return render_html(program.graph, _title(program), envelope.document.text)


_SPEC_RENDERERS: dict[str, Callable[[str], str]] = {
    "text": lambda spec: format_spec(*read_spec(spec)),
    "json": lambda spec: json.dumps(spec_syntax(spec), indent=1),
}

_RENDERERS: dict[str, Callable[[Program, int | None], str]] = {
    "table": _table,
    "text": lambda program, depth: print_graph(program.graph),
    "dot": lambda program, depth: render_dot(program.graph, _title(program), depth or ()),
    "svg": lambda program, depth: render_svg(program.graph, _title(program), depth or ()),
    "json": _json,
    "html": _html,
}

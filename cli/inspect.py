"""``tilth inspect``: a spec or its graph as table, text, drawing, page or JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches

from ..program import (
    Graph,
    Options,
    Program,
    format_spec,
    located_faults,
    print_graph,
    read_spec,
    spec_syntax,
)
from ..view.dot import render_dot
from ..view.html import render_html
from ..view.jsonview import graph_json
from ..view.machine_code import readable_asm, readable_llvm
from ..view.stages import FUSED, after_pass, pass_diff, pass_times
from ..view.svg import render_svg
from ..view.table import rich_table, summarise
from .console import Failure, columns, say_table, table_text, write_result
from .options import add_model_options, load_chosen, positive

GRAPHICAL = ("table", "text", "dot", "svg", "json", "html")
FORMATS = {
    "spec": ("text", "json"),
    "graph": GRAPHICAL,
    "backward": GRAPHICAL,
    "fused": GRAPHICAL,
    "plan": ("text",),
    "source": ("text",),
    "llvm": ("text",),
    "asm": ("text",),
}
"""Formats by stage, the default first."""

OWN = "tilth_kernels"
"""In the linker's name of every kernel."""

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
    parser.add_argument("--after", metavar="PASS", help="the graph after a pass of the compiler")
    parser.add_argument("--diff", metavar="PASS", help="what a pass changes, as a diff of texts")
    parser.add_argument("--time-passes", action="store_true", help="the time each pass takes")
    parser.add_argument(
        "--kernel", metavar="NAME", help="of the stages llvm and asm; without it, a list of them"
    )
    parser.add_argument("--precise", action="store_true", help="no Winograd, no reassociation")
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
    if args.kernel and args.stage not in ("llvm", "asm"):
        message = "--kernel belongs to --stage llvm and --stage asm"
        raise Failure(message, usage=True)
    if args.stage in ("llvm", "asm"):
        write_result(_kernel_code(program, args), args.output)
        return 0
    if args.stage in ("plan", "source"):
        write_result(_compiled(program, args.stage, args.precise), args.output)
        return 0
    if args.stage == "backward":
        program = replace(program, graph=_backward(program))
    if args.diff or args.time_passes:
        write_result(_passes(program, args), args.output)
        return 0
    if args.after or args.stage == "fused":
        program = replace(program, graph=_after(program, args.after or FUSED, args.precise))
    depth = args.depth or (1 if args.fold else None)
    if chosen in SIZED and not args.shape:
        program = replace(program, graph=program.graph.bind(program.nominal_sizes()))
    if chosen == "table" and args.output is None:
        say_table(rich_table(summarise(program.graph, _title(program), depth)))
    else:
        write_result(_RENDERERS[chosen](program, depth), args.output)
    return 0


def _after(program: Program, name: str, precise: bool) -> Graph:
    with _known_pass(), located_faults(program.sources):
        return after_pass(program.graph, name, Options(precise=precise))


def _backward(program: Program) -> Graph:
    """The graph with what flows back through it to the weights."""
    from ..derivatives import backward_graph

    return backward_graph(program)


@contextmanager
def _known_pass() -> Iterator[None]:
    try:
        yield
    except KeyError as fault:
        raise Failure(str(fault.args[0])) from fault


def _passes(program: Program, args: Namespace) -> str:
    options = Options(precise=args.precise)
    if args.time_passes:
        with located_faults(program.sources):
            rows = [*pass_times(program.graph, options)]
        rows.append(("all passes", sum(seconds for _, seconds in rows)))
        return "\n".join(f"{seconds * 1e3:9.2f} ms  {name}" for name, seconds in rows)
    with _known_pass(), located_faults(program.sources):
        return pass_diff(program.graph, args.diff, options) or f"{args.diff} changes nothing here"


def _known_sizes(program: Program) -> dict[str, int]:
    sizes = {"N": 1, **program.nominal_sizes()}
    return {name: size for name, size in sizes.items() if name in program.graph.symbols}


def _kernel_code(program: Program, args: Namespace) -> str:
    """LLVM IR or assembler of one kernel of the plan, or the kernels that there are."""
    from ..compiled import plan_kernels

    found = {k.name: k for k in plan_kernels(program, _known_sizes(program), args.precise)}
    if args.kernel is None:
        rows = [("kernel", "rows"), *((k.name, str(k.rows)) for k in found.values())]
        hint = f"--stage {args.stage} --kernel NAME shows one"
        return "\n".join([*columns(rows, ""), "", hint])
    if args.kernel not in found:
        close = get_close_matches(args.kernel, found, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "without --kernel: a list"
        raise Failure(f"the plan has no kernel `{args.kernel}`", hint)
    llvm, asm = found[args.kernel].machine_code()
    return readable_llvm(llvm, OWN) if args.stage == "llvm" else readable_asm(asm, OWN)


def _compiled(program: Program, stage: str, precise: bool) -> str:
    """The runnable module's text, or only the rows of its plan."""
    from ..compiled import module_source

    text = module_source(program, _known_sizes(program), precise=precise)
    if stage == "source":
        return text
    start = text.index("ROWS = (")
    return text[start : text.index("\n)\n", start) + 2]


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

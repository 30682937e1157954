"""A graph as one HTML page that needs no network: pan, zoom, fold, search, and details on a click.

The page holds the graph as JSON and lays it out itself (the method of ``layout``, in JavaScript),
since which blocks are folded changes with every click.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from ..compiler.cost import Cost, NodeCost, cost
from ..compiler.ir.dims import DimLike
from ..compiler.ir.graph import Graph
from ..compiler.ir.text import attr_text
from .boxes import Box, boxes, count_text
from .scene import Item, headline, item_of, output_item
from .svg import COLOURS


def render_html(graph: Graph, title: str, spec_text: str | None = None) -> str:
    """The page as text. ``spec_text`` is shown with the line of the chosen op marked."""
    graphs: list[dict[str, Any]] = []
    _add_graph(graphs, graph, title, cost(graph))
    data = {"title": title, "source": spec_text, "graphs": graphs}
    strokes = "\n".join(f".{family} {{ --c: {line}; }}" for family, (_, line) in COLOURS.items())
    parts = {
        "TITLE": escape(title),
        "COLOURS": strokes,
        "LAYOUT": _template("page_layout.html"),
        "DATA": _script_json(data),
    }
    # One pass, so that a title that looks like a placeholder is left alone.
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match.group(1)], _template("page.html"))


# ---------------------------------------------------------------- helpers


def _template(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _script_json(data: object) -> str:
    """JSON in which no text can end the script element or start a comment in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _add_graph(graphs: list[dict[str, Any]], graph: Graph, title: str, total: Cost) -> int:
    """Append a graph and, after it, its loop bodies; return its place."""
    place = len(graphs)
    entry: dict[str, Any] = {"title": title, "subtitle": headline(total)}
    graphs.append(entry)
    ops = {box.index: box for box in boxes(graph, costs=total)}
    rows = {row.index: row for row in total.rows}
    shown = []
    for box in ops.values():
        details = _details(graph, box, rows[box.index])
        details |= _drawn(item_of(box, ops))
        details["bodies"] = [
            _add_graph(graphs, region, f"body of {box.op} {box.path}".rstrip(), spent)
            for region, spent in zip(
                graph.node(box.index).regions, rows[box.index].bodies, strict=True
            )
        ]
        shown.append(details)
    outputs = []
    for number, (name, value) in enumerate(graph.outputs):
        item = _drawn(output_item(name, number, graph.type_of(value)))
        source = value.node if value.node in ops else None
        outputs.append({**item, "reads": [] if source is None else [source], "name": name})
    entry |= {"ops": shown, "outputs": outputs}
    return place


def _drawn(item: Item) -> dict[str, Any]:
    return {
        "lines": item.lines,
        "family": item.family,
        "w": round(item.width, 1),
        "h": item.height,
        "circle": item.circle,
    }


def _details(graph: Graph, box: Box, row: NodeCost) -> dict[str, Any]:
    node = graph.node(box.index)
    operands = []
    for value in graph.operands(box.index):
        source = graph.node(value.node)
        name = source.name or source.op
        operands.append(f"{name} : {graph.type_of(value)}")
    parameters = box.parameters if isinstance(box.parameters, int) else 0
    return {
        "id": box.index,
        "op": box.op,
        "path": box.path,
        "block": ".".join(box.block),
        "reads": sorted({value.node for value in box.reads}),
        "attrs": [[key, attr_text(value)] for key, value in node.attrs.items()],
        "operands": operands,
        "results": [str(kind) for kind in node.types],
        "weights": [[w.path, w.kind, str(w.type)] for w in box.weights],
        "cost": _cost_lines(box, row),
        "parameters": parameters,
        "line": box.span.line if box.span else None,
        "place": f"{box.span.file}:{box.span}" if box.span else None,
    }


def _cost_lines(box: Box, row: NodeCost) -> list[list[str]]:
    numbers: list[tuple[str, DimLike]] = [
        ("parameters", box.parameters),
        ("buffers", box.buffers),
        ("MACs", row.macs),
        ("bytes read", row.read_bytes),
        ("bytes written", row.written_bytes),
    ]
    lines = [[name, _exact(number)] for name, number in numbers if number != 0]
    if row.intensity is not None:
        lines.append(["MACs per byte", f"{row.intensity:.3g}"])
    if row.repeats is None:
        lines.append(["steps", "decided by data; costs are of one step"])
    elif row.repeats != 1:
        lines.append(["steps", str(row.repeats)])
    return lines


def _exact(number: DimLike) -> str:
    if not isinstance(number, int) or number < 1000:
        return str(number)
    return f"{number:,} ({count_text(number)})"

"""The model as a table: one row an op, with output shape, parameters, work and bytes.

Two front ends over the same rows: plain data for ``--json`` and a rich table for the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..compiler.cost import Cost, cost
from ..compiler.ir.dims import DimLike
from ..compiler.ir.graph import Graph
from ..compiler.ir.types import shape_text
from .boxes import Box, boxes, count_text

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line: an op, or a whole block when ``ops`` is more than one.

    ``level`` is 0 for the graph itself and one more inside each loop body, where costs are those of
    one step. ``recursive`` marks weights that an earlier row counted.
    """

    path: str
    op: str
    shape: str
    parameters: DimLike
    buffers: DimLike
    macs: DimLike
    bytes: DimLike
    level: int = 0
    ops: int = 1
    recursive: bool = False

    def as_json(self) -> dict[str, object]:
        """A plain dictionary; symbolic numbers are strings."""
        numbers = {
            "parameters": self.parameters,
            "buffers": self.buffers,
            "macs": self.macs,
            "bytes": self.bytes,
        }
        return {
            "path": self.path,
            "op": self.op,
            "shape": self.shape,
            **{key: n if isinstance(n, int) else str(n) for key, n in numbers.items()},
            "level": self.level,
            "ops": self.ops,
            "recursive": self.recursive,
        }


@dataclass(frozen=True)
class Summary:
    """All rows of a model and its totals."""

    title: str
    rows: tuple[Row, ...]
    total: Cost

    def as_json(self) -> dict[str, object]:
        """Plain data: ``title``, ``rows`` and ``total``."""
        keys = ("parameters", "buffers", "parameter_bytes", "buffer_bytes", "macs")
        more = ("activation_bytes", "moved_bytes", "peak_bytes")
        numbers = {key: getattr(self.total, key) for key in (*keys, *more)}
        return {
            "title": self.title,
            "rows": [row.as_json() for row in self.rows],
            "total": {
                **{k: n if n is None or isinstance(n, int) else str(n) for k, n in numbers.items()},
                "intensity": self.total.intensity,
                "open_loops": len(self.total.open_loops),
            },
        }


def summarise(
    graph: Graph,
    title: str = "",
    depth: int | None = None,
    bindings: Mapping[str, DimLike] | None = None,
) -> Summary:
    """The table of a graph.

    ``depth`` folds ops whose weight path is deeper into one row a block; ``bindings`` fixes sizes
    for the costs (the batch ``N`` is 1 unless bound), while shapes keep their symbols.
    """
    total = cost(graph, bindings)
    rows = _rows(graph, total, 0)
    return Summary(title or graph.name, tuple(_folded(rows, depth)), total)


def rich_table(summary: Summary) -> Table:
    """The summary as a rich table, totals at the end."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(summary.title), title_justify="left", caption_justify="left")
    table.add_column("path", overflow="fold")
    table.add_column("op")
    table.add_column("output", overflow="fold")
    for name in ("parameters", "MACs", "bytes"):
        table.add_column(name, justify="right")
    for row in summary.rows:
        pad = "  " * row.level
        parameters = "(shared)" if row.recursive and not row.parameters else _number(row.parameters)
        cells = [pad + row.path, pad + row.op, row.shape, parameters]
        cells += [_number(row.macs), _number(row.bytes)]
        # Text, not markup: shapes and paths hold square brackets.
        table.add_row(*(Text(cell) for cell in cells), style="dim" if row.level else "")
    total = summary.total
    table.add_section()
    sums = [_number(n) for n in (total.parameters, total.macs, total.activation_bytes)]
    table.add_row("total", "", "", *(Text(s) for s in sums), style="bold")
    table.caption = Text("\n".join(_caption(total)))
    return table


# ---------------------------------------------------------------- helpers


def _rows(graph: Graph, total: Cost, level: int) -> list[tuple[Box, Row, list[Row]]]:
    """Each box with its row and the rows of its loop bodies."""
    bodies = {row.index: row.bodies for row in total.rows}
    found = []
    for box in boxes(graph, costs=total):
        inner: list[Row] = []
        for region, spent in zip(graph.node(box.index).regions, bodies[box.index], strict=True):
            for _, row, deeper in _rows(region, spent, level + 1):
                inner += [row, *deeper]
        found.append((box, _row(box, level), inner))
    return found


def _row(box: Box, level: int) -> Row:
    return Row(
        path=box.path or ".".join(box.block),
        op=box.label if box.op != "input" else "input",
        shape=", ".join(shape_text(kind.shape) for kind in box.types),
        parameters=box.parameters,
        buffers=box.buffers,
        macs=box.macs,
        bytes=box.written_bytes,
        level=level,
        recursive=box.recursive,
    )


def _folded(rows: Iterable[tuple[Box, Row, list[Row]]], depth: int | None) -> list[Row]:
    """Rows in order, those of one deep block joined where the block first appears."""
    lines: dict[object, list[Row]] = {}
    for box, row, inner in rows:
        if depth is None or len(box.block) < depth or not depth:
            lines[box.index] = [row, *inner]
            continue
        key = ".".join(box.block[:depth])
        before = lines.get(key)
        lines[key] = [_joined(key, before[0] if before else None, row)]
    return [row for group in lines.values() for row in group]


def _joined(path: str, before: Row | None, row: Row) -> Row:
    if before is None:
        return replace(row, path=path)
    return Row(
        path=path,
        op=f"{before.ops + 1} ops",
        shape=row.shape,
        parameters=before.parameters + row.parameters,
        buffers=before.buffers + row.buffers,
        macs=before.macs + row.macs,
        bytes=before.bytes + row.bytes,
        level=row.level,
        ops=before.ops + 1,
        recursive=before.recursive or row.recursive,
    )


def _number(number: DimLike) -> str:
    if number == 0:
        return "-"
    return f"{number:,}" if isinstance(number, int) else str(number)


def _caption(total: Cost) -> list[str]:
    peak = "depends on sizes" if total.peak_bytes is None else _bytes(total.peak_bytes)
    lines = [
        f"parameters {_number(total.parameters)} ({_bytes(total.parameter_bytes)}), "
        f"buffers {_number(total.buffers)}",
        f"MACs {count_text(total.macs)}, activations {_bytes(total.activation_bytes)}, "
        f"most live at once {peak}",
    ]
    if total.intensity is not None:
        lines.append(f"MACs per byte moved {total.intensity:.3g}")
    if total.open_loops:
        lines.append(f"loops of unknown length, counted for one step: {len(total.open_loops)}")
    return lines


def _bytes(number: DimLike) -> str:
    text = count_text(number)
    return f"{text}B" if text[-1:].isalpha() and isinstance(number, int) else f"{text} B"

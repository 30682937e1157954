"""The boxes and arrows of a drawing: op boxes with their text, blocks folded into one.

A block is folded by weight path. Where folding would make the drawing circular (a block that is
applied twice, with something between), each connected part of it becomes a box, or else each op.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from ..compiler.cost import Cost, cost
from ..compiler.ir.dims import DimLike
from ..compiler.ir.graph import Graph
from ..compiler.ir.types import TensorType
from .boxes import Box, boxes, count_text, dims_text

Fold = int | Collection[str]
"""Blocks to fold: a depth of the weight path, or the paths themselves."""

SYMBOLS = {"add": "+", "mul": "×", "sub": "−", "div": "÷"}
"""Ops of two tensors that are drawn as a sign in a circle."""

FONT, SMALL = 12.0, 10.0
PADDING = 10.0
LONGEST = 44
"""Characters of a line before it is cut."""


@dataclass(frozen=True)
class Item:
    """One box of a drawing.

    ``members`` are node numbers, more than one for a folded block, none for an output. ``lines``
    is the text, the first larger; a ``circle`` has one sign.
    """

    key: str
    lines: tuple[str, ...]
    family: str
    block: tuple[str, ...]
    members: tuple[int, ...]
    width: float
    height: float
    tip: str
    circle: bool = False


@dataclass(frozen=True)
class Scene:
    """Items, arrows between them (lower to higher number), and one scene for each loop body."""

    title: str
    subtitle: str
    items: tuple[Item, ...]
    edges: tuple[tuple[int, int], ...]
    bodies: tuple[Scene, ...] = ()


def scene(graph: Graph, title: str = "", fold: Fold = ()) -> Scene:
    """The drawing of a graph with the blocks in ``fold`` folded."""
    return _scene(graph, title or graph.name, fold, cost(graph))


def item_of(box: Box, outer: Mapping[int, Box]) -> Item:
    """The item of one op; ``outer`` holds the boxes it reads from."""
    reads = [outer[v.node].types[v.result] for v in box.reads]
    if box.op in SYMBOLS and len(box.reads) > 1:
        lines, circle = (SYMBOLS[box.op],), True
    else:
        lines, circle = (box.label, *_second_line(box, reads)), False
    return _item(f"n{box.index}", lines, box.family, box.block, (box.index,), _tip(box), circle)


def block_item(path: str, members: Sequence[Box]) -> Item:
    """The item of a folded block."""
    parameters: DimLike = 0
    for box in members:
        parameters = parameters + box.parameters
    second = f"{len(members)} ops" + (f" · {count_text(parameters)} params" if parameters else "")
    shape = dims_text(members[-1].types[0]) if members[-1].types else ""
    names = Counter(box.op for box in members)
    tip = path + "\n" + ", ".join(f"{n} {op}" for op, n in names.most_common())
    key = f"b{members[0].index}"
    block = tuple(path.split("."))[:-1]
    indices = tuple(box.index for box in members)
    return _item(key, (path, second, shape), "block", block, indices, tip, False)


def output_item(name: str, place: int, kind: TensorType) -> Item:
    """The item of a graph output."""
    tip = f"output {name} : {kind}"
    return _item(f"o{place}", (name, dims_text(kind)), "input", (), (), tip, False)


def text_width(text: str, size: float) -> float:
    """An upper estimate of a text's width in a common sans-serif font of ``size`` pixels."""
    return size * sum(_WIDE.get(c, 0.62) if c.isascii() else _other(c) for c in text)


def headline(total: Cost) -> str:
    """Parameters and multiply-accumulates in words."""
    parts = [f"{count_text(total.parameters)} parameters"]
    if total.macs:
        parts.append(f"{count_text(total.macs)} MACs")
    return ", ".join(parts)


# ---------------------------------------------------------------- helpers

_WIDE = {
    **dict.fromkeys("ijlI|.,:;'!()[]{}/ \\ft-\"`", 0.4),
    **dict.fromkeys("mwMW%@", 1.0),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ<>=+~#&", 0.8),
}


def _other(char: str) -> float:
    # Latin, Greek, signs; beyond them, as wide as a letter can be.
    return 0.85 if ord(char) < 0x2E80 else 1.05


def _scene(graph: Graph, title: str, fold: Fold, total: Cost) -> Scene:
    ops = {box.index: box for box in boxes(graph, costs=total)}
    arrows = [(v.node, box.index) for box in ops.values() for v in box.reads]
    home = _homes(ops, arrows, fold)
    members: dict[int, list[int]] = {}
    for index in ops:
        members.setdefault(home[index], []).append(index)
    order = _producers_first(sorted(members), {(home[u], home[v]) for u, v in arrows})
    items = []
    for key in order:
        group = [ops[i] for i in members[key]]
        if len(group) == 1:
            items.append(item_of(group[0], ops))
        else:
            items.append(block_item(".".join(_folded_block(group[0], fold) or ()), group))
    place = {key: i for i, key in enumerate(order)}
    edges = {(place[home[u]], place[home[v]]) for u, v in arrows if home[u] != home[v]}
    for number, (name, value) in enumerate(graph.outputs):
        items.append(output_item(name, number, graph.type_of(value)))
        if value.node in ops:
            edges.add((place[home[value.node]], len(items) - 1))
    bodies = _bodies(graph, fold, total)
    return Scene(title, headline(total), tuple(items), tuple(sorted(edges)), bodies)


def _bodies(graph: Graph, fold: Fold, total: Cost) -> tuple[Scene, ...]:
    found = []
    for row in total.rows:
        for region, spent in zip(graph.node(row.index).regions, row.bodies, strict=True):
            name = f"{row.op} {row.name}".rstrip()
            found.append(_scene(region, f"body of {name}", fold, spent))
    return tuple(found)


def _homes(ops: Mapping[int, Box], arrows: Sequence[tuple[int, int]], fold: Fold) -> dict[int, int]:
    """The first member of the item that each op goes to."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, box in ops.items():
        block = _folded_block(box, fold)
        if block is not None:
            groups.setdefault(block, []).append(index)
    home = {index: index for index in ops}
    for indices in groups.values():
        home.update(dict.fromkeys(indices, indices[0]))
    for split in (_parts, _singles):
        knotted = _knotted({(home[u], home[v]) for u, v in arrows if home[u] != home[v]})
        for indices in groups.values():
            if any(home[i] in knotted for i in indices):
                home.update(split(indices, arrows))
    return home


def _folded_block(box: Box, fold: Fold) -> tuple[str, ...] | None:
    if isinstance(fold, int):
        return box.block[:fold] if 0 < fold <= len(box.block) else None
    for depth in range(1, len(box.block) + 1):
        if ".".join(box.block[:depth]) in fold:
            return box.block[:depth]
    return None


def _parts(indices: Sequence[int], arrows: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The connected parts of a block, each named by its first op."""
    root = {i: i for i in indices}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for u, v in arrows:
        if u in root and v in root:
            a, b = sorted((find(u), find(v)))
            root[b] = a
    return {i: find(i) for i in indices}


def _singles(indices: Sequence[int], arrows: Iterable[tuple[int, int]]) -> dict[int, int]:
    return {i: i for i in indices}


def _knotted(arrows: set[tuple[int, int]]) -> set[int]:
    """Items that producers-first order cannot place: those on cycles and those between or after."""
    ends = {v for arrow in arrows for v in arrow}
    return ends.difference(_producers_first(sorted(ends), arrows))


def _producers_first(homes: list[int], arrows: set[tuple[int, int]]) -> list[int]:
    """Items in an order that no arrow goes against, else by first op; those on cycles left out."""
    down: dict[int, list[int]] = {key: [] for key in homes}
    waiting = dict.fromkeys(homes, 0)
    for u, v in arrows:
        if u != v:
            down[u].append(v)
            waiting[v] += 1
    ready = [key for key in homes if not waiting[key]]
    heapify(ready)
    order: list[int] = []
    while ready:
        u = heappop(ready)
        order.append(u)
        for v in down[u]:
            waiting[v] -= 1
            if not waiting[v]:
                heappush(ready, v)
    return order


def _item(
    key: str,
    lines: Sequence[str],
    family: str,
    block: tuple[str, ...],
    members: tuple[int, ...],
    tip: str,
    circle: bool,
) -> Item:
    if circle:
        return Item(key, tuple(lines), family, block, members, 24.0, 24.0, tip, True)
    cut = tuple(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…" for line in lines)
    widths = [text_width(line, FONT if i == 0 else SMALL) for i, line in enumerate(cut)]
    width = max(64.0, max(widths) + 2 * PADDING)
    height = 24.0 + 14.0 * (len(cut) - 1)
    return Item(key, cut, family, block, members, width, height, tip)


def _second_line(box: Box, reads: Sequence[TensorType]) -> list[str]:
    """The result's shape where it is news, and the number of parameters."""
    parts = []
    changed = box.op == "input" or not reads or reads[0].shape != box.types[0].shape
    if box.types and changed:
        parts.append(dims_text(box.types[0]))
    if len(box.types) > 1:
        parts.append(f"{len(box.types)} results")
    if box.parameters:
        parts.append(f"{count_text(box.parameters)} params")
    return [" · ".join(parts)] if parts else []


def _tip(box: Box) -> str:
    results = ", ".join(str(kind) for kind in box.types)
    lines = [f"{box.op} {box.path}".rstrip(), results]
    lines += [f"{w.path} : {w.type}" for w in box.weights]
    if box.macs:
        lines.append(f"{count_text(box.macs)} MACs")
    return "\n".join(lines)

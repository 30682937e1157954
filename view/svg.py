"""A graph as an SVG drawing: boxes coloured by family, arrows downwards, a legend.

Loop bodies stand in frames to the right of the graph that runs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from ..compiler.ir.graph import Graph
from .layout import Layout, Point, lay_out
from .scene import FONT, SMALL, Fold, Item, Scene, scene, text_width

COLOURS: dict[str, tuple[str, str]] = {
    "input": ("#f4f4f2", "#8a8a86"),
    "convolution": ("#dbe8f7", "#3d6fa8"),
    "product": ("#e2e0f5", "#6257ad"),
    "normalisation": ("#dff1e4", "#4b9165"),
    "activation": ("#fdeed3", "#c08a2c"),
    "pooling": ("#f8dede", "#b65353"),
    "combination": ("#fbf6c9", "#a69520"),
    "shape": ("#e6eef0", "#64848c"),
    "loop": ("#f3e0f3", "#97539b"),
    "other": ("#efefef", "#777777"),
    "block": ("#ffffff", "#3c4a5c"),
}
"""Fill and stroke of each family, in the order of the legend."""

INK, MUTED, LINE = "#1c2733", "#5a6673", "#6b7785"
MARGIN = 24.0
TITLE = 18.0
FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def render_svg(graph: Graph, title: str = "", fold: Fold = ()) -> str:
    """The drawing of a graph as the text of an SVG file.

    ``fold`` draws blocks as one box: a depth of the weight path (1 folds every top-level block) or
    a collection of paths.
    """
    top = scene(graph, title, fold)
    panels = [_panel(s, framed=i > 0) for i, s in enumerate(_all_scenes(top))]
    families = _families(_all_scenes(top))
    legend, legend_width = _legend(families)
    head = 2 * MARGIN + TITLE + 18
    taken = sum(width for _, width, _ in panels) + 2 * MARGIN * len(panels)
    titles = max(text_width(top.title, TITLE) * 1.1, text_width(top.subtitle, FONT), legend_width)
    width = max(taken, titles + 2 * MARGIN)
    x, parts = MARGIN + (width - taken) / 2, []
    for content, panel_width, _ in panels:
        parts.append(f'<g transform="translate({_n(x)} {_n(head)})">{content}</g>')
        x += panel_width + 2 * MARGIN
    height = head + max(height for _, _, height in panels) + 2 * MARGIN + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" font-family="{FONTS}">',
        f"<title>{_text(top.title)}</title>",
        _defs(),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + TITLE}" font-size="{TITLE}" font-weight="bold" '
        f'fill="{INK}">{_text(top.title)}</text>',
        f'<text x="{MARGIN}" y="{MARGIN + TITLE + 20}" font-size="{FONT}" '
        f'fill="{MUTED}">{_text(top.subtitle)}</text>',
        *parts,
        f'<g transform="translate({MARGIN} {_n(height - MARGIN - 12)})">{legend}</g>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- helpers


def _all_scenes(top: Scene) -> list[Scene]:
    return [top, *(inner for body in top.bodies for inner in _all_scenes(body))]


def _families(scenes: Iterable[Scene]) -> list[str]:
    used = {item.family for s in scenes for item in s.items}
    return [family for family in COLOURS if family in used]


def _panel(drawn: Scene, framed: bool) -> tuple[str, float, float]:
    """One scene as SVG text with its width and height."""
    layout = lay_out([(item.width, item.height) for item in drawn.items], drawn.edges)
    frames, label_width = _frames(drawn.items, layout)
    lines = frames + [_edge(points) for points in layout.edges]
    lines += [_box(item, *layout.centres[i]) for i, item in enumerate(drawn.items)]
    body = "\n".join(lines)
    if not framed:
        return (
            f'<g transform="translate({_n(label_width)} 0)">{body}</g>',
            (layout.width + label_width),
            layout.height,
        )
    width = max(layout.width + label_width, text_width(drawn.title, FONT)) + 2 * MARGIN
    height = layout.height + 2 * MARGIN + FONT
    frame = (
        f'<rect width="{_n(width)}" height="{_n(height)}" rx="8" fill="none" '
        f'stroke="{COLOURS["loop"][1]}" stroke-dasharray="5 4"/>'
        f'<text x="{MARGIN}" y="{MARGIN}" font-size="{FONT}" fill="{MUTED}">'
        f"{_text(drawn.title)}</text>"
    )
    inner = f'<g transform="translate({_n(MARGIN + label_width)} {_n(MARGIN + FONT)})">{body}</g>'
    return frame + inner, width, height


def _frames(items: Sequence[Item], layout: Layout) -> tuple[list[str], float]:
    """Pale frames behind the outermost blocks, brackets beside the others, and the names' width.

    A block is marked where the rows it takes hold nothing else.
    """
    kept = _own_rows(items, layout)
    outer = [block for block in kept if not any(block[:d] in kept for d in range(1, len(block)))]
    lines = []
    for low, high in (kept[block] for block in outer):
        lines.append(
            f'<rect x="-8" y="{_n(low)}" width="{_n(layout.width + 16)}" '
            f'height="{_n(high - low)}" rx="8" fill="#f7f8fa" stroke="#dfe3e8"/>'
        )
    # Only the innermost marks are named, in full, so that names never stand on one another.
    leaves = [b for b in kept if not any(o != b and o[: len(b)] == b for o in kept)]
    for block in leaves:
        low, high = kept[block]
        lines.append(
            f'<path d="M -12 {_n(low + 6)} h -5 V {_n(high - 6)} h 5" fill="none" '
            f'stroke="#aab3bd"/><text x="-22" y="{_n((low + high) / 2 + 3.5)}" '
            f'text-anchor="end" font-size="{SMALL}" fill="{MUTED}">{_text(".".join(block))}</text>'
        )
    names = [text_width(".".join(block), SMALL) for block in leaves]
    return lines, max(names) + 28 if names else 0.0


def _own_rows(items: Sequence[Item], layout: Layout) -> dict[tuple[str, ...], Point]:
    """Top and bottom of each block of several items whose rows hold no other item.

    Parts of a block count only where all its parts do: else they stand side by side.
    """
    inside: dict[tuple[str, ...], list[int]] = {}
    for i, item in enumerate(items):
        for depth in range(1, len(item.block) + 1):
            inside.setdefault(item.block[:depth], []).append(i)
    rows = [y for _, y in layout.centres]
    kept: dict[tuple[str, ...], Point] = {}
    mixed: set[tuple[str, ...]] = set()
    for block, members in inside.items():
        low = min(rows[i] - items[i].height / 2 for i in members)
        high = max(rows[i] + items[i].height / 2 for i in members)
        if sum(1 for y in rows if low < y < high) > len(members):
            mixed.add(block[:-1])
        elif len(members) > 1:
            kept[block] = (low - 7, high + 7)
    return {b: span for b, span in kept.items() if len(b) == 1 or b[:-1] not in mixed}


def _box(item: Item, x: float, y: float) -> str:
    fill, stroke = COLOURS[item.family]
    left, top = x - item.width / 2, y - item.height / 2
    parts = [f"<g><title>{_text(item.tip)}</title>"]
    if item.circle:
        parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(item.width / 2)}" fill="{fill}" '
            f'stroke="{stroke}"/>'
            f'<text x="{_n(x)}" y="{_n(y + 5.5)}" text-anchor="middle" font-size="16" '
            f'fill="{INK}">{_text(item.lines[0])}</text></g>'
        )
        return "".join(parts)
    if item.family == "block":
        parts.append(
            f'<rect x="{_n(left + 3)}" y="{_n(top + 3)}" width="{_n(item.width)}" '
            f'height="{_n(item.height)}" rx="5" fill="#e3e7ec" stroke="{stroke}"/>'
        )
    radius = item.height / 2 if item.family == "input" else 5
    parts.append(
        f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(item.width)}" '
        f'height="{_n(item.height)}" rx="{_n(min(radius, 12))}" fill="{fill}" stroke="{stroke}"/>'
    )
    first = y - 7 * (len(item.lines) - 1) + 4
    for i, line in enumerate(item.lines):
        size, ink = (FONT, INK) if i == 0 else (SMALL, MUTED)
        parts.append(
            f'<text x="{_n(x)}" y="{_n(first + 14 * i)}" text-anchor="middle" '
            f'font-size="{size}" fill="{ink}">{_text(line)}</text>'
        )
    return "".join(parts) + "</g>"


def path_data(points: Sequence[Point]) -> str:
    """The ``d`` of an edge: straight where it is vertical, else an S-shaped curve."""
    x, y = points[0]
    data = [f"M {_n(x)} {_n(y)}"]
    for to_x, to_y in points[1:]:
        if abs(to_x - x) < 0.01:
            data.append(f"V {_n(to_y)}")
        else:
            half = (y + to_y) / 2
            data.append(f"C {_n(x)} {_n(half)} {_n(to_x)} {_n(half)} {_n(to_x)} {_n(to_y)}")
        x, y = to_x, to_y
    return " ".join(data)


def _edge(points: Sequence[Point]) -> str:
    # The line stops inside the arrow head, which would else look blunt.
    *most, (x, y) = points
    return (
        f'<path d="{path_data([*most, (x, y - 4)])}" fill="none" stroke="{LINE}" '
        f'stroke-width="1.2" marker-end="url(#head)"/>'
    )


def _defs() -> str:
    return (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" '
        f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M 0 0.8 L 8 4 L 0 7.2 Z" fill="{LINE}"/></marker></defs>'
    )


def _legend(families: Sequence[str]) -> tuple[str, float]:
    parts, x = [], 0.0
    for family in families:
        fill, stroke = COLOURS[family]
        parts.append(
            f'<rect x="{_n(x)}" y="0" width="12" height="12" rx="3" fill="{fill}" '
            f'stroke="{stroke}"/><text x="{_n(x + 18)}" y="10" font-size="{SMALL}" '
            f'fill="{MUTED}">{family}</text>'
        )
        x += 18 + text_width(family, SMALL) + 16
    return "".join(parts), x


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    # XML has no place for control characters, even escaped.
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))

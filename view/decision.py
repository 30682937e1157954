"""Drawings of decision processes: values and actions on a grid, curves, backup diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

CELL = 64
MARGIN = 28
WIDTH, HEIGHT = 640, 320
FONT = 'font-family="Helvetica, Arial, sans-serif"'
LOW, HIGH = (178, 58, 47), (46, 125, 92)
COLOURS = ("#2e7d5c", "#b23a2f", "#35618f", "#a0701a", "#6a4c93", "#3c7a89")
TURNS = {"up": -90, "right": 0, "down": 90, "left": 180}
"""Degrees that an arrow to the right is turned by."""


def policy_svg(
    values: np.ndarray, policy: np.ndarray, actions: Sequence[str], title: str
) -> str:  # fmt: skip
    """States as a grid with their values, the best action of each as an arrow (or its name).

    ``values`` and ``policy`` are tables over states; one axis is drawn as curves, more than two as
    one grid for each place of the leading axes.
    """
    if values.ndim <= 1:
        return _line(values, policy, actions, title)
    sheets = values.reshape(-1, *values.shape[-2:])
    chosen = policy.reshape(sheets.shape)
    rows, columns = sheets.shape[1:]
    height = MARGIN + len(sheets) * (rows * CELL + MARGIN)
    parts = [_text(MARGIN, 18, title, 14)]
    for number, (grid, best) in enumerate(zip(sheets, chosen, strict=True)):
        top = MARGIN + number * (rows * CELL + MARGIN)
        parts += _grid(grid, best, actions, top, _range(values))
    return _page(2 * MARGIN + columns * CELL, height + MARGIN, parts)


def curves_svg(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    title: str,
    across: str,
    up: str,
    logarithmic: bool = False,
    each: int = 1,
) -> str:
    """Curves with bands: by name the middle, the lower and the upper end, over 1, 2, 3 ...

    A point stands for ``each`` of what is counted across.
    """
    drawn = {
        name: tuple(np.log10(np.maximum(a, 1e-17)) if logarithmic else a for a in parts)
        for name, parts in lines.items()
    }
    finite = np.concatenate([np.ravel(a[np.isfinite(a)]) for p in drawn.values() for a in p])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1
    longest = max(len(p[0]) for p in drawn.values())
    frame = _Frame(low, high, longest)
    parts = [_text(60, 18, title, 14), *frame.axes(across, up, logarithmic, each)]
    for number, (name, (middle, lower, upper)) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        band = [*frame.points(upper), *reversed(frame.points(lower))]
        parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" fill-opacity="0.18"/>')
        points = " ".join(frame.points(middle))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(_text(WIDTH - 30, 32 + 16 * number, name, 12, "end", colour))
    return _page(WIDTH, HEIGHT, parts)


def backup_svg(
    state: str,
    rows: Sequence[tuple[str, float, Sequence[tuple[float, str, float]]]],
    title: str,
) -> str:
    """A backup diagram (Sutton and Barto, figure 3.4): a state, its actions, their outcomes.

    ``rows`` are actions by name with their value and outcomes ``(chance, next state, value)``.
    """
    leaves = [max(1, len(outcomes)) for _, _, outcomes in rows]
    width = 2 * MARGIN + 84 * max(1, sum(leaves))
    middle = width / 2
    parts = [_text(MARGIN, 18, title, 14), *_node(middle, 50, state, True)]
    place = float(MARGIN)
    best = max((value for _, value, _ in rows), default=0.0)
    for (name, value, outcomes), count in zip(rows, leaves, strict=True):
        x = place + 84 * count / 2
        stroke = 3 if value == best else 1
        parts.append(_edge(middle, 62, x, 126, stroke))
        parts.append(f'<circle cx="{x:.1f}" cy="132" r="6" fill="#222"/>')
        # On the side where no line from above ends.
        away, anchor = (-10, "end") if x < middle - 1 else (10, "start")
        parts.append(_text(x + away, 136, f"{name}  {value:.4g}", 12, anchor))
        middles = [place + 84 * (number + 0.5) for number in range(len(outcomes))]
        parts += [_edge(x, 138, leaf, 206, 1) for leaf in middles]
        for leaf, (chance, there, later) in zip(middles, outcomes, strict=True):
            parts.append(_plate((x + leaf) / 2, 184, f"{chance:.3g}", 11))
            parts += _node(leaf, 218, there, False)
            parts.append(_text(leaf, 250, f"{later:.4g}", 11, "middle"))
        place += 84 * count
    return _page(width, 270, parts)


# ---------------------------------------------------------------- helpers


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _grid(
    grid: np.ndarray, best: np.ndarray, actions: Sequence[str], top: int, ends: tuple[float, float]
) -> list[str]:
    parts = []
    for (i, j), value in np.ndenumerate(grid):
        x, y = MARGIN + j * CELL, top + i * CELL
        fill = _colour(float(value), *ends)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{fill}" stroke="#fff"/>'
        )
        parts.append(_text(x + CELL / 2, y + CELL - 8, f"{value:.3g}", 12, "middle"))
        action = int(best[i, j])
        if action < 0 or len(actions) < 2:
            continue
        name = actions[action]
        if name in TURNS:
            parts.append(
                f'<g transform="translate({x + CELL / 2},{y + 24}) rotate({TURNS[name]})">'
                '<path d="M-13,0 H8 M2,-6 L10,0 L2,6" fill="none" stroke="#222" stroke-width="2"/>'
                "</g>"
            )
        else:
            parts.append(_text(x + CELL / 2, y + 28, name, 12, "middle"))
    return parts


def _line(values: np.ndarray, policy: np.ndarray, actions: Sequence[str], title: str) -> str:
    row = np.atleast_1d(values).astype(float)
    low, high = _range(row)
    frame = _Frame(low, high if high > low else low + 1, len(row), 0)
    parts = [_text(60, 18, title, 14), *frame.axes("state", "value", False)]
    points = " ".join(frame.points(row))
    parts.append(
        f'<polyline points="{points}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>'
    )
    if len(actions) > 1:
        steps = np.atleast_1d(policy).astype(float)
        second = _Frame(0.0, max(1.0, float(steps.max(initial=1))), len(row), 0)
        dots = zip(*(point.split(",") for point in second.points(steps)), strict=True)
        xs, ys = dots
        parts += [
            f'<circle cx="{x}" cy="{y}" r="2.5" fill="{COLOURS[1]}"/>'
            for x, y, action in zip(xs, ys, steps, strict=True)
            if action >= 0
        ]
        most = f"action, 0 to {second.high:g}"
        parts.append(_text(WIDTH - 30, 32, most, 12, "end", COLOURS[1]))
    return _page(WIDTH, HEIGHT, parts)


class _Frame:
    """The area of a chart: from numbers to places."""

    def __init__(self, low: float, high: float, count: int, first: int = 1) -> None:
        self.low, self.high, self.count, self.first = low, high, count, first

    def points(self, values: np.ndarray) -> list[str]:
        """``x,y`` of each value."""
        x = 60 + np.arange(len(values)) * (WIDTH - 90) / max(1, self.count - 1)
        y = HEIGHT - 40 - (values - self.low) / (self.high - self.low) * (HEIGHT - 80)
        return [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b)]

    def axes(self, across: str, up: str, logarithmic: bool, each: int = 1) -> list[str]:
        """Lines, round numbers and names of both axes; a place across stands for ``each``."""
        bottom, last = HEIGHT - 40, max(1, self.count - 1)
        parts = []
        for value in _round_numbers(self.low, self.high):
            (place,) = self.points(np.array([value]))
            y = float(place.partition(",")[2])
            shown = f"{10**value:.2g}" if logarithmic else f"{value:.4g}"
            parts.append(f'<path d="M60,{y:.1f} H{WIDTH - 30}" fill="none" stroke="#e6e6e6"/>')
            parts.append(_text(54, y + 4, shown, 11, "end"))
        for value in _round_numbers(self.first * each, (self.first + last) * each):
            x = 60 + (value / each - self.first) * (WIDTH - 90) / last
            if value == int(value):
                parts.append(_text(x, bottom + 16, f"{value:g}", 11, "middle"))
        return [
            *parts,
            f'<path d="M60,40 V{bottom} H{WIDTH - 30}" fill="none" stroke="#888"/>',
            _text((WIDTH + 30) / 2, HEIGHT - 8, across, 12, "middle"),
            _text(60, 32, up, 12),
        ]


def _round_numbers(low: float, high: float) -> list[float]:
    """Four to eight round numbers from ``low`` to ``high``: multiples of 1, 2 or 5."""
    size = 10.0 ** np.floor(np.log10((high - low) / 4))
    step = next(size * k for k in (5, 2, 1) if (high - low) / (size * k) >= 4)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]


def _colour(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "#ddd"
    share = 0.5 if high <= low else (value - low) / (high - low)
    mixed = [a + (b - a) * share for a, b in zip(LOW, HIGH, strict=True)]
    return "#" + "".join(f"{int(255 - (255 - c) * 0.45):02x}" for c in mixed)


def _node(x: float, y: float, name: str, filled: bool) -> list[str]:
    fill = "#e8efe9" if filled else "#fff"
    return [
        f'<ellipse cx="{x:.1f}" cy="{y}" rx="{_half(name):.1f}" ry="14" fill="{fill}"'
        ' stroke="#222"/>',
        _text(x, y + 4, name, 10, "middle"),
    ]


def _half(name: str) -> float:
    """Half the width of a node around a name."""
    return max(14.0, 3.2 * len(name) + 6)


def _edge(x0: float, y0: float, x1: float, y1: float, width: int) -> str:
    return f'<path d="M{x0:.1f},{y0} L{x1:.1f},{y1}" stroke="#222" stroke-width="{width}"/>'


def _text(
    x: float, y: float, text: str, size: int, anchor: str = "start", colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" {FONT} font-size="{size}" text-anchor="{anchor}"'
        f' fill="{colour}">{escape(text)}</text>'
    )


def _plate(x: float, y: float, text: str, size: int) -> str:
    """A text on white, so that lines behind it do not cross it."""
    half = 0.3 * size * len(text) + 2
    back = (
        f'<rect x="{x - half:.1f}" y="{y - size:g}" width="{2 * half:.1f}" height="{size + 4}"'
        ' fill="#fff" fill-opacity="0.9"/>'
    )
    return back + _text(x, y, text, size, "middle")


def _page(width: float, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f"{body}\n</svg>\n"
    )

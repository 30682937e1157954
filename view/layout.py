"""A layered drawing of a directed acyclic graph, without Graphviz.

After Sugiyama, Tagawa and Toda (1981): layers by longest path, places in a layer by barycentre
sweeps, then columns. As in Brandes and Koepf (2001), vertices are first joined into straight
vertical columns and the columns then placed; here the longest chains choose first, so that the
trunk of a net is one straight line. An edge keeps to the gaps between layers and to lanes that are
reserved for it, so that it never runs through a box. Edges of one source share one lane.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

LANE = 10.0
"""Width of the lane that an edge takes while it passes a layer."""

SEPARATION = 16.0
"""Free space between neighbours in a layer."""

GAP = 20.0
"""Least space between two layers."""

SWEEPS = 16
"""Most barycentre sweeps, in pairs down and up."""

SWITCHED = 4000
"""Neighbours are exchanged one by one in graphs of at most this many boxes and lanes."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes and the points of each edge, in the order they were given.

    From one point of an edge to the next the line is vertical or an S-shaped curve whose ends are
    vertical. All coordinates are positive; ``width`` and ``height`` hold everything.
    """

    width: float
    height: float
    centres: tuple[Point, ...]
    edges: tuple[tuple[Point, ...], ...]
    crossings: int


def lay_out(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of ``sizes`` (width, height) and route ``edges`` (pairs of box numbers).

    The edges must be acyclic and boxes numbered so that every edge goes from a lower number to a
    higher one; raises ``ValueError`` otherwise.
    """
    if any(not 0 <= u < v < len(sizes) for u, v in edges):
        raise ValueError("an edge must go from a lower box number to a higher one")
    net = _proper(sizes, edges)
    rows, crossings = _ordered(net)
    x = _columns(net, rows)
    return _drawn(net, rows, x, sizes, edges, crossings)


# ---------------------------------------------------------------- layers


@dataclass
class _Net:
    """The graph with a lane (a dummy vertex) wherever an edge passes a layer.

    Vertices below ``real`` are boxes. ``lanes[u]`` maps a layer to the lane of source ``u`` in it.
    """

    real: int
    layer: list[int]
    width: list[float]
    down: list[list[int]]
    up: list[list[int]]
    lanes: list[dict[int, int]] = field(default_factory=list)

    def add(self, layer: int) -> int:
        self.layer.append(layer)
        self.width.append(LANE)
        self.down.append([])
        self.up.append([])
        return len(self.layer) - 1

    def join(self, u: int, v: int) -> None:
        self.down[u].append(v)
        self.up[v].append(u)


def _proper(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> _Net:
    count = len(sizes)
    layer = _layers(count, edges)
    net = _Net(count, layer, [w for w, _ in sizes], [[] for _ in sizes], [[] for _ in sizes])
    net.lanes = [{} for _ in sizes]
    for u, v in sorted(set(edges)):
        above = u
        for level in range(layer[u] + 1, layer[v]):
            lane = net.lanes[u].get(level)
            if lane is None:
                lane = net.lanes[u][level] = net.add(level)
                net.join(above, lane)
            above = lane
        net.join(above, v)
    return net


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    up: list[list[int]] = [[] for _ in range(count)]
    down: list[list[int]] = [[] for _ in range(count)]
    for u, v in sorted(set(edges)):
        up[v].append(u)
        down[u].append(v)
    layer = [0] * count
    for v in range(count):
        layer[v] = max((layer[u] + 1 for u in up[v]), default=0)
    # What only leads to one later place (a late input and what is made of it) hangs right above it.
    loose = [False] * count
    for v in range(count):
        loose[v] = all(loose[u] and len(down[u]) == 1 for u in up[v])
    for v in reversed(range(count)):
        if loose[v] and down[v]:
            layer[v] = min(layer[w] for w in down[v]) - 1
    return layer


# ---------------------------------------------------------------- order in a layer


def _ordered(net: _Net) -> tuple[list[list[int]], int]:
    """Rows with few crossings, and how many crossings are left."""
    best: list[list[int]] = []
    fewest = -1
    for arrange in (_heaviest_amid, _heaviest_first):
        rows, found = _untangled(net, _depth_first(net, arrange))
        if fewest < 0 or found < fewest:
            best, fewest = rows, found
        if not fewest:
            break
    return best, fewest


def _untangled(net: _Net, rows: list[list[int]]) -> tuple[list[list[int]], int]:
    best, fewest = rows, _crossings(net, rows)
    stale = 0
    for sweep in range(SWEEPS):
        if not fewest or stale > 3:
            break
        rows = _swept(net, [list(row) for row in rows], downwards=sweep % 2 == 0)
        if len(net.layer) <= SWITCHED:
            _switch(net, rows)
        found = _crossings(net, rows)
        stale = 0 if found < fewest else stale + 1
        if found < fewest:
            best, fewest = rows, found
    return best, fewest


Arrange = Callable[[Sequence[int], Sequence[int]], list[int]]


def _depth_first(net: _Net, arrange: Arrange) -> list[list[int]]:
    """Rows in the order of a depth-first walk: no crossings where the graph is series-parallel."""
    height = _heights(net, downwards=True)
    rows: list[list[int]] = [[] for _ in range(max(net.layer, default=-1) + 1)]
    seen = [False] * len(net.layer)
    sources = [v for v in range(net.real) if not net.up[v]]
    # The last one is walked first: the source of the longest path, then those that join lower.
    stack = sorted(sources, key=lambda v: (height[v], -v))
    while stack:
        v = stack.pop()
        if seen[v]:
            continue
        seen[v] = True
        rows[net.layer[v]].append(v)
        stack += reversed(arrange(net.down[v], height))
    return rows


def _heaviest_amid(vertices: Sequence[int], weight: Sequence[int]) -> list[int]:
    """Vertices with the heaviest in the middle, its lighter companion (if one) to the right."""
    row: list[int] = []
    for place, v in enumerate(sorted(vertices, key=lambda v: (-weight[v], v))):
        row.insert(len(row) if place % 2 else 0, v)
    return row


def _heaviest_first(vertices: Sequence[int], weight: Sequence[int]) -> list[int]:
    return sorted(vertices, key=lambda v: (-weight[v], v))


def _heights(net: _Net, downwards: bool) -> list[int]:
    """The number of boxes on the longest path from each vertex down (or up) to an end."""
    ahead = net.down if downwards else net.up
    height = [0] * len(net.layer)
    for v in sorted(range(len(height)), key=lambda v: net.layer[v], reverse=downwards):
        height[v] = max((height[w] for w in ahead[v]), default=0) + (v < net.real)
    return height


def _places(rows: list[list[int]], count: int) -> list[int]:
    place = [0] * count
    for row in rows:
        for i, v in enumerate(row):
            place[v] = i
    return place


def _swept(net: _Net, rows: list[list[int]], downwards: bool) -> list[list[int]]:
    place = _places(rows, len(net.layer))
    fixed = net.up if downwards else net.down
    for level in range(len(rows)) if downwards else reversed(range(len(rows))):
        row = rows[level]

        def centre(v: int) -> float:
            near = fixed[v]
            return sum(place[w] for w in near) / len(near) if near else place[v]

        row.sort(key=centre)
        for i, v in enumerate(row):
            place[v] = i
    return rows


def _switch(net: _Net, rows: list[list[int]]) -> None:
    """Exchange neighbours in a row while that removes crossings."""
    place = _places(rows, len(net.layer))

    def tangled(a: int, b: int) -> int:
        """Crossings between the edges of ``a`` and ``b`` when ``a`` stands left of ``b``."""
        return sum(
            place[u] > place[v] for ends in (net.up, net.down) for u in ends[a] for v in ends[b]
        )

    for _ in range(4):
        changed = False
        for row in rows:
            for i in range(len(row) - 1):
                a, b = row[i], row[i + 1]
                if tangled(b, a) < tangled(a, b):
                    row[i], row[i + 1] = b, a
                    place[a], place[b] = i + 1, i
                    changed = True
        if not changed:
            break


def _crossings(net: _Net, rows: list[list[int]]) -> int:
    place = _places(rows, len(net.layer))
    total = 0
    for row in rows:
        ends: list[int] = []
        for u in row:
            targets = sorted(place[v] for v in net.down[u])
            for target in targets:
                total += len(ends) - bisect_left(ends, target + 1)
            for target in targets:
                insort(ends, target)
    return total


# ---------------------------------------------------------------- columns


def _columns(net: _Net, rows: list[list[int]]) -> list[float]:
    """The x of every vertex: straight columns first, then the columns near their neighbours."""
    column = _aligned(net, rows)
    count = max(column, default=-1) + 1
    right: list[dict[int, float]] = [{} for _ in range(count)]
    left: list[dict[int, float]] = [{} for _ in range(count)]
    for row in rows:
        for a, b in pairwise(row):
            lanes = (a >= net.real) + (b >= net.real)
            space = (net.width[a] + net.width[b]) / 2 + (SEPARATION if lanes < 2 else 2)
            i, j = column[a], column[b]
            right[i][j] = left[j][i] = max(space, right[i].get(j, 0.0))
    order = _left_to_right(right, left)
    x = [0.0] * count
    for i in order:
        x[i] = max((x[j] + space for j, space in left[i].items()), default=0.0)
    _relax(net, column, order, x, left, right)
    return [x[i] for i in column]


def _aligned(net: _Net, rows: list[list[int]]) -> list[int]:
    """A column number for each vertex; vertices of a column stand in consecutive layers."""
    above = _heights(net, downwards=False)
    below = _heights(net, downwards=True)
    place = _places(rows, len(net.layer))
    segments = [(u, v) for u, targets in enumerate(net.down) for v in targets]

    def rank(segment: tuple[int, int]) -> tuple[int, int, int, int]:
        u, v = segment
        inner = u >= net.real and v >= net.real
        boxes = u < net.real and v < net.real
        # A long line that bends looks worse than a fork that does.
        return (0 if inner else 1 if boxes else 2, -above[u] - below[v], *segment)

    next_one: dict[int, int] = {}
    taken: set[int] = set()
    accepted: list[list[tuple[int, int]]] = [[] for _ in rows]
    for u, v in sorted(segments, key=rank):
        pair = (place[u], place[v])
        kept = accepted[net.layer[u]]
        at = bisect_left(kept, pair)
        crosses = (at > 0 and kept[at - 1][1] >= pair[1]) or (
            at < len(kept) and kept[at][1] <= pair[1]
        )
        if u not in next_one and v not in taken and not crosses:
            kept.insert(at, pair)
            next_one[u] = v
            taken.add(v)
    column = [-1] * len(net.layer)
    fresh = 0
    for row in rows:
        for v in row:
            if column[v] < 0:
                w: int | None = v
                while w is not None:
                    column[w] = fresh
                    w = next_one.get(w)
                fresh += 1
    return column


def _left_to_right(right: list[dict[int, float]], left: list[dict[int, float]]) -> list[int]:
    waiting = [len(before) for before in left]
    ready = [i for i, n in enumerate(waiting) if n == 0]
    order: list[int] = []
    while ready:
        i = ready.pop()
        order.append(i)
        for j in right[i]:
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    return order


def _relax(
    net: _Net,
    column: list[int],
    order: list[int],
    x: list[float],
    left: list[dict[int, float]],
    right: list[dict[int, float]],
) -> None:
    """Move each column to the median of its neighbours, as far as the columns beside it allow."""
    near: list[list[int]] = [[] for _ in x]
    for u, targets in enumerate(net.down):
        for v in targets:
            i, j = column[u], column[v]
            if i != j:
                near[i].append(j)
                near[j].append(i)
    for turn in range(12):
        for i in reversed(order) if turn % 2 == 0 else order:
            if not near[i]:
                continue
            wanted = _median([x[j] for j in near[i]])
            least = max((x[j] + space for j, space in left[i].items()), default=-math.inf)
            most = min((x[j] - space for j, space in right[i].items()), default=math.inf)
            x[i] = max(least, min(most, wanted))


def _median(numbers: list[float]) -> float:
    numbers = sorted(numbers)
    half = len(numbers) // 2
    return numbers[half] if len(numbers) % 2 else (numbers[half - 1] + numbers[half]) / 2


# ---------------------------------------------------------------- coordinates


def _drawn(
    net: _Net,
    rows: list[list[int]],
    x: list[float],
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    crossings: int,
) -> Layout:
    shift = -min((x[v] - net.width[v] / 2 for v in range(len(x))), default=0.0)
    x = [value + shift for value in x]
    tops, bottoms = _levels(net, rows, x, sizes)
    centres = tuple(
        (x[v], (tops[net.layer[v]] + bottoms[net.layer[v]]) / 2) for v in range(net.real)
    )
    paths = []
    for u, v in edges:
        points = [(x[u], centres[u][1] + sizes[u][1] / 2), (x[u], bottoms[net.layer[u]])]
        for level in range(net.layer[u] + 1, net.layer[v]):
            lane = x[net.lanes[u][level]]
            points += [(lane, tops[level]), (lane, bottoms[level])]
        points += [(x[v], tops[net.layer[v]]), (x[v], centres[v][1] - sizes[v][1] / 2)]
        paths.append(_straightened(points))
    width = max((x[v] + net.width[v] / 2 for v in range(len(x))), default=0.0)
    return Layout(width, bottoms[-1] if bottoms else 0.0, centres, tuple(paths), crossings)


def _levels(
    net: _Net, rows: list[list[int]], x: list[float], sizes: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    tops: list[float] = []
    bottoms: list[float] = []
    y = 0.0
    for row in rows:
        tall = max((sizes[v][1] for v in row if v < net.real), default=0.0)
        tops.append(y)
        bottoms.append(y + tall)
        # Curves that reach far to the side need room to bend.
        reach = max((abs(x[u] - x[v]) for u in row for v in net.down[u]), default=0.0)
        y += tall + GAP + min(40.0, 0.12 * reach)
    return tops, bottoms


def _straightened(points: list[Point]) -> tuple[Point, ...]:
    """The points without those that lie inside a vertical line or repeat."""
    kept = [points[0]]
    for point, after in zip(points[1:], [*points[2:], None], strict=True):
        if after is not None and (
            kept[-1][0] == point[0] == after[0] or math.dist(point, kept[-1]) < 0.01
        ):
            continue
        kept.append(point)
    # The tallest box of a layer touches its edge of the layer, but for rounding.
    if len(kept) > 2 and math.dist(kept[-1], kept[-2]) < 0.01:
        del kept[-2]
    return tuple(kept)

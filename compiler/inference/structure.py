"""The factor graph of a model at the level of its statements: families, plates and chains.

Indices of statements and of variables that mean the same make one *axis*. An axis along which
every statement stays at one place is a plate; one along which some statement joins a place with
the next is a chain. What is neither (``x[i]`` with ``x[j]``) is left to the elements themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from ..ir.dims import DimLike
from ..ir.types import Span
from ..ops.distributions import DISTRIBUTIONS
from .statements import BATCH, ModelFault, Reference, Statement


@dataclass(frozen=True)
class Family:
    """A latent variable: how many values it has, its extent along each index, and its axes."""

    name: str
    size: DimLike
    extent: tuple[DimLike, ...]
    sites: tuple[Statement, ...]
    axes: tuple[str, ...] = ()

    @property
    def span(self) -> Span | None:
        """Its first statement."""
        return self.sites[0].span


@dataclass(frozen=True)
class Component:
    """Variables that hang together, the statements about them, and how they do.

    ``chain`` is the axis along which neighbours are joined; ``irregular`` says why the statements
    cannot be worked on as a whole, so that each element is on its own.
    """

    families: tuple[Family, ...]
    statements: tuple[Statement, ...]
    chain: str | None = None
    irregular: str = ""

    def family(self, name: str) -> Family:
        """A variable by name."""
        return next(f for f in self.families if f.name == name)


@dataclass(frozen=True)
class Structure:
    """A model's components, statements without latent variables, and the sizes of all axes.

    ``axis_of[node, index]`` is the axis of a statement's index; ``batch`` that of the batch, over
    which everything is repeated.
    """

    components: tuple[Component, ...]
    apart: tuple[Statement, ...]
    sizes: Mapping[str, DimLike]
    axis_of: Mapping[tuple[int, str], str]
    batch: str | None
    net: Any = field(repr=False)

    @property
    def families(self) -> tuple[Family, ...]:
        """All latent variables."""
        return tuple(f for c in self.components for f in c.families)

    def component_of(self, name: str) -> Component:
        """The component that a variable belongs to."""
        return next(c for c in self.components if any(f.name == name for f in c.families))


def structure_of(statements: Sequence[Statement]) -> Structure:
    """The structure of a model; raises :class:`ModelFault` for one that inference cannot have."""
    families = _families(statements)
    net = factor_graph(statements, families)
    axes = _Axes(statements, families)
    named = {name: _with_axes(family, axes) for name, family in families.items()}
    components, apart = [], []
    for part in nx.connected_components(net):
        chosen = [s for s in statements if ("statement", s.node) in part]
        held = tuple(named[name] for kind, name in sorted(part, key=str) if kind == "variable")
        if not held:
            apart += chosen
            continue
        components.append(_component(held, chosen, axes))
    components.sort(key=lambda c: min(s.node for s in c.statements))
    sizes = dict(axes.sizes)
    batch = next((name for (_, index), name in axes.names.items() if index == BATCH), None)
    return Structure(tuple(components), tuple(apart), sizes, axes.names, batch, net)


def factor_graph(statements: Sequence[Statement], families: Mapping[str, Family]) -> nx.Graph:
    """Variables on one side, statements on the other."""
    net = nx.Graph()
    net.add_nodes_from(("variable", name) for name in families)
    for statement in statements:
        net.add_node(("statement", statement.node))
        for reference in statement.references:
            net.add_edge(("statement", statement.node), ("variable", reference.variable))
    return net


# ---------------------------------------------------------------- families


def _families(statements: Sequence[Statement]) -> dict[str, Family]:
    """Latent variables by name, each with a finite support and drawn everywhere."""
    drawn: dict[str, list[Statement]] = defaultdict(list)
    for statement in statements:
        if statement.is_latent:
            drawn[statement.variable].append(statement)
    found = {}
    for name, sites in drawn.items():
        first = sites[0]
        if first.support is None:
            _refuse_continuous(name, first, statements)
        if first.dist not in ("categorical", "bernoulli", "labels"):
            raise ModelFault("E605", f"`{name}` cannot be summed out", first.span,
                             f"{first.dist} has no end", "truncate it or observe it")  # fmt: skip
        others = [s for s in sites if s.support != first.support]
        if others:
            raise ModelFault("E602", f"`{name}` has {first.support} values and here"
                             f" {others[0].support}", others[0].span)  # fmt: skip
        assert first.support is not None
        found[name] = Family(name, first.support, _extent(name, sites), tuple(sites))
    for statement in statements:
        _require_inside(statement, found)
    return found


def _refuse_continuous(name: str, site: Statement, statements: Sequence[Statement]) -> None:
    used = any(r.variable == name for s in statements if s is not site for r in s.references)
    if used:
        raise ModelFault(
            "E605", f"`{name}` is a continuous latent variable and cannot be summed out", site.span,
            hint="finite variables can; a value that is known is declared `input`",
        )  # fmt: skip
    raise ModelFault(
        "E608", f"`{name}` is a leaf that nothing observes", site.span,
        f"{site.dist} is continuous", f"declare it: `input {name} : f64[...]`",
    )  # fmt: skip


def _extent(name: str, sites: Sequence[Statement]) -> tuple[DimLike, ...]:
    """How far each index of a variable reaches; E609 where elements have no prior."""
    ranges: list[list[tuple[DimLike, DimLike]]] = []
    for site in sites:
        own = site.references[-1]
        for position, place in enumerate(own.places):
            if position == len(ranges):
                ranges.append([])
            if place[0] == "table":
                raise ModelFault("E609", f"`{site.label}` is drawn where a table says", site.span,
                                 hint="draw all, and let factors use the table")  # fmt: skip
            low, count = (place[1], 1) if place[0] == "at" else site.domain[place[1]]
            ranges[position].append((low + place[2] if place[0] == "index" else low, count))
    extents = []
    for position, pieces in enumerate(ranges):
        covered: DimLike = 0
        left = list(dict.fromkeys(pieces))
        while left:
            following = next((piece for piece in left if piece[0] == covered), None)
            if following is None:
                first = left[0]
                spot = covered if len(ranges) == 1 else f"{'_, ' * position}{covered}"
                raise ModelFault("E609", f"`{name}[{spot}]` has no prior", sites[0].span,
                                 f"drawn for {first[0]}..{first[0] + first[1]}",
                                 f"state it: `{name}[{spot}] ~ ...`")  # fmt: skip
            left.remove(following)
            covered = covered + following[1]
        extents.append(covered)
    return tuple(extents)


def _require_inside(statement: Statement, families: Mapping[str, Family]) -> None:
    """E504 when a statement mentions an element that no statement draws."""
    for reference in statement.references:
        family = families[reference.variable]
        if len(reference.places) != len(family.extent):
            raise ModelFault("E507", f"`{reference.axis}` does not have the indices of"
                             f" `{family.name}`", statement.span)  # fmt: skip
        for place, extent in zip(reference.places, family.extent, strict=True):
            low, count = (place[1], 1)
            if place[0] == "table":
                continue
            if place[0] == "index":
                low, count = statement.domain[place[1]]
                low = low + place[2]
            over = low + count - extent
            if (isinstance(low, int) and low < 0) or (isinstance(over, int) and over > 0):
                raise ModelFault("E504", f"`{reference.axis}` is not drawn everywhere it is used",
                                 statement.span, f"used for {low}..{low + count}, drawn for"
                                 f" 0..{extent}")  # fmt: skip


# ---------------------------------------------------------------- axes


class _Axes:
    """Which indices mean the same, by union of what statements connect."""

    def __init__(self, statements: Sequence[Statement], families: Mapping[str, Family]) -> None:
        self.parent: dict[Any, Any] = {}
        self.irregular: dict[Any, str] = {}
        for family in families.values():
            for position in range(len(family.extent)):
                self.root((family.name, position))
        for statement in statements:
            for index in statement.domain:
                self.root((statement.node, index))
                if index == BATCH:
                    self.join((statement.node, index), BATCH)
            for reference in statement.references:
                for position, place in enumerate(reference.places):
                    if place[0] == "index":
                        self.join((statement.node, place[1]), (reference.variable, position))
        self._name(statements, families)

    def root(self, key: Any) -> Any:
        """The representative of an index."""
        while self.parent.setdefault(key, key) != key:
            key = self.parent[key]
        return key

    def join(self, a: Any, b: Any) -> None:
        """Let two indices mean the same."""
        self.parent[self.root(a)] = self.root(b)

    def _name(self, statements: Sequence[Statement], families: Mapping[str, Family]) -> None:
        """Names and sizes of axes: the first index's name, numbered where it is taken."""
        self.title: dict[Any, str] = {}
        self.sizes: dict[str, DimLike] = {f.name: f.size for f in families.values()}
        self.sizes |= {f"{f.name}'": f.size for f in families.values()}
        self.names: dict[tuple[int, str], str] = {}
        keys: list[Any] = [(s.node, index) for s in statements for index in s.domain]
        keys += [(f.name, p) for f in families.values() for p in range(len(f.extent))]
        taken: set[str] = set(self.sizes)
        for key in keys:
            root = self.root(key)
            if root not in self.title:
                base = key[1] if isinstance(key[1], str) else f"{key[0]}.{key[1]}"
                name, number = base, 1
                while name in taken:
                    number += 1
                    name = f"{base}{number}"
                taken.add(name)
                self.title[root] = name
            if isinstance(key[0], int):
                self.names[key] = self.title[root]
        for family in families.values():
            for position, extent in enumerate(family.extent):
                self._size((family.name, position), extent)
        for statement in statements:
            for index, (_, size) in statement.domain.items():
                self.sizes.setdefault(self.names[statement.node, index], size)

    def _size(self, key: Any, extent: DimLike) -> None:
        root = self.root(key)
        known = self.sizes.setdefault(self.title[root], extent)
        if known != extent:
            self.irregular[root] = f"sizes {known} and {extent} meet along `{self.title[root]}`"

    def axis(self, variable: str, position: int) -> str:
        """The axis of one index of a variable."""
        return self.title[self.root((variable, position))]


def _with_axes(family: Family, axes: _Axes) -> Family:
    own = tuple(axes.axis(family.name, position) for position in range(len(family.extent)))
    return Family(family.name, family.size, family.extent, family.sites, own)


def _component(
    families: Sequence[Family], statements: Sequence[Statement], axes: _Axes
) -> Component:
    """A component, and whether it is regular: plates, and one chain at most."""
    chains: set[str] = set()
    reason = ""
    for family in families:
        for position in range(len(family.extent)):
            reason = reason or axes.irregular.get(axes.root((family.name, position)), "")
        if len(set(family.axes)) < len(family.axes):
            reason = reason or f"two indices of `{family.name}` run over the same values"
    for statement in statements:
        found = _shifts(statement, {f.name: f for f in families})
        reason = reason or found.reason
        chains |= found.chains
    if len(chains) > 1:
        reason = reason or f"neighbours are joined along {' and '.join(sorted(chains))}"
    chain = next(iter(chains), None) if not reason else None
    return Component(tuple(families), tuple(statements), chain, reason)


@dataclass(frozen=True)
class _Shifts:
    chains: frozenset[str] = frozenset()
    reason: str = ""


def _shifts(statement: Statement, families: Mapping[str, Family]) -> _Shifts:
    """Along which axes a statement joins neighbours, or why it fits no such pattern."""
    places: dict[str, set[Any]] = defaultdict(set)
    for reference in statement.references:
        family = families[reference.variable]
        for axis, place in zip(family.axes, reference.places, strict=True):
            if place[0] == "table":
                return _Shifts(reason=f"`{reference.axis}` is where a table says")
            places[axis].add(place)
    chains = set()
    for axis, found in places.items():
        indices = {place[1] for place in found if place[0] == "index"}
        numbers = {place[1] for place in found if place[0] == "at"}
        if len(indices) > 1 or (indices and numbers) or len(numbers) > 1:
            return _Shifts(reason=f"`{statement.label}` joins elements anywhere along `{axis}`")
        shifts = {place[2] for place in found if place[0] == "index"}
        if len(shifts) == 2 and max(shifts) - min(shifts) == 1:
            chains.add(axis)
        elif len(shifts) > 1:
            return _Shifts(reason=f"`{statement.label}` joins elements that are no neighbours")
    return _Shifts(frozenset(chains))


def shift_of(statement: Statement, family: Family, reference: Reference, axis: str) -> Any:
    """The place of a reference along an axis of its variable, or None when it has no such axis."""
    for own, place in zip(family.axes, reference.places, strict=True):
        if own == axis:
            return place
    return None


def support_name(dist: str) -> str:
    """What values a distribution takes, in words."""
    return {
        "real": "real numbers", "positive": "numbers above 0", "unit": "numbers from 0 to 1",
        "count": "whole numbers from 0", "finite": "its values, counted from 0",
        "bool": "0 and 1", "simplex": "shares that sum to 1", "vector": "vectors",
    }[DISTRIBUTIONS[dist].support]  # fmt: skip

"""The step graph: from weights, slots and a batch to new weights, slots, the loss and metrics.

::

    loss   = f(weights, batch)                    the model in training mode and its objective
    g      = d loss / d weights                   flat, one buffer a group
    g      = clip(g)
    w', s' = update(w, g, s, lr, count)           a few element-wise ops over each buffer
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ...runtime.train.step import (
    AVERAGE,
    COUNT,
    LOSS,
    LR,
    MOMENTUM,
    NORM,
    Group,
    Layout,
    Slot,
    average_of,
)
from ..autodiff import expand_gradients, gradients, to_training
from ..ir.dims import evaluate
from ..ir.graph import Graph, Value
from ..ir.types import DTYPES, TensorType
from ..ops.expr import Expr, How, Writer
from .domains import entered, left
from .optimisers import OPTIMISERS, Given

TINY = 1e-6
"""Added to a gradient's norm where it divides, as PyTorch does."""


@dataclass(frozen=True)
class Rule:
    """A named rule and its settings: an optimiser, or a way of clipping."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Objective:
    """One loss and how it moves its weights.

    ``loss`` is an output of the graph, ``weights`` the paths that it moves. ``moves_momentum`` says
    that a schedule gives the momentum.
    """

    name: str
    loss: str
    weights: tuple[str, ...]
    optimiser: Rule
    clip: Rule | None = None
    moves_momentum: bool = False


@dataclass(frozen=True)
class Recipe:
    """What all objectives of a run share.

    ``decayed`` are the paths that weight decay applies to, ``frozen`` those that stay (running
    statistics among them), ``metrics`` outputs by metric, ``average`` the decay of a moving average
    of the weights.
    """

    metrics: Mapping[str, str] = field(default_factory=dict)
    decayed: Collection[str] = ()
    frozen: Collection[str] = ()
    average: float | None = None
    how: How = field(default_factory=How)


@dataclass(frozen=True)
class Step:
    """A step's graph and the names of what goes in and out.

    ``forward`` are the nodes that losses, metrics and statistics are computed from: what may be
    computed again where memory is short.
    """

    graph: Graph
    layout: Layout
    forward: frozenset[int] = frozenset()


def group_weights(
    graph: Graph, objectives: Sequence[Objective], decayed: Collection[str]
) -> dict[Group, str]:
    """Groups with their domains: weights that the same objectives move, decayed alike."""
    members: dict[tuple[Any, ...], list[tuple[str, TensorType]]] = {}
    for _, node in graph.of_op("param"):
        path, domain = str(node.attrs["path"]), str(node.attrs["domain"])
        by = tuple(o.name for o in objectives if path in o.weights)
        if not by:
            continue
        decay = "decayed" if path in decayed else "plain"
        members.setdefault((by, decay, domain, node.type.dtype), []).append((path, node.type))
    found = {}
    for (by, decay, domain, dtype), rows in members.items():
        name = ".".join([*(by if len(objectives) > 1 else ()), decay])
        name += "" if domain == "real" else f".{domain}"
        name += "" if dtype == "f32" else f".{dtype}"
        paths = tuple(path for path, _ in rows)
        shapes = tuple(tuple(evaluate(dim, {}) for dim in kind.shape) for _, kind in rows)
        found[Group(name, paths, shapes, str(DTYPES[dtype]))] = domain
    return found


def step_graph(
    graph: Graph, objective: Objective, groups: Mapping[Group, str], recipe: Recipe
) -> Step:
    """The whole step of one objective.

    ``graph`` has losses and metrics as outputs, in the mode of inference; ``groups`` are those of
    :func:`group_weights`. Raises :class:`OpError` for what cannot be differentiated.
    """
    own = {g: domain for g, domain in groups.items() if set(g.paths) <= set(objective.weights)}
    made, statistics = _forward(graph, objective, recipe)
    found = _gradients(made, objective.loss, list(own), recipe.how)
    update = _Update(made, objective, recipe)
    for (group, domain), g in zip(own.items(), update.clipped(found), strict=True):
        update.write(group, domain, g)
    return _finished(made, own, objective, recipe, statistics, update)


def gradient_graph(
    graph: Graph, objective: Objective, groups: Mapping[Group, str], recipe: Recipe, parts: int
) -> Step:
    """One of ``parts`` batches of an update: their gradients add up in slots."""
    own = {g: domain for g, domain in groups.items() if set(g.paths) <= set(objective.weights)}
    made, statistics = _forward(graph, objective, recipe)
    found = _gradients(made, objective.loss, list(own), recipe.how)
    update = _Update(made, objective, recipe)
    for group, g in zip(own, found, strict=True):
        total = update.slot(group, GRADIENT, 0.0)
        made.set_output(update.slots[-1].name, (total + g * (1 / parts)).value)
    return _finished(made, {}, objective, recipe, statistics, update)


def update_graph(objective: Objective, groups: Mapping[Group, str], recipe: Recipe) -> Step:
    """What follows after the batches of :func:`gradient_graph`; it empties their slots."""
    own = {g: domain for g, domain in groups.items() if set(g.paths) <= set(objective.weights)}
    made = Graph(objective.name)
    update = _Update(made, objective, recipe)
    totals = [update.slot(group, GRADIENT, 0.0) for group in own]
    for slot, total in zip(list(update.slots), totals, strict=True):
        made.set_output(slot.name, total.filled(0).value)
    for (group, domain), g in zip(own.items(), update.clipped(totals), strict=True):
        update.write(group, domain, g)
    return _finished(made, own, objective, Recipe(), (), update)


GRADIENT = "gradient"


def _forward(graph: Graph, objective: Objective, recipe: Recipe) -> tuple[Graph, tuple[str, ...]]:
    """The graph in training mode with its running statistics, whose paths come second, put out."""
    wanted = {objective.loss, *recipe.metrics.values()}
    made = graph.copy()
    made.outputs = [(name, value) for name, value in made.outputs if name in wanted]
    declared, made.inputs = made.inputs, []
    made.prune()
    made.inputs = [index for index in declared if index in made]
    mode = to_training(made, lambda path: path in recipe.frozen)
    for path, value in mode.state.items():
        mode.graph.set_output(_new(path), value)
    return expand_gradients(mode.graph), tuple(mode.state)


def _new(path: str) -> str:
    return f"new {path}"


def _gradients(graph: Graph, loss: str, groups: Sequence[Group], how: How) -> list[Expr]:
    """The gradient of each group, flat."""
    values = {str(node.attrs["path"]): Value(index) for index, node in graph.of_op("param")}
    paths = [path for group in groups for path in group.paths]
    scalar = next(value for name, value in graph.outputs if name == loss)
    found = dict(zip(paths, gradients(graph, scalar, [values[p] for p in paths], how), strict=True))
    flat = []
    for group in groups:
        writer = Writer(graph, group.name)
        parts = [
            writer.expr(found[path]).reshape((prod(shape),))
            for path, shape in zip(group.paths, group.shapes, strict=True)
        ]
        flat.append(parts[0].concat(*parts[1:], axis=0) if len(parts) > 1 else parts[0])
    return flat


class _Update:
    """Writes the part of a step that moves weights."""

    def __init__(self, graph: Graph, objective: Objective, recipe: Recipe) -> None:
        self.graph, self.objective, self.recipe = graph, objective, recipe
        self.writer = Writer(graph, objective.optimiser.name)
        self.slots: list[Slot] = []
        self._scalars: dict[str, Expr] = {}

    @property
    def scalars(self) -> tuple[str, ...]:
        """The scalars that were read."""
        return tuple(self._scalars)

    def scalar(self, name: str, dtype: str) -> Expr:
        """A scalar of the step."""
        if name not in self._scalars:
            self._scalars[name] = self._input(name, dtype, ())
        return self._scalars[name].cast(dtype)

    def slot(self, group: Group, name: str, start: float | None) -> Expr:
        """A buffer beside a group's weights."""
        slot = Slot(f"{group.name}/{name}", group.name, start)
        self.slots.append(slot)
        return self._input(slot.name, _dtype(group), (group.size,))

    def clipped(self, found: Sequence[Expr]) -> list[Expr]:
        """The gradients within their bounds; their norm before that is put out."""
        squares = [g.square().sum() for g in found]
        total = squares[0]
        for square in squares[1:]:
            total = total + square.cast(total.dtype)
        norm = total.sqrt()
        self.graph.set_output(NORM, norm.value)
        clip = self.objective.clip
        if clip is None or clip.name == "weights":
            return list(found)
        limit = clip.settings["limit"]
        if clip.name == "value":
            return [g.maximum(-limit).minimum(limit) for g in found]
        # Pascanu, Mikolov, Bengio, ICML 2013.
        factor = (limit / (norm + TINY)).minimum(1.0)
        return [g * factor.cast(g.dtype) for g in found]

    def write(self, group: Group, domain: str, g: Expr) -> None:
        """Put out a group's new weights and slots."""
        rule, dtype = self.objective.optimiser, _dtype(group)
        optimiser, settings = OPTIMISERS[rule.name], rule.settings
        decays = group.paths[0] in self.recipe.decayed
        w = self._input(group.weights, dtype, (group.size,))
        starts = optimiser.slots(settings)
        slots = {name: self.slot(group, name, start) for name, start in starts.items()}
        u, slope = entered(group, domain, w, g)
        given = Given(
            u,
            slope,
            slots,
            self.scalar(LR, dtype),
            self.scalar(COUNT, dtype),
            settings["weight_decay"] if decays else 0.0,
            settings,
            self.scalar(MOMENTUM, dtype) if self.objective.moves_momentum else None,
        )
        new, kept = optimiser.update(given)
        new = left(group, domain, new)
        clip = self.objective.clip
        if clip is not None and clip.name == "weights":
            new = new.maximum(-clip.settings["limit"]).minimum(clip.settings["limit"])
        self.graph.set_output(group.weights, new.value)
        for name in starts:
            self.graph.set_output(f"{group.name}/{name}", kept[name].value)
        if self.recipe.average is not None:
            keep = self.recipe.average
            average = self.slot(group, AVERAGE, None) * keep + new * (1 - keep)
            self.graph.set_output(average_of(group), average.value)

    def _input(self, name: str, dtype: str, shape: tuple[int, ...]) -> Expr:
        return self.writer.expr(self.graph.add_input(name, TensorType(dtype, shape)))


def _finished(
    graph: Graph,
    groups: Mapping[Group, str],
    objective: Objective,
    recipe: Recipe,
    statistics: Sequence[str],
    update: _Update,
) -> Step:
    graph.outputs = [(LOSS if n == objective.loss else n, value) for n, value in graph.outputs]
    graph.prune()
    unused = {i for i in graph.inputs if not graph.users(i)} - {v.node for _, v in graph.outputs}
    names = {graph.node(index).name for index in unused}
    graph.inputs = [index for index in graph.inputs if index not in unused]
    graph.prune()
    layout = Layout(
        objective.name,
        tuple(groups),
        tuple(slot for slot in update.slots),
        tuple(name for name in update.scalars if name not in names),
        {_new(path): path for path in statistics},
        recipe.metrics,
    )
    shown = {LOSS, *recipe.metrics.values(), *layout.statistics}
    return Step(graph, layout, _behind(graph, [v for name, v in graph.outputs if name in shown]))


def _behind(graph: Graph, values: Sequence[Value]) -> frozenset[int]:
    """The nodes that values are computed from, their own among them."""
    found: set[int] = set()
    stack = [value.node for value in values]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += [value.node for value in graph.operands(index)]
    return frozenset(found)


def _dtype(group: Group) -> str:
    return next(name for name, dtype in DTYPES.items() if str(dtype) == group.dtype)

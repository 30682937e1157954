"""Gibbs sampling: each element drawn in turn from its distribution given all others.

Elements that no statement joins have one colour and are drawn at once (chromatic Gibbs; Gonzalez
et al., AISTATS 2011). Draws are counter-based, so they depend on the seed, the sweep and the
element only. Marginals are means of the conditional distributions over the sweeps that are kept
(Gelfand and Smith, JASA 85, 1990), which vary less than counts of draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ..ir.graph import Value
from .ground import require_known
from .local import Local, Region
from .statements import BATCH, ModelFault, Reference, Statement
from .structure import Family
from .tables import known

if TYPE_CHECKING:
    from .answers import Answers

STEPS, BURN, THIN = 1000, 100, 1
MOST_COLOURS = 64
MOST_EDGES = 1 << 22


def gibbs(answers: Answers, name: str, settings: Mapping[str, Any], span: Any, key: Value) -> Value:
    """Marginals ``[batch.., extent.., values]`` of a variable, from samples.

    ``settings`` are ``steps``, the sweeps that are kept, ``burn``, those before them that are not,
    and ``thin``, of how many sweeps one is kept. Raises E610 where so many elements hang together
    that next to none can be drawn at once.
    """
    component = answers.structure.component_of(name)
    local = Local(answers, component)
    colours = colouring(answers, local, span)
    steps = int(settings.get("steps", STEPS))
    burn, thin = int(settings.get("burn", BURN)), int(settings.get("thin", THIN))
    names = list(local.families)
    own = {n: local.own(f) for n, f in local.families.items()}
    zeros = [local.filled(local.shape(f), 0.0) for f in local.families.values()]
    starts = [_drawn(local, own[n], n, key, f"gibbs/{n}/start") for n in names]
    region = Region(local.emit, [*starts, *zeros, key, local.number(0.0)])
    inner = local.within(region)
    state = dict(zip(names, region.carries, strict=False))
    sums = dict(zip(names, region.carries[len(names) :], strict=False))
    turned, sweep = region.carries[-2:]
    inside = {n: region.capture(v) for n, v in own.items()}
    mean = {}
    for number, masks in enumerate(colours):
        fresh = dict(state)
        for n, mask in masks.items():
            path = f"gibbs/{n}/{number}"
            chosen = inner.emit.graph.add_constant(mask[..., None], "bool")
            logits = conditional(inner, n, inside[n], state)
            share = inner.softmax(logits)
            drawn = _drawn(inner, logits, n, turned, path)
            fresh[n] = inner.emit.emit("where", [chosen, drawn, state[n]])
            before = mean.get(n)
            mean[n] = share if before is None else inner.emit.emit("where", [chosen, share, before])
        state = fresh
    kept = _is_kept(inner, sweep, burn, thin)
    added = [inner.emit.emit("add", [sums[n], inner.emit.emit("mul", [mean[n], kept])])
             for n in names]  # fmt: skip
    step = inner.emit.graph.add_constant(np.array([0, 1], np.uint64), "u64")
    turn = inner.emit.emit("add", [turned, step])
    count = inner.emit.emit("add", [sweep, inner.number(1.0)])
    results = [*state.values(), *added, turn, count]
    found = region.run(results, count, burn + steps * thin, 0.0)
    total = found[len(names) + names.index(name)]
    return local.emit.emit("mul", [total, local.number(1 / steps)])


def conditional(local: Local, name: str, own: Value, state: Mapping[str, Value]) -> Value:
    """Logits of a variable's elements given all others, whose values are rows with a single 1."""
    said = local.fields(local.families[name], local.joint, state)
    return local.emit.emit("add", [own, said])


def _drawn(local: Local, logits: Value, name: str, key: Value, path: str) -> Value:
    """One value of each element by its logits, as a row with a single 1."""
    emit, family = local.emit, local.families[name]
    chosen = emit.emit("random_categorical", [local.softmax(logits), key], path=path)
    return emit.emit("one_hot", [chosen], size=family.size, dtype=local.dtype)


def _is_kept(local: Local, sweep: Value, burn: int, thin: int) -> Value:
    """1 in the sweeps that count, else 0."""
    emit = local.emit
    since = emit.emit("sub", [sweep, local.number(float(burn))])
    late = emit.emit("ge", [since, local.number(0.0)])
    rest = emit.emit("mod", [since, local.number(float(thin))])
    due = emit.emit("eq", [rest, local.number(0.0)])
    return emit.emit("cast", [emit.emit("and", [late, due])], dtype=local.dtype)


# ---------------------------------------------------------------- colours


def colouring(answers: Answers, local: Local, span: Any) -> list[dict[str, np.ndarray]]:
    """For each colour, which elements of each variable have it; no statement joins two of them."""
    for family in local.families.values():
        require_known(family)
    net = nx.Graph()
    net.add_nodes_from(range(sum(_count(f) for f in local.families.values())))
    net.add_edges_from(joined_pairs(answers, local, span).tolist())
    if nx.is_bipartite(net):
        colour = nx.bipartite.color(net)
    else:
        colour = nx.greedy_color(net, "largest_first")
    count = max(colour.values(), default=0) + 1
    if count > MOST_COLOURS:
        raise ModelFault(
            "E610", f"Gibbs sampling would draw {count} groups of elements one after another",
            span, f"at most {MOST_COLOURS}", "`meanfield` moves all elements at once",
        )  # fmt: skip
    array = np.array([colour[n] for n in range(len(colour))])
    offsets = _offsets(local)
    masks = []
    for number in range(count):
        row = {}
        for name, family in local.families.items():
            shape = tuple(known(n) for n in family.extent)
            size = int(np.prod(shape, dtype=np.int64))
            mask = array[offsets[name] : offsets[name] + size] == number
            if mask.any():
                row[name] = mask.reshape(shape)
        masks.append(row)
    return masks


def joined_pairs(answers: Answers, local: Local, span: Any) -> np.ndarray:
    """Pairs ``[count, 2]`` of elements that some statement joins; E610 where they are too many."""
    found = [_joined(answers, local, s, _offsets(local), span) for s, _ in local.joint]
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=0)


def _count(family: Family) -> int:
    return int(np.prod([known(n) for n in family.extent], dtype=np.int64))


def _offsets(local: Local) -> dict[str, int]:
    """The number of each variable's first element."""
    offsets, total = {}, 0
    for name, family in local.families.items():
        offsets[name] = total
        total += _count(family)
    return offsets


def _joined(
    answers: Answers, local: Local, statement: Statement, offsets: Mapping[str, int], span: Any
) -> np.ndarray:
    """Pairs of elements that a statement joins, the smaller first."""
    domain = {n: (known(a), known(b)) for n, (a, b) in statement.domain.items() if n != BATCH}
    sizes = [size for _, size in domain.values()]
    if np.prod(sizes, dtype=np.float64) > MOST_EDGES:
        raise ModelFault("E610", f"`{statement.label}` joins {np.prod(sizes, dtype=np.float64):.3g}"
                         " groups of elements", span, f"Gibbs sampling takes {MOST_EDGES:.3g}",
                         "`meanfield` moves all elements at once")  # fmt: skip
    grids = dict(zip(domain, np.indices(sizes).reshape(len(sizes), -1), strict=True))
    flat = [_elements(answers, local, statement, r, domain, grids) + offsets[r.variable]
            for r in statement.references]  # fmt: skip
    found = [np.zeros((0, 2), np.int64)]
    for k, one in enumerate(flat):
        for other in flat[:k]:
            pairs = np.sort(np.stack(np.broadcast_arrays(one, other), -1), axis=-1)
            found.append(pairs[pairs[:, 0] != pairs[:, 1]])
    return np.concatenate(found)


def _elements(
    answers: Answers, local: Local, statement: Statement, reference: Reference,
    domain: Mapping[str, tuple[int, int]], grids: Mapping[str, np.ndarray],
) -> np.ndarray:  # fmt: skip
    """The flat number of the element that a reference points at, for each value of the indices."""
    family = local.families[reference.variable]
    number = np.zeros(next((g.shape for g in grids.values()), (1,)), np.int64)
    for place, extent in zip(reference.places, family.extent, strict=True):
        if place[0] == "index":
            at = grids[place[1]] + domain[place[1]][0] + known(place[2])
        elif place[0] == "at":
            at = np.full(number.shape, known(place[1]))
        else:
            table, axes = statement.tables[place[1]]
            array = answers.constant(table)
            if array is None:
                message = "Gibbs sampling needs to know which elements are joined"
                raise ModelFault("E804", message,
                                 statement.span, hint="a table of numbers is known")  # fmt: skip
            at = array[tuple(grids[axis] for axis in axes)]
        number = number * known(extent) + at
    return number

"""Mean field: the best product of independent distributions, by repeated expected energies.

    q_x(v) <- softmax_v( sum over statements of E[ log-potential | x = v ] under the other q )

All variables of a component move at once (Krähenbühl, Koltun, NIPS 2011, algorithm 1). Expected
energies are contractions of the statements' own tables; a factor over all pairs that is made of
Gaussians is a filter, and no table is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.graph import Value
from .filters import Filters, is_symmetric, weighted
from .local import Local
from .pairwise import Kernel, Leaf, Term, kernel_of, same
from .statements import Statement
from .structure import Component, Family

if TYPE_CHECKING:
    from .answers import Answers

STEPS = 5
"""Updates, unless the question says how many."""

FiltersFor = Callable[[tuple[Any, ...], Any], Filters]


def meanfield(
    answers: Answers, name: str, settings: Mapping[str, Any], filters_for: FiltersFor
) -> Value:
    """Approximate marginals ``[batch.., extent.., values]`` of a variable.

    ``settings`` are ``steps`` and ``damping``: the share of the old distribution that stays.
    """
    component = answers.structure.component_of(name)
    worker = _MeanField(answers, component, filters_for)
    return worker.run(int(settings.get("steps", STEPS)), float(settings.get("damping", 0)))[name]


class _MeanField:
    def __init__(self, answers: Answers, component: Component, filters_for: FiltersFor) -> None:
        graph = answers.graph
        self.constant = answers.constant
        kernels = {s: k for s in component.statements if (k := usable_kernel(answers, s))}
        self.local = Local(answers, component, lambda statement: statement in kernels)
        self.emit = self.local.emit
        self.dense = [
            Dense(statement, kernel, filters_for(self.local.batch, _points(self.local, statement)))
            for statement, kernel in kernels.items()
        ]
        self.graph = graph

    def run(self, steps: int, damping: float) -> dict[str, Value]:
        """The distributions after some updates, from what statements about one variable say."""
        local = self.local
        fixed = {name: local.own(family) for name, family in local.families.items()}
        q = {name: local.softmax(value) for name, value in fixed.items()}
        for _ in range(steps):
            moved = {}
            for name, family in local.families.items():
                total = fixed[name]
                if local.joint:
                    total = self.emit.emit("add", [total, local.fields(family, local.joint, q)])
                for dense in self.dense:
                    if dense.statement.references[0].variable == name:
                        total = self.emit.emit("add", [total, self._message(dense, q[name])])
                moved[name] = local.damped(local.softmax(total), q[name], damping)
            q = moved
        return q

    # ------------------------------------------------------------ kernels

    def _message(self, dense: Dense, q: Value) -> Value:
        """What all pairs say about each element, up to a number for each."""
        total = None
        for compat, terms in self._by_compatibility(dense.kernel):
            felt = None
            for term in terms:
                pixels = (dense.kernel.i, dense.kernel.j)
                made = weighted(dense.filters, term, pixels, q, others=True)
                felt = made if felt is None else self.emit.emit("add", [felt, made])
            assert felt is not None
            said = self._compared(dense, compat, felt)
            total = said if total is None else self.emit.emit("add", [total, said])
        assert total is not None
        return total

    def _by_compatibility(self, kernel: Kernel) -> list[tuple[tuple[Leaf, ...], list[Term]]]:
        """Terms that compare values alike, together."""
        groups: list[tuple[tuple[Leaf, ...], list[Term]]] = []
        for term in kernel.terms:
            own = compatibility(term, kernel)
            for known, terms in groups:
                if len(known) == len(own) and all(
                    a.inverse == b.inverse and a.table.axes == b.table.axes
                    and same(self.graph, a.table.value, b.table.value)
                    for a, b in zip(known, own, strict=True)
                ):  # fmt: skip
                    terms.append(term)
                    break
            else:
                groups.append((own, [term]))
        return groups

    def _compared(self, dense: Dense, compat: tuple[Leaf, ...], felt: Value) -> Value:
        """``sum_v' compat(v, v') felt(v')``; twice where pairs count in both orders."""
        emit, both = self.emit, dense.kernel.how == "!="
        square = self._square(compat, dense)
        known = self.constant(square)
        potts = None if known is None else _potts(known)
        if potts is not None:
            # What all values have alike changes no distribution.
            amount = self.local.number(-2 * potts if both else -potts)
            return emit.emit("mul", [felt, amount])
        if both:
            turned = emit.emit("transpose", [square], perm=(1, 0))
            square = emit.emit("add", [square, turned])
        letters = "ncab"[: self.emit.type_of(felt).rank]
        spec = f"{letters},{letters[-1]}z->{letters[:-1]}z"
        return emit.emit("contract", [felt, square], semiring="sum_product", spec=spec)

    def _square(self, compat: tuple[Leaf, ...], dense: Dense) -> Value:
        """The product of a term's tables over two values, ``[v', v]``."""
        emit, statement = self.emit, dense.statement
        one, other = (r.axis for r in statement.references)
        size = self.local.families[statement.references[0].variable].size
        emit.sizes |= {one: size, other: size}
        made = self.local.filled((size, size), 1.0)
        for leaf in compat:
            value = emit.expand(dense.filters.plain(leaf.table), (other, one))
            if emit.type_of(value).dtype != self.local.dtype:
                value = emit.emit("cast", [value], dtype=self.local.dtype)
            made = emit.emit("div" if leaf.inverse else "mul", [made, value])
        return made


@dataclass(frozen=True)
class Dense:
    """A factor over all pairs and the filters that it is worked out with."""

    statement: Statement
    kernel: Kernel
    filters: Filters


def usable_kernel(answers: Answers, statement: Statement) -> Kernel | None:
    """A factor's kernel if filters can do it: what one element says of another must be mutual."""
    graph = answers.graph
    kernel = kernel_of(graph, statement)
    if kernel is None:
        return None
    for term in kernel.terms:
        left = term.over(lambda axes: axes == {kernel.i})
        right = term.over(lambda axes: axes == {kernel.j})
        mutual = is_symmetric(graph, term) and len(left) == len(right) and all(
            a.inverse == b.inverse and same(graph, a.table.value, b.table.value)
            for a, b in zip(left, right, strict=True)
        )  # fmt: skip
        if not mutual:
            return None
        if kernel.how == "<" and not _mutual_values(answers, statement, term, kernel):
            return None
    return kernel


def compatibility(term: Term, kernel: Kernel) -> tuple[Leaf, ...]:
    """A term's tables over values."""
    return term.over(lambda axes: bool(axes) and not axes & {kernel.i, kernel.j})


def _mutual_values(answers: Answers, statement: Statement, term: Term, kernel: Kernel) -> bool:
    """Whether a term's tables over values are symmetric: by declaration or by their numbers."""
    one, other = (r.axis for r in statement.references)
    graph = answers.graph
    for leaf in compatibility(term, kernel):
        if leaf.over != {one, other}:
            return False
        node = graph.node(leaf.table.value.node)
        if node.op == "param" and node.attrs.get("domain") == "symmetric":
            continue
        array = answers.constant(leaf.table.value)
        if array is None or not np.array_equal(array, np.swapaxes(array, 0, 1)):
            return False
    return True


def _potts(square: np.ndarray) -> float | None:
    """``c`` of ``c * (v != v')``, up to a number that is added to all of it."""
    off = square[~np.eye(len(square), dtype=bool)]
    diagonal = np.diagonal(square)
    if not off.size or np.ptp(off) or np.ptp(diagonal):
        return None
    return float(off[0] - diagonal[0])


def _points(local: Local, statement: Statement) -> Any:
    family: Family = local.families[statement.references[0].variable]
    return family.extent[0]

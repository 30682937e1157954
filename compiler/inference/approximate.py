"""How marginals are approximated, in words and formulas, with what it costs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.dims import DimLike, product
from ..ir.graph import Graph, Value
from ..ir.types import TensorType
from . import beliefs, gibbs, meanfield
from .answers import Answers, answers_about
from .filters import EXACT_POINTS
from .local import Local
from .pairwise import Kernel
from .statements import Reference, Statement, statements_of
from .structure import Family, structure_of

METHODS = ("meanfield", "bp", "gibbs")
"""Questions that are answered by an approximation."""


@dataclass(frozen=True)
class Asked:
    """A question that is answered by an approximation: which, about what variable, and how."""

    method: str
    variable: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As a spec has it."""
        rows = "".join(f", {name}={_plain(value)}" for name, value in self.settings.items())
        return f"{self.method}({self.variable}{rows})"


@dataclass(frozen=True)
class Finding:
    """Something that was compared on a small instance; ``exact`` when theory says it is 0."""

    what: str
    worst: float
    exact: bool

    @property
    def holds(self) -> bool:
        """Whether it is what theory says, up to rounding."""
        return not self.exact or self.worst < 1e-8


@dataclass(frozen=True)
class Approximation:
    """How a variable's marginals are approximated, and what of it was proven.

    ``cost`` counts operations of one answer, ``memory`` bytes of what it holds; ``instance`` are
    the sizes at which both were made when those of the model are open. ``findings`` were made at
    ``checked_at``; where there are none ``reason`` says why.
    """

    asked: Asked
    steps: tuple[str, ...]
    cost: DimLike
    memory: DimLike
    instance: str = ""
    checked_at: str = ""
    findings: tuple[Finding, ...] = ()
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether everything holds that theory says."""
        return all(finding.holds for finding in self.findings)


def asked_of(graph: Graph, methods: Sequence[str] = ()) -> list[Asked]:
    """What a model asks by approximation, and ``methods`` about every part of it."""
    found = []
    for _, node in graph.of_op("query"):
        if node.attrs["ask"] in METHODS:
            settings: Any = node.attrs["settings"]
            found.append(Asked(str(node.attrs["ask"]), str(node.attrs["variable"]), dict(settings)))
    for method in methods:
        for component in structure_of(statements_of(graph)).components:
            names = {family.name for family in component.families}
            if not any(a.method == method and a.variable in names for a in found):
                found.append(Asked(method, component.families[0].name))
    return [a for place, a in enumerate(found) if a not in found[:place]]


def with_questions(graph: Graph, asked: Asked) -> Graph:
    """A copy whose outputs are the answers about every variable of the component, by name."""
    twin = graph.copy()
    statements = [Value(index) for index, _ in twin.of_op("site", "factor")]
    rows = statements_of(twin)
    dtype = "f32" if all(s.dtype == "f32" for s in rows) else "f64"
    structure = structure_of(rows)
    lead = (structure.sizes[structure.batch],) if structure.batch else ()
    outputs = []
    for family in structure.component_of(asked.variable).families:
        shape = (*lead, *family.extent, family.size)
        attrs: Any = {
            "ask": asked.method, "variable": family.name, "shape": shape, "dtype": dtype,
            "settings": tuple(asked.settings.items()),
        }  # fmt: skip
        name = f"{asked.method}({family.name})"
        node = twin.add("query", statements, attrs, [TensorType(dtype, shape)], name)
        outputs.append((family.name, Value(node)))
    twin.outputs = outputs
    twin.prune(twin.inputs)
    return twin


def approximation(graph: Graph, asked: Asked) -> Approximation:
    """The formulas of one approximation and what it costs, at the sizes of the graph."""
    answers = answers_about(graph.copy())
    component = answers.structure.component_of(asked.variable)
    kernels: dict[Statement, Kernel] = {}
    if asked.method == "meanfield":
        kernels = {s: k for s in component.statements if (k := meanfield.usable_kernel(answers, s))}
    local = Local(answers, component, lambda statement: statement in kernels)
    writer = _Writer(answers, local, kernels, asked.settings)
    steps, cost, memory = {
        "meanfield": writer.mean_field, "bp": writer.messages, "gibbs": writer.conditionals,
    }[asked.method]()  # fmt: skip
    return Approximation(asked, tuple(steps), cost, memory)


Written = tuple[list[str], DimLike, DimLike]
"""Sentences, operations and bytes."""


@dataclass
class _Writer:
    answers: Answers
    local: Local
    kernels: Mapping[Statement, Kernel]
    settings: Mapping[str, Any]

    @property
    def families(self) -> list[Family]:
        """The variables."""
        return list(self.local.families.values())

    # ------------------------------------------------------------ mean field

    def mean_field(self) -> Written:
        """Updates, the bound that they raise, and filters."""
        steps = int(self.settings.get("steps", meanfield.STEPS))
        damping = float(self.settings.get("damping", 0))
        every = [s for s, _ in self.local.alone]
        every += [s for s, _ in self.local.joint] + list(self.kernels)
        parts = [f"E_q[log {s.formula}]" for s in every]
        rows = [
            "q = prod q_x(v) over all elements x, which raises the bound",
            f"F(q) = {' + '.join(parts)} + H(q) <= log Z,  log Z - F(q) = KL(q || p)",
        ]
        for family in self.families:
            own = [f"log {_held(s, r)}" for s, r in self._of(family, alone=True)]
            more = [f"E_q[log {_held(s, r)}]" for s, r in self._of(family, alone=False)]
            name = _element(family)
            rows.append(f"start   q_{name}(v) = softmax_v( {' + '.join(own) or '0'} )")
            rows.append(f"update  q_{name}(v) <- softmax_v( {' + '.join([*own, *more]) or '0'} )")
        rows.append(f"{_all_at_once('elements', steps)}{_kept(damping, 'q')};"
                    " where an update changes nothing F(q) has no slope")  # fmt: skip
        cost: DimLike = self._contracted() + self._distributions()
        for statement, kernel in self.kernels.items():
            text, once = self._filter(statement, kernel)
            rows.append(text)
            cost = cost + once
        return rows, cost * steps, self._bytes(self._tables() + self._distributions() * 2)

    def _filter(self, statement: Statement, kernel: Kernel) -> tuple[str, DimLike]:
        """What a factor made of Gaussians is worked out with, and the cost of one update."""
        family = self.local.families[statement.references[0].variable]
        points, values = family.extent[0], family.size
        batch = product(self.local.batch)
        emit = self.local.emit
        chosen = self.settings.get("filter")
        lattice = isinstance(points, int) and points > EXACT_POINTS
        engine = str(chosen or ("lattice" if lattice else "exact"))
        cost: DimLike = values * values * points * batch
        for term in kernel.terms:
            size: Any = sum((emit.type_of(b.left.value).shape[-1] for b in term.bells), start=0)
            once = points * points * (size + 2 * values)
            if engine == "lattice":
                # Splat, slice, and a blur along each of size + 1 axes over the corners.
                once = points * (size + 1) * values * (2 + 3 * (size + 1))
            cost = cost + once * batch
        open_sizes = chosen is None and not isinstance(points, int)
        beyond = f" (a lattice beyond {EXACT_POINTS:,} elements)" if open_sizes else ""
        said = "all pairs are summed" if engine == "exact" else "a permutohedral lattice filters q"
        count = len(kernel.terms)
        name = statement.formula.partition("(")[0]
        return (
            f"{name} is {count} Gaussian kernel{'s' * (count > 1)} over all pairs and no table:"
            f" {said}{beyond}, values are compared afterwards", cost,
        )  # fmt: skip

    # ------------------------------------------------------------ belief propagation

    def messages(self) -> Written:
        """Messages, their schedule and what becomes of them."""
        steps = int(self.settings.get("steps", beliefs.STEPS))
        tol, damping = (float(self.settings.get(name, 0)) for name in ("tol", "damping"))
        best = self.settings.get("semiring") == "max_sum"
        rows = []
        held: DimLike = 0
        for statement, reference in beliefs.edges(self.local):
            name = statement.formula
            if statement.role == "factor":
                name = name.partition("(")[0]
            others = [r.axis for r in statement.references if r is not reference]
            rest = "".join(f" + b_{o} - m_{{{name}->{o}}}" for o in others)
            over = ", ".join(others)
            inner = f"log {_held(statement, reference)}{rest}"
            joined = f"max_{{{over}}} ( {inner} )" if best else f"log sum_{{{over}}} exp( {inner} )"
            less = "its largest value" if best else "its log-sum-exp"
            rows.append(f"m_{{{name}->{reference.axis}}}(v) <- {joined}, less {less}")
            self.local.measure(statement, [])
            shape = self.local.emit.shape(self.local.axes(statement, reference))
            held = held + product(shape)
        for family in self.families:
            own = "".join(f"log {_held(s, r)} + " for s, r in self._of(family, alone=True))
            name = _element(family)
            rows.append(f"b_{name}(v) = {own}sum over factors f of m_{{f->{name}}}(v)")
        until = f", or until none changes by {tol:g}" if tol else ""
        rows.append(
            f"{_all_at_once('messages', steps)} from 0{until}{_kept(damping, 'log-message')}"
        )
        rows.append("log max-marginals: b_x(v) less its largest" if best
                    else "marginals: softmax_v b_x(v)")  # fmt: skip
        rows.append("exact where factors close no circle, after as many steps as they are apart")
        cost = self._contracted() + 2 * self._distributions() + 4 * held
        return rows, cost * steps, self._bytes(self._tables() + self._distributions() + 2 * held)

    # ------------------------------------------------------------ Gibbs sampling

    def conditionals(self) -> Written:
        """Full conditionals, in what order elements are drawn, and what is averaged."""
        steps = int(self.settings.get("steps", gibbs.STEPS))
        burn = int(self.settings.get("burn", gibbs.BURN))
        thin = int(self.settings.get("thin", gibbs.THIN))
        rows = []
        for family in self.families:
            said = [f"log {_held(s, r)}" for s, r in (
                *self._of(family, alone=True), *self._of(family, alone=False))]  # fmt: skip
            rows.append(f"p({_element(family)} = v | all others) ="
                        f" softmax_v( {' + '.join(said) or '0'} )")  # fmt: skip
        colours = gibbs.colouring(self.answers, self.local, self.families[0].span)
        counts = [sum(int(mask.sum()) for mask in row.values()) for row in colours]
        sizes = ", ".join(map(str, counts[:8])) + (", ..." if len(counts) > 8 else "")
        rows.append("elements that no factor joins are drawn at once: in a sweep"
                    f" {len(counts)} group{'s' * (len(counts) > 1)} of {sizes}")  # fmt: skip
        every = "" if thin == 1 else f", one of {thin}"
        rows.append(f"marginals: the mean of these over {steps:,} sweeps{every}, after {burn:,}"
                    " that do not count")  # fmt: skip
        cost = (self._contracted() + 2 * self._distributions()) * len(counts)
        return rows, cost * (burn + steps * thin), self._bytes(
            self._tables() + 3 * self._distributions())  # fmt: skip

    # ------------------------------------------------------------ what is there

    def _of(self, family: Family, alone: bool) -> list[tuple[Statement, Reference]]:
        """Statements that mention a variable, once for each place where they do."""
        rows = self.local.alone if alone else self.local.joint
        statements = [s for s, _ in rows] + ([] if alone else list(self.kernels))
        return [(s, r) for s in statements for r in s.references if r.variable == family.name]

    def _contracted(self) -> DimLike:
        """Operations with which every table says something of each variable in it."""
        total: DimLike = 0
        for statement, table in self.local.joint:
            count = len(statement.references)
            self.local.measure(statement, [table])
            axes = {*table.axes, *statement.domain, *(r.axis for r in statement.references)}
            total = total + product(self.local.emit.shape(sorted(axes))) * (count * count)
        return total

    def _distributions(self) -> DimLike:
        """Numbers in one distribution for each element."""
        total: DimLike = 0
        for family in self.families:
            total = total + product(self.local.shape(family))
        return total

    def _tables(self) -> DimLike:
        total: DimLike = 0
        for _, table in self.local.rows:
            total = total + product(self.local.emit.type_of(table.value).shape)
        return total

    def _bytes(self, numbers: DimLike) -> DimLike:
        return numbers * (4 if self.local.dtype == "f32" else 8)


def _element(family: Family) -> str:
    """A variable where its first statement draws it."""
    return family.sites[-1].references[-1].axis


def _held(statement: Statement, reference: Reference) -> str:
    """A factor with ``v`` where a reference stands: ``phi1(x[i]=v, x[j])``."""
    pattern = rf"(?<![\w\]]){re.escape(reference.axis)}(?![\w\[])"
    return re.sub(pattern, f"{reference.axis}=v", statement.formula, count=1)


def _all_at_once(what: str, steps: int) -> str:
    return f"all {what} at once, {steps} time{'s' * (steps != 1)}"


def _kept(damping: float, what: str) -> str:
    return f", {damping:g} of the old {what} stays" if damping else ""


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

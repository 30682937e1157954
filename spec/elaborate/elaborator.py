"""State shared by one elaboration: reporting, budgets, sizes that are still open, weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...compiler.ir.dims import Dim, DimLike, Quotient, compare, is_symbol, substitute, symbol
from ...compiler.ir.graph import Graph, Value
from ...compiler.ir.types import Span, TensorType
from ..diagnostics import Diagnostic, Reporter
from .builder import MAX_NODES, MAX_TENSOR_BYTES, GraphBuilder, Weight, constraint, size_text
from .errors import Poisoned, fail
from .values import BATCH, Axis

MAX_DEPTH = 400
MAX_WEIGHT = 128
FEWER = "repeat fewer copies, or write the repetition as a recurrence over an index"
MAX_STEPS = 200_000


class Elaborator:
    """Shared state; one instance a run of :func:`spec.elaborate.elaborate`."""

    def __init__(self, reporter: Reporter, name: str, float_dtype: str) -> None:
        self.reporter = reporter
        self.float_dtype = float_dtype
        self.solved: dict[str, DimLike] = {}
        self.weights: dict[str, Weight] = {}
        self.symbols: set[str] = set()
        self.rehearsing = 0
        self.resolver: Callable[[str], Any] | None = None
        self.lost: frozenset[str] = frozenset()
        self.fix_settings: dict[str, Any] = {}
        self.open_sizes: dict[str, str] = {}
        self.using: list[str] = []
        self.supports: dict[str, Any] = {}
        self.asked_supports: set[str] = set()
        self.batch: DimLike = symbol(BATCH)
        self._batches = {inner: Axis(BATCH, self.batch, kind="batch", number=0, inner=inner)
                         for inner in (False, True)}  # fmt: skip
        self._nodes = 0
        self._steps = 0
        self._local = 0
        self._random = 0
        self._key: Value | None = None
        self._statements: dict[int, list[tuple[str, Value]]] = {}
        self.builder = GraphBuilder(self, Graph(name))

    # ------------------------------------------------------------ messages

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep a fault; the same one is met again wherever its definition is expanded."""
        for known in self.reporter.diagnostics:
            if (known.code, known.span, known.message) == (
                diagnostic.code, diagnostic.span, diagnostic.message
            ):  # fmt: skip
                return
        self.reporter.report(diagnostic)

    def collision(self, path: str, span: Span) -> None:
        """E305: two weights on one path; both places are shown."""
        earlier = self.weights[path]
        if earlier.span == span:
            fail("E305", f"two weights on the path `{path}`", span, "this place is used twice",
                 "label each use, or number the copies of a repetition from outside: "
                 "`(...)^n as name`")  # fmt: skip
        fail("E305", f"two weights on the path `{path}`", span, "the second",
             "give each a label of its own: `... as name`",
             [(earlier.span, "the first")])  # fmt: skip

    # ------------------------------------------------------------ budgets

    def count_node(self, span: Span | None) -> None:
        """E702 when the graph grows beyond its budget."""
        self._nodes += 1
        if self._nodes > MAX_NODES + 1:
            raise Poisoned  # reported already
        if self._nodes > MAX_NODES:
            fail("E702", f"the model has more than {MAX_NODES} nodes", span, hint=FEWER)

    def step(self, span: Span | None, depth: int) -> None:
        """E701 or E702 when an expansion does not end."""
        self._steps += 1
        if self._steps > MAX_STEPS + 1:
            raise Poisoned  # reported already
        if depth > MAX_DEPTH:
            fail("E701", f"definitions expand more than {MAX_DEPTH} deep", span,
                 hint="a recursion needs a case that ends it: "
                 "`if n == 0 then id else ...`")  # fmt: skip
        if self._steps > MAX_STEPS:
            fail("E702", f"the model takes more than {MAX_STEPS} steps to expand", span, hint=FEWER)

    def check_size(self, kind: TensorType, what: str, span: Span | None) -> None:
        """E703 when one tensor alone is beyond any memory; E106 when a size is negative."""
        total = 1
        for dim in kind.shape:
            if isinstance(dim, Dim) and _weight(dim) > MAX_WEIGHT:
                fail("E702", f"the formula of a size has more than {MAX_WEIGHT} parts", span,
                     hint="declare the input with numbers, or pass `--shape`")  # fmt: skip
            if isinstance(dim, int):
                if dim < 0:
                    fail("E106", f"{what} would have a negative size", span, str(kind))
                total *= dim
        if total * kind.itemsize > MAX_TENSOR_BYTES:
            fixed = TensorType(kind.dtype, tuple(d for d in kind.shape if isinstance(d, int)))
            fail("E703", f"{what} needs a tensor of {size_text(fixed)}", span, str(kind),
                 "nothing was allocated; reduce a size")  # fmt: skip

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Elaborate to learn types only: weights made meanwhile may be made again."""
        self.rehearsing += 1
        try:
            yield
        finally:
            self.rehearsing -= 1

    # ------------------------------------------------------------ sizes

    def open_size(self, name: str) -> Dim:
        """A size of a definition's own, to be solved by what it meets."""
        self._local += 1
        made = f"{name}_{self._local}__"
        self.open_sizes[made] = name
        return symbol(made)

    def batch_axis(self, inner: bool) -> Axis:
        """The label of the batch."""
        return self._batches[inner]

    def resolve(self, dim: DimLike) -> DimLike:
        """A size with solved parts filled in."""
        return substitute(dim, self.solved)

    def require_equal(self, left: DimLike, right: DimLike, why: str, span: Span | None) -> None:
        """Two sizes must agree: solve an open one, or remember the constraint."""
        left, right = self.resolve(left), self.resolve(right)
        verdict = compare(left, right)
        if verdict:
            return
        if verdict is False:
            fail("E103", f"sizes do not agree ({why})", span, f"{left} and {right}")
        for a, b in ((left, right), (right, left)):
            name = is_symbol(a)
            if name is not None and name.endswith("__"):
                self.solved = {key: substitute(d, {name: b}) for key, d in self.solved.items()}
                self.solved[name] = b
                return
        found = constraint(left, right, why, span)
        graph = self.builder.graph
        if not any(c.left == found.left and c.right == found.right for c in graph.constraints):
            graph.constraints.append(found)

    def random_key(self) -> Value:
        """The graph's input that random ops read: (seed, step)."""
        if self._key is None:
            self._key = self.builder.graph.add_input("key", TensorType("u64", (2,)))
        return self._key

    def statements(self, scope: Any) -> list[tuple[str, Value]]:
        """The nodes of a file's ``~`` and ``factor`` statements, made once."""
        from .random_variables import emit_statements

        if id(scope) not in self._statements:
            self._statements[id(scope)] = emit_statements(scope)
        return self._statements[id(scope)]

    def next_random(self, path: str) -> str:
        """A path of its own for each random op."""
        self._random += 1
        return f"{path or 'sample'}#{self._random}"


def _weight(dim: Dim) -> int:
    """Parts of a symbolic size, those inside its quotients counted; stops beyond the limit."""
    count, stack = 0, [dim]
    while stack and count <= MAX_WEIGHT:
        for monomial, _ in stack.pop().terms:
            count += max(1, len(monomial))
            for atom in monomial:
                if isinstance(atom, Quotient):
                    stack += [x for x in (atom.a, atom.b) if isinstance(x, Dim)]
    return count


def looks_like_size(name: str) -> bool:
    """Whether an undefined name in a shape is a symbolic size: capital first, or one letter."""
    return re.fullmatch(r"[A-Z][A-Za-z0-9_]*|[a-z]", name) is not None

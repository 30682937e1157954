"""The gradient of a recurrence: back through time.

A scan's derivative is a scan that runs the other way. What the body's derivative reads of the
forward run is stacked by the forward loop, or computed again from the carries that it stacks.
Gradients of weights are products over all steps, taken when the loop is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters, ascii_lowercase
from typing import Any

from ..ir.dims import DimLike
from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from ..ops.base import OPS, gradient_of
from ..ops.contract import parse_spec
from ..ops.expr import Expr, Pullback, Writer
from .body import Body, copy_into, depending, differentiated


@gradient_of("scan")
def _scan(pull: Pullback) -> Sequence[Expr | None]:
    node = pull.writer.graph.node(pull.index)
    carries, stacked = int(node.attrs["n_carry"]), int(node.attrs["n_xs"])  # type: ignore[arg-type]
    region = node.regions[0]
    kinds = [region.type_of(value) for _, value in region.outputs]
    floats = [p for p in range(carries) if kinds[p].is_float]
    given = floats + [
        p for p in range(carries, len(kinds)) if pull.dy[p] is not None and kinds[p].is_float
    ]
    wanted = floats + [p for p in range(carries, len(pull.x)) if pull.needs[p]]
    body = differentiated(region, wanted, given, pull.pull)
    saved = _saved(body, carries, carries + stacked, pull.how.recompute)
    stacks = _forward(pull, node, body, saved)
    return _backward(pull, node, body, dict(zip(saved, stacks, strict=True)))


def _saved(body: Body, carries: int, steady_from: int, recompute: bool) -> list[Value]:
    """Values of the forward step that the derivative reads and that differ from step to step.

    Captures are read again, and what depends on them alone is computed again. So are, from what is
    saved, the element-wise ops that the derivative added. With ``recompute``, all is computed
    again from the carries.
    """
    graph = body.graph
    backward = depending(graph, body.d.values())
    steady = _steady(graph, body.inputs[:steady_from], body.d.values())
    read = [value for value in body.found.values() if value.node not in backward]
    for index in graph.order():
        if index in backward:
            read += [value for value in graph.operands(index) if value.node not in backward]
    kept: dict[Value, None] = {}
    rows = set(body.inputs[carries:steady_from])
    seen: set[Value] = set()
    while read:
        value = read.pop(0)
        if value in seen or value.node in steady or value in rows:
            continue
        seen.add(value)
        node = graph.node(value.node)
        again = recompute or (value.node >= body.mark and OPS[node.op].batching == "elementwise")
        if node.op != "input" and again:
            read += graph.operands(value.node)
        else:
            kept[value] = None
    return list(kept)


def _steady(graph: Graph, moving: Sequence[Value], d: Iterable[Value]) -> set[int]:
    """Nodes that are the same at every step."""
    return set(graph.order()) - depending(graph, [*moving, *d])


def _forward(pull: Pullback, node: Node, body: Body, saved: Sequence[Value]) -> list[Expr]:
    """The stacks of what is saved, from a loop put in the loop's place where it lacks some."""
    graph, source = pull.writer.graph, node.regions[0]
    carries = int(node.attrs["n_carry"])  # type: ignore[arg-type]
    rows = dict(zip(body.outputs[carries:], pull.y[carries:], strict=True))
    fresh = [value for value in saved if value not in rows]
    if not fresh:
        return [rows[value] for value in saved]
    region = Graph(source.name)
    known: dict[Value, Value] = {}
    for index, value in zip(source.inputs, body.inputs, strict=True):
        known[value] = region.add_input(source.node(index).name, source.node(index).type)
    outputs = copy_into(region, body.graph, [*body.outputs, *fresh], known)
    names = [name for name, _ in source.outputs]
    names += [f"saved{len(names) + i}" for i in range(len(fresh))]
    for name, value in zip(names, outputs, strict=True):
        region.set_output(name, value)
    made = pull.writer.loop("scan", pull.x, node.attrs, region)
    for old, new in zip(pull.y, made, strict=False):
        graph.replace_uses(old.value, new.value)
    # A value that is a carry and a row is read as a row, which comes later.
    rows = dict(zip([*body.outputs, *fresh], made, strict=True))
    return [rows[value] for value in saved]


@dataclass
class _Backward:
    """The loop that runs the other way, while it is made.

    ``operands`` are what it reads, ``known`` maps values of the body to those in its region.
    """

    pull: Pullback
    body: Body
    stacks: dict[Value, Expr]
    steady: dict[Value, Expr]
    region: Graph
    operands: list[Expr]
    known: dict[Value, Value]

    def read(self, name: str, operand: Expr, kind: TensorType) -> Value:
        """The next input of the region."""
        self.operands.append(operand)
        return self.region.add_input(name, kind)


def _backward(
    pull: Pullback, node: Node, body: Body, saved: Mapping[Value, Expr]
) -> Sequence[Expr | None]:
    """Cotangents of a scan's operands, by a scan the other way and products after it."""
    attrs: Any = node.attrs
    carries, first = attrs["n_carry"], attrs["n_carry"] + attrs["n_xs"]
    floats = [p for p in range(carries) if p in body.d]
    stacks = dict(saved)
    stacks |= {value: pull.cotangent(p) for p, value in body.d.items() if p >= carries}
    stacks |= {body.inputs[p]: pull.x[p] for p in range(carries, first)}
    steady = {body.inputs[p]: pull.x[p] for p in range(first, len(pull.x))}
    back = _Backward(pull, body, stacks, steady, Graph("backward"), [], {})
    late = {} if pull.how.recompute else _products(back, range(carries, len(pull.x)), first)
    summed = [p for p in range(first, len(pull.x)) if p in body.found and p not in late]
    rows = [p for p in range(carries, first) if p in body.found and p not in late]
    fresh = [v for product in late.values() for v in product.rows if v not in stacks]
    fresh = list(dict.fromkeys(fresh))
    for p in floats:
        back.known[body.d[p]] = back.read(f"d{p}", pull.cotangent(p), pull.y[p].type)
    totals = {p: back.read(f"total{p}", pull.x[p].filled(0), pull.x[p].type) for p in summed}
    before = len(back.operands)
    for place, (value, stack) in enumerate(stacks.items()):
        back.known[value] = back.read(f"row{place}", stack, body.graph.type_of(value))
    mask = _truncation(pull, attrs)
    cut = None if mask is None else back.read("open", mask, TensorType("bool", ()))
    count = len(back.operands) - before
    for place, (value, x) in enumerate(steady.items()):
        back.known[value] = back.read(f"capture{place}", x, x.type)
    _put_out(back, floats, totals, [*(body.found[p] for p in rows), *fresh], cut)
    how = {
        "n_carry": len(floats) + len(summed),
        "n_xs": count,
        "length": attrs["length"],
        "reverse": not attrs["reverse"],
    }
    results = pull.writer.loop("scan", back.operands, how, back.region)
    found: list[Expr | None] = [None] * len(pull.x)
    for p, d in zip((*floats, *summed, *rows), results, strict=False):
        found[p] = d
    stacks |= dict(zip(fresh, results[len(results) - len(fresh) :], strict=True))
    for p, product in late.items():
        found[p] = product.of(stacks, steady)
    return found


def _put_out(
    back: _Backward,
    floats: Sequence[int],
    totals: Mapping[int, Value],
    rows: Sequence[Value],
    cut: Value | None,
) -> None:
    """Fill the region: cotangents of carries, running totals, then rows."""
    body, inner = back.body, Writer(back.region)
    wanted = [body.found[p] for p in (*floats, *totals) if p in body.found]
    made = dict(
        zip(
            [*wanted, *rows],
            copy_into(back.region, body.graph, [*wanted, *rows], back.known),
            strict=True,
        )
    )
    for p in floats:
        kind = back.pull.y[p].type
        if p in body.found:
            d = inner.expr(made[body.found[p]])
        else:
            d = inner.fill(kind.shape, 0, kind.dtype)
        d = d if cut is None else inner.expr(cut).where(d, 0)
        back.region.set_output(f"d{p}", d.value)
    for p, total in totals.items():
        after = inner.expr(total) + inner.expr(made[body.found[p]])
        back.region.set_output(f"total{p}", after.value)
    for place, value in enumerate(rows):
        back.region.set_output(f"out{place}", made[value])


# ---------------------------------------------------------------- products after the loop


_Term = tuple[str, tuple[Value, ...], tuple[DimLike, ...]]


@dataclass(frozen=True)
class _Product:
    """A sum of contractions of rows, done for all steps at once when the loop is over.

    Each term is a spec, with the letter of the steps, its operands and the result's shape. One
    large product of matrices takes the place of many small ones, and no total travels from step to
    step.
    """

    terms: tuple[_Term, ...]
    rows: tuple[Value, ...]

    def of(self, stacks: Mapping[Value, Expr], steady: Mapping[Value, Expr]) -> Expr:
        """The sum, given the rows of all steps and what is the same at every step."""
        parts = []
        for spec, values, shape in self.terms:
            operands = [stacks[v] if v in self.rows else steady[v] for v in values]
            parts.append(operands[0].contract(spec, *operands[1:]).reshape(shape))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def _products(back: _Backward, places: Iterable[int], first: int) -> dict[int, _Product]:
    """Cotangents, by place of the operand, that products after the loop can give."""
    body = back.body
    moving = depending(body.graph, [*body.inputs[:first], *body.d.values()])
    found = {}
    for p in places:
        if p not in body.found:
            continue
        terms = [
            _term(body.graph, v, p >= first, moving, back)
            for v in _terms(body.graph, body.found[p])
        ]
        kept = [term for term in terms if term is not None]
        if len(kept) == len(terms):
            rows = [v for _, values, _ in kept for v in values if v.node in moving]
            found[p] = _Product(tuple(kept), tuple(dict.fromkeys(rows)))
    return found


def _terms(graph: Graph, value: Value) -> list[Value]:
    """What is added up to a value."""
    node = graph.node(value.node)
    if node.op != "add" or any(graph.type_of(v) != node.type for v in graph.operands(value.node)):
        return [value]
    return [term for v in graph.operands(value.node) for term in _terms(graph, v)]


def _term(
    graph: Graph, value: Value, summed: bool, moving: set[int], back: _Backward
) -> _Term | None:
    """A term as a contraction over all steps."""
    shape = graph.type_of(value).shape
    while graph.node(value.node).op == "reshape":
        (value,) = graph.operands(value.node)
    node, operands = graph.node(value.node), graph.operands(value.node)
    attrs: Any = node.attrs
    if node.op == "contract" and attrs["semiring"] == "sum_product":
        inputs, output = parse_spec(attrs["spec"], len(operands))
    elif node.op == "reduce" and attrs["kind"] == "sum":
        letters = ascii_lowercase[: graph.type_of(operands[0]).rank]
        inputs = (letters,)
        output = "".join(c for axis, c in enumerate(letters) if axis not in attrs["axes"])
    else:
        return None
    held = [v.node in moving for v in operands]
    steady = all(h or v in back.steady for h, v in zip(held, operands, strict=True))
    if not any(held) or not steady:
        return None
    step = next(c for c in ascii_letters if c not in "".join([*inputs, output]))
    parts = [step + part if h else part for h, part in zip(held, inputs, strict=True)]
    length: Any = back.pull.attrs["length"]
    spec = f"{','.join(parts)}->{output if summed else step + output}"
    return spec, operands, shape if summed else (length, *shape)


def _truncation(pull: Pullback, attrs: Any) -> Expr | None:
    """Where the cotangent of a step's carry goes on to the step before, ``bool[T]``."""
    steps = pull.how.truncate
    if steps is None:
        return None
    at = pull.writer.make("iota", size=attrs["length"], dtype="i64")
    at = at.flip(0) if attrs["reverse"] else at
    return ~at.op("mod", steps).same(0) | at.same(0)

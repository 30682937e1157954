"""Gradients of loops that end by themselves: through a fixed point, back through an open loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.types import DTYPES, TensorType
from ..ops.base import gradient_of
from ..ops.expr import Expr, Pullback, Writer
from .body import copy_into, differentiated

ROUNDING = 256
"""Roundings, of a cotangent of size 1, below which no adjoint of a fixed point is asked to come."""

# ---------------------------------------------------------------- fix


@gradient_of("fix")
def _fix(pull: Pullback) -> Sequence[Expr | None]:
    # x = f(x, a) and cotangent v of x: u = v + u df/dx is a fixed point too, and u df/da the
    # cotangent of a (implicit function theorem; Christianson, OMS 1994, two-phase method). It is
    # linear in v: solved for v of size 1, so that the tolerance is a relative one.
    node = pull.writer.graph.node(pull.index)
    attrs: Any = node.attrs
    carries = attrs["n_carry"]
    captures = range(carries, len(pull.x))
    region = node.regions[0]
    at = [*pull.y, *pull.x[carries:]]
    by_state = differentiated(region, range(carries), range(carries), pull.pull)
    back, known, operands = Graph("adjoint"), {}, []
    inner = Writer(back)
    for p in range(carries):
        known[by_state.d[p]] = back.add_input(f"u{p}", pull.y[p].type)
    size = _size([pull.cotangent(p) for p in range(carries)])
    v = [pull.cotangent(p) / size.cast(pull.y[p].dtype) for p in range(carries)]
    starts = [back.add_input(f"v{p}", x.type) for p, x in enumerate(v)]
    operands += [*v, *v]
    for p, x in enumerate(at):
        known[by_state.inputs[p]] = back.add_input(f"a{p}", x.type)
        operands.append(x)
    places = list(by_state.found)
    values = copy_into(back, by_state.graph, [by_state.found[p] for p in places], known)
    made = dict(zip(places, values, strict=True))
    for p in range(carries):
        total = inner.expr(starts[p])
        total = total + inner.expr(made[p]) if p in made else total
        back.set_output(f"u{p}", total.value)
    finest = max(float(np.finfo(DTYPES[x.dtype]).eps) for x in v)
    how = {**attrs, "tol": max(attrs["tol"], ROUNDING * finest)}
    solved = pull.writer.loop("fix", operands, how, back)
    u = [x * size.cast(x.dtype) for x in solved]
    wanted = [p for p in captures if pull.needs[p]]
    by_capture = differentiated(region, wanted, range(carries), pull.pull)
    given = {by_capture.d[p]: u[p].value for p in range(carries)}
    given |= {value: x.value for value, x in zip(by_capture.inputs, at, strict=True)}
    places = list(by_capture.found)
    sources = [by_capture.found[p] for p in places]
    values = copy_into(pull.writer.graph, by_capture.graph, sources, given)
    found: list[Expr | None] = [None] * len(pull.x)
    for p, value in zip(places, values, strict=True):
        found[p] = pull.writer.expr(value)
    return found


def _size(cotangents: Sequence[Expr]) -> Expr:
    """The largest element of all by size, 1 if that is 0; a number to scale by."""
    parts = [d.abs().reduce("max").cast("f64") for d in cotangents]
    total = parts[0]
    for part in parts[1:]:
        total = total.maximum(part)
    return total.same(0).where(1, total).op("stop_gradient")


# ---------------------------------------------------------------- iterate


@gradient_of("iterate")
def _iterate(pull: Pullback) -> Sequence[Expr | None]:
    # Carries are stored step by step in buffers of max_steps rows; the derivative counts back.
    node = pull.writer.graph.node(pull.index)
    attrs: Any = node.attrs
    carries, most = attrs["n_carry"], attrs["max_steps"]
    count, buffers = _recorded(pull, node)
    region = node.regions[0]
    floats = [p for p in range(carries) if pull.y[p].type.is_float]
    wanted = floats + [p for p in range(carries, len(pull.x)) if pull.needs[p]]
    body = differentiated(region, wanted, floats, pull.pull)
    summed = [p for p in range(carries, len(pull.x)) if p in body.found]
    back, known = Graph("backward"), {}
    inner = Writer(back)
    operands = [pull.cotangent(p) for p in floats]
    operands += [pull.x[p].filled(0) for p in summed]
    for p in floats:
        known[body.d[p]] = back.add_input(f"d{p}", pull.y[p].type)
    totals = {p: inner.expr(back.add_input(f"total{p}", pull.x[p].type)) for p in summed}
    left = inner.expr(back.add_input("left", TensorType("i64", ())))
    operands.append(count)
    row = left - 1
    for p, buffer in enumerate(buffers):
        held = inner.expr(back.add_input(f"buffer{p}", buffer.type))
        known[body.inputs[p]] = held.op("take", row, axis=0).value
        operands.append(buffer)
    for p in range(carries, len(pull.x)):
        known[body.inputs[p]] = back.add_input(f"capture{p}", pull.x[p].type)
        operands.append(pull.x[p])
    places = list(body.found)
    values = copy_into(back, body.graph, [body.found[p] for p in places], known)
    made = {p: inner.expr(value) for p, value in zip(places, values, strict=True)}
    for p in floats:
        kind = pull.y[p].type
        d = made.get(p) or inner.fill(kind.shape, 0, kind.dtype)
        back.set_output(f"d{p}", d.value)
    for p in summed:
        back.set_output(f"total{p}", (totals[p] + made[p]).value)
    back.set_output("left", row.value)
    back.set_output("stop", (row <= 0).value)
    how = {"n_carry": len(floats) + len(summed) + 1, "max_steps": most}
    results = pull.writer.loop("iterate", operands, how, back)
    found: list[Expr | None] = [None] * len(pull.x)
    for p, d in zip((*floats, *summed), results, strict=False):
        found[p] = d
    return found


def _recorded(pull: Pullback, node: Node) -> tuple[Expr, list[Expr]]:
    """Put a loop in the loop's place that also counts its steps and stores what each began with."""
    attrs: Any = node.attrs
    carries, most = attrs["n_carry"], attrs["max_steps"]
    source, region, writer = node.regions[0], Graph(node.regions[0].name), pull.writer
    inner, known = Writer(region), {}
    types = [source.node(index).type for index in source.inputs]
    before = [region.add_input(f"carry{p}", types[p]) for p in range(carries)]
    step = inner.expr(region.add_input("step", TensorType("i64", ())))
    held = [
        inner.expr(region.add_input(f"buffer{p}", kind.with_shape((most, *kind.shape))))
        for p, kind in enumerate(types[:carries])
    ]
    captures = [region.add_input(f"capture{p}", types[p]) for p in range(carries, len(types))]
    for index, value in zip(source.inputs, [*before, *captures], strict=True):
        known[Value(index)] = value
    outputs = copy_into(region, source, [value for _, value in source.outputs], known)
    for p in range(carries):
        region.set_output(f"carry{p}", outputs[p])
    region.set_output("step", (step + 1).value)
    for p, (buffer, value) in enumerate(zip(held, before, strict=True)):
        row = inner.expr(value).unsqueeze(0)
        region.set_output(f"buffer{p}", buffer.op("scatter_add", step.unsqueeze(0), row).value)
    region.set_output("stop", outputs[carries])
    start = writer.fill((), 0, "i64")
    empty = [writer.fill((most, *kind.shape), 0, kind.dtype) for kind in types[:carries]]
    operands = [*pull.x[:carries], start, *empty, *pull.x[carries:]]
    how = {"n_carry": 2 * carries + 1, "max_steps": most}
    made = writer.loop("iterate", operands, how, region)
    for old, new in zip(pull.y, made, strict=False):
        writer.graph.replace_uses(old.value, new.value)
    return made[carries], list(made[carries + 1 :])

"""Derivatives of a scalar: added to a graph, put out by one, or in place of ``grad`` nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir.graph import Graph, Value
from ..ops.base import OpError
from ..ops.expr import How, Writer
from .sweep import PLAIN, pull_back


def gradients(graph: Graph, of: Value, wrt: Sequence[Value], how: How = PLAIN) -> list[Value]:
    """Add nodes for the derivatives of a scalar; zeros for a value that it does not depend on.

    The graph changes in place; what was there keeps its meaning. Loops may be replaced by ones
    that also put out what their derivative reads, and all that read them follow. Raises
    :class:`OpError` E101 when ``of`` is no scalar, E104 for whole numbers, E809 for an op that
    cannot be differentiated.
    """
    kind = graph.type_of(of)
    if kind.rank:
        raise OpError("E101", f"a derivative is that of a single number, found {kind}", "sum it")
    for value in (of, *wrt):
        if not graph.type_of(value).is_float:
            found = graph.type_of(value)
            raise OpError("E104", f"only floating-point values have derivatives, found {found}")
    writer = Writer(graph)
    seed = writer.fill((), 1, kind.dtype)
    found = pull_back(writer, {of: seed.value}, wrt, how)
    kinds = [graph.type_of(value) for value in wrt]
    return [
        writer.fill(k.shape, 0, k.dtype).value if d is None else d
        for d, k in zip(found, kinds, strict=True)
    ]


def differentiate(
    graph: Graph, of: Value, wrt: Sequence[Value], names: Sequence[str] = (), how: How = PLAIN
) -> Graph:
    """A graph that puts out what ``graph`` does and then the derivatives of ``of``.

    ``wrt`` are values of ``graph``, usually inputs and weights. Their derivatives are named
    :func:`gradient_name` of ``names``, or of the nodes' names.
    """
    result = graph.copy()
    became = _expand(result)
    names = names or [graph.node(value.node).name for value in wrt]
    of, *wrt = (became.get(value, value) for value in (of, *wrt))
    found = gradients(result, of, wrt, how)
    for name, value in zip(names, found, strict=True):
        result.set_output(gradient_name(name), value)
    result.prune(_weights(result))
    return result


def adjoint(
    graph: Graph, wrt: Sequence[Value], names: Sequence[str] = (), how: How = PLAIN
) -> Graph:
    """A graph with an input ``d(NAME)`` for each output and the cotangents of ``wrt`` they give.

    Every floating-point output counts: the derivatives are those of the sum of all outputs, each
    element times its own of ``d(NAME)``.
    """
    result = graph.copy()
    became = _expand(result)
    names = names or [graph.node(value.node).name for value in wrt]
    seeds: dict[Value, Value] = {}
    writer = Writer(result)
    for name, value in result.outputs:
        if result.type_of(value).is_float:
            d = result.add_input(f"d({name})", result.type_of(value))
            held = seeds.get(value)
            seeds[value] = d if held is None else (writer.expr(held) + writer.expr(d)).value
    wanted = [became.get(value, value) for value in wrt]
    for name, value, d in zip(names, wanted, pull_back(writer, seeds, wanted, how), strict=True):
        kind = result.type_of(value)
        made = writer.fill(kind.shape, 0, kind.dtype).value if d is None else d
        result.set_output(gradient_name(name), made)
    result.prune(_weights(result))
    return result


def gradient_name(name: str) -> str:
    """The name of the output that holds the derivative with respect to ``name``."""
    return f"grad({name})"


def expand_gradients(graph: Graph) -> Graph:
    """A copy whose ``grad`` nodes are replaced by the derivatives that they stand for.

    Inner ones come first, so that a derivative of a derivative finds ordinary ops. Node numbers
    of everything else stay.
    """
    result = graph.copy()
    if _expand(result):
        result.prune(_weights(result))
    return result


def _expand(graph: Graph) -> dict[Value, Value]:
    """Replace ``grad`` nodes in place; what each became."""
    became: dict[Value, Value] = {}
    for index in graph.order():
        node = graph.node(index)
        if node.regions:
            regions = tuple(expand_gradients(region) for region in node.regions)
            graph.set_node(index, replace(node, regions=regions))
        if node.op != "grad":
            continue
        scalar, x = graph.operands(index)
        try:
            (found,) = gradients(graph, scalar, [x])
        except OpError as fault:
            place = f" (for `grad` at {node.span})" if node.span is not None else ""
            raise OpError(fault.code, f"{fault.message}{place}", fault.hint) from fault
        graph.replace_uses(Value(index), found)
        graph.remove(index)
        became[Value(index)] = found
    return became


def _weights(graph: Graph) -> list[int]:
    """Weights stay, read or not: the arrays that fit the model fit what is made of it."""
    return [index for index, _ in graph.of_op("param")]

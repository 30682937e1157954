"""The verifier: whether a graph is well formed and every type is what its op's rule gives."""

from __future__ import annotations

from collections import Counter

from ..ops.base import OPS, OpError, infer
from ..ops.control import WITH_REGION, region_result_types
from ..ops.leaves import LEAVES
from .graph import Graph, Node, content_hash
from .types import DTYPES, TensorType


class VerifyError(Exception):
    """A graph that breaks a rule: the node (``None`` for the graph as a whole) and the reason."""

    def __init__(self, node: int | None, reason: str) -> None:
        super().__init__(reason if node is None else f"node %{node}: {reason}")
        self.node = node
        self.reason = reason


def verify(graph: Graph) -> None:
    """Raise :class:`VerifyError` at the first fault, in canonical order."""
    _verify(graph, is_region=False)


def _verify(graph: Graph, is_region: bool) -> None:
    order = graph.order()
    for index in order:
        _node_at(graph, index)
    if len(order) != len(graph):
        raise VerifyError(None, "the graph has a cycle or a reader of a node that does not exist")
    _check_edges(graph, order)
    for index in order:
        node = graph.node(index)
        if node.op in LEAVES:
            _check_leaf(graph, index, node, is_region)
        else:
            _check_op(graph, index, node)
    _check_interface(graph)


def _node_at(graph: Graph, index: int) -> Node:
    try:
        node = graph.node(index)
    except KeyError as fault:
        raise VerifyError(index, "is read but does not exist") from fault
    if node.op not in OPS:
        raise VerifyError(index, f"{node.op} is not an op")
    return node


def _check_edges(graph: Graph, order: list[int]) -> None:
    """Every edge reads a result that exists, and operand positions have no gap."""
    positions: dict[int, list[int]] = {index: [] for index in order}
    for index in order:
        results = len(graph.node(index).types)
        for user, position, result in graph.users(index):
            if not 0 <= result < results:
                raise VerifyError(user, f"reads result {result} of %{index}, which has {results}")
            positions[user].append(position)
    for index, found in positions.items():
        if sorted(found) != list(range(len(found))):
            raise VerifyError(index, f"operand positions {sorted(found)} have a gap or repeat")


def _check_leaf(graph: Graph, index: int, node: Node, is_region: bool) -> None:
    if graph.operands(index):
        raise VerifyError(index, f"{node.op} takes no operands")
    if len(node.types) != 1:
        raise VerifyError(index, f"{node.op} has one result, found {len(node.types)}")
    if node.op == "input" and index not in graph.inputs:
        raise VerifyError(index, f"input {node.name!r} is not among the graph's inputs")
    if node.op == "param" and is_region:
        raise VerifyError(index, "a weight inside a region; it must come in as a capture")
    if node.op == "param" and not node.attrs.get("path"):
        raise VerifyError(index, "a weight without a path")
    if node.op == "constant":
        _check_constant(graph, index, node)


def _check_constant(graph: Graph, index: int, node: Node) -> None:
    digest = node.attrs.get("hash")
    array = graph.constants.get(str(digest))
    if array is None:
        raise VerifyError(index, f"constant {digest} is not in the table")
    if content_hash(array) != digest:
        raise VerifyError(index, f"constant {digest} does not have the content of its hash")
    if array.shape != node.type.shape or array.dtype != DTYPES[node.type.dtype]:
        raise VerifyError(index, f"constant is {array.dtype}{list(array.shape)}, not {node.type}")


def _check_op(graph: Graph, index: int, node: Node) -> None:
    op, operands = OPS[node.op], graph.operands(index)
    fewest = sum(1 for o in op.operands if not o.optional and not o.variadic)
    most = None if any(o.variadic for o in op.operands) else len(op.operands)
    if len(operands) < fewest or (most is not None and len(operands) > most):
        raise VerifyError(index, f"{node.op} does not take {len(operands)} operands")
    missing = [name for name in op.attrs if name not in node.attrs]
    unknown = [name for name in node.attrs if name not in op.attrs]
    if missing or unknown:
        raise VerifyError(index, f"{node.op} lacks {missing} and does not know {unknown}")
    types = [graph.type_of(value) for value in operands]
    try:
        expected = _expected_types(index, node, types)
    except OpError as fault:
        raise VerifyError(index, f"{node.op}: {fault.code} {fault.message}") from fault
    if tuple(node.types) != expected:
        found, wanted = (", ".join(str(k) for k in kinds) for kinds in (node.types, expected))
        raise VerifyError(index, f"{node.op} is declared {found} but gives {wanted}")


def _expected_types(index: int, node: Node, types: list[TensorType]) -> tuple[TensorType, ...]:
    if node.op not in WITH_REGION:
        if node.regions:
            raise VerifyError(index, f"{node.op} has no regions")
        return infer(node.op, types, node.attrs)
    if len(node.regions) != 1:
        raise VerifyError(index, f"{node.op} has one region, found {len(node.regions)}")
    try:
        _verify(node.regions[0], is_region=True)
    except VerifyError as fault:
        raise VerifyError(index, f"in its region: {fault}") from fault
    return region_result_types(node.op, types, node.attrs, node.regions[0])


def _check_interface(graph: Graph) -> None:
    for index in graph.inputs:
        if index not in graph or graph.node(index).op != "input":
            raise VerifyError(index, "is listed as an input but is not one")
    names = Counter(graph.node(index).name for index in graph.inputs)
    for listed, what in (
        (Counter(graph.inputs), "input"),
        (names, "input name"),
        (Counter(name for name, _ in graph.outputs), "output name"),
    ):
        for item, count in listed.items():
            if count > 1:
                raise VerifyError(None, f"{what} {item!r} is listed twice")
    for name, value in graph.outputs:
        if value.node not in graph:
            raise VerifyError(value.node, f"output {name!r} reads a node that does not exist")
        if not 0 <= value.result < len(graph.node(value.node).types):
            raise VerifyError(value.node, f"output {name!r} reads result {value.result}")

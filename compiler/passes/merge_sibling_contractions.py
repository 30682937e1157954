"""Merge sibling contractions: products that share an operand become one, split afterwards.

Before::

    %3 = linear(%x, %W_f)
    %4 = linear(%x, %W_i)

After::

    %2 = concat(%W_f, %W_i) {axis=0}          # before any call: weights only
    %5 = linear(%x, %2)
    %6:2 = split(%5) {axis=-1}                # %3 and %4
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..ir.dims import DimLike
from ..ir.graph import Value
from ..ops.contract import parse_spec
from ..options import Options
from ..rewrite import Rewriter, within_loops


@dataclass(frozen=True)
class _Product:
    """A product of a shared operand with weights of its own.

    ``axis`` is where the weights are joined, ``split`` where the result is taken apart; nodes with
    equal ``key`` differ in nothing else.
    """

    node: int
    key: Hashable
    weights: tuple[int, ...]
    axis: int
    split: int
    size: DimLike


def merge_sibling_contractions(rewriter: Rewriter, options: Options) -> None:
    """Merge linear layers and contractions over one value whose weights are known beforehand."""
    within_loops(rewriter, lambda inner: merge_sibling_contractions(inner, options))
    families: dict[Hashable, list[_Product]] = {}
    for index in rewriter.of_op("linear", "contract"):
        found = _product(rewriter, index)
        if found is not None:
            families.setdefault(found.key, []).append(found)
    for family in families.values():
        if len(family) > 1:
            _merge(rewriter, family)


def _product(rewriter: Rewriter, index: int) -> _Product | None:
    node, operands = rewriter.node(index), rewriter.operands(index)
    if node.op == "linear":
        x, *weights = operands
        if rewriter.steady(x) or not all(map(rewriter.steady, weights)):
            return None
        size = rewriter.type_of(weights[0]).shape[0]
        key = ("linear", x, len(weights), node.type.dtype)
        return _Product(index, key, tuple(range(1, len(operands))), 0, node.type.rank - 1, size)
    if len(operands) != 2:
        return None
    early = [place for place in (0, 1) if rewriter.steady(operands[place])]
    return _contraction(rewriter, index, early[0]) if len(early) == 1 else None


def _contraction(rewriter: Rewriter, index: int, place: int) -> _Product | None:
    node, operands = rewriter.node(index), rewriter.operands(index)
    inputs, output = parse_spec(str(node.attrs["spec"]), 2)
    own = [c for c in output if c in inputs[place] and c not in inputs[1 - place]]
    if not own or len(set(inputs[place])) != len(inputs[place]):
        return None
    axis = inputs[place].index(own[0])
    shape = rewriter.type_of(operands[place]).shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    attrs = (node.attrs["semiring"], node.attrs["spec"])
    key = ("contract", operands[1 - place], place, rest, attrs, node.type.dtype)
    return _Product(index, key, (place,), axis, output.index(own[0]), shape[axis])


def _merge(rewriter: Rewriter, family: Sequence[_Product]) -> None:
    first = family[0]
    operands = list(rewriter.operands(first.node))
    for place in first.weights:
        parts = [rewriter.operands(product.node)[place] for product in family]
        operands[place] = rewriter.emit("concat", parts, {"axis": first.axis})
    node = rewriter.node(first.node)
    joined = rewriter.emit(node.op, operands, node.attrs, like=first.node)
    sizes = tuple(product.size for product in family)
    parts = rewriter.emit("split", (joined,), {"axis": first.split, "sizes": sizes})
    for place, product in enumerate(family):
        rewriter.replace(Value(product.node), Value(parts.node, place))

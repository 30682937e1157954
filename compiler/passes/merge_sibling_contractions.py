"""Merge sibling contractions: products that share an operand become one, split afterwards.

Before::

    %3 = linear(%x, %W_f)
    %4 = linear(%x, %W_i)

After::

    %2 = concat(%W_f, %W_i) {axis=0}          # before any call: weights only
    %5 = linear(%x, %2)
    %6:2 = split(%5) {axis=-1}                # %3 and %4

A scan that reads all parts of such a product row by row reads the product's rows instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..ir.dims import DimLike
from ..ir.graph import Graph, Value
from ..ops.contract import parse_spec
from ..options import Options
from ..rewrite import Rewriter, n_carry, n_xs, within_loops
from .loops import add_region_input, replace_loop


@dataclass(frozen=True)
class _Product:
    """A product of a shared operand with weights of its own.

    The weights are operand ``place``, joined along ``axis``; the result is taken apart along
    ``split``. Nodes with equal ``key`` differ in nothing else but a bias.
    """

    node: int
    key: Hashable
    axis: int
    split: int
    size: DimLike
    place: int = 1


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
            _merge(rewriter, sorted(family, key=lambda product: _as_written(rewriter, product)))
    for index in rewriter.of_op("scan"):
        _read_whole_rows(rewriter, index)


# ---------------------------------------------------------------- finding siblings


def _product(rewriter: Rewriter, index: int) -> _Product | None:
    node, operands = rewriter.node(index), rewriter.operands(index)
    if node.op == "linear":
        x, *weights = operands
        if rewriter.steady(x) or not all(map(rewriter.steady, weights)):
            return None
        size = rewriter.type_of(weights[0]).shape[0]
        key = ("linear", x, node.type.dtype)
        return _Product(index, key, 0, node.type.rank - 1, size)
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
    # The letter that the result ends with, if any, leaves parts that lie side by side.
    letter = own[-1]
    axis = inputs[place].index(letter)
    shape = rewriter.type_of(operands[place]).shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    attrs = (node.attrs["semiring"], node.attrs["spec"])
    key = ("contract", operands[1 - place], place, rest, attrs, node.type.dtype)
    return _Product(index, key, axis, output.index(letter), shape[axis], place)


# ---------------------------------------------------------------- merging


def _merge(rewriter: Rewriter, family: Sequence[_Product]) -> None:
    first = family[0]
    operands = list(rewriter.operands(first.node))[:2]
    parts = [rewriter.operands(product.node)[first.place] for product in family]
    operands[first.place] = rewriter.emit("concat", parts, {"axis": first.axis})
    if any(len(rewriter.operands(product.node)) > 2 for product in family):
        biases = [_bias(rewriter, product) for product in family]
        operands.append(rewriter.emit("concat", biases, {"axis": 0}))
    node = rewriter.node(first.node)
    joined = rewriter.emit(node.op, operands, node.attrs, like=first.node)
    sizes = tuple(product.size for product in family)
    parts = rewriter.emit("split", (joined,), {"axis": first.split, "sizes": sizes})
    for place, product in enumerate(family):
        rewriter.replace(Value(product.node), Value(parts.node, place))


def _as_written(rewriter: Rewriter, product: _Product) -> tuple[int, int, int]:
    """Where the product stands in the spec: then gates lie in one order wherever they are made."""
    span = rewriter.node(product.node).span
    return (span.line, span.column, product.node) if span else (0, 0, product.node)


def _bias(rewriter: Rewriter, product: _Product) -> Value:
    """The bias of a linear layer, zeros where it has none."""
    operands = rewriter.operands(product.node)
    if len(operands) > 2:
        return operands[2]
    dtype = rewriter.node(product.node).type.dtype
    return rewriter.emit("fill", (), {"shape": (product.size,), "value": 0.0, "dtype": dtype})


# ---------------------------------------------------------------- scans


def _read_whole_rows(rewriter: Rewriter, index: int) -> None:
    """Let a scan that reads all parts of a split read their source, and split each row."""
    node, operands = rewriter.node(index), list(rewriter.operands(index))
    first, rows = n_carry(node), n_xs(node)
    stacks = operands[first : first + rows]
    whole = [n for n in dict.fromkeys(v.node for v in stacks) if _reads_all(rewriter, n, stacks)]
    if not whole:
        return
    region, kept, inputs = node.regions[0].copy(), [], []
    for stack, inner in zip(stacks, region.inputs[first : first + rows], strict=True):
        if stack.node not in whole:
            kept.append(stack)
            inputs.append(inner)
    for split in whole:
        (source,) = rewriter.operands(split)
        kept.append(source)
        inputs.append(_split_row(rewriter, region, split, stacks, first))
    region.inputs[first : first + rows] = inputs
    region.prune()
    replace_loop(
        rewriter, index, region, [*operands[:first], *kept, *operands[first + rows :]], len(kept)
    )


def _reads_all(rewriter: Rewriter, split: int, stacks: Sequence[Value]) -> bool:
    """Whether the stacks hold each part of a split once, and the split leaves steps whole."""
    node = rewriter.node(split)
    if node.op != "split" or node.attrs["axis"] == 0:
        return False
    read = sorted(value.result for value in stacks if value.node == split)
    return read == list(range(len(node.types)))


def _split_row(
    rewriter: Rewriter, region: Graph, split: int, stacks: Sequence[Value], first: int
) -> int:
    """Split a row of the source inside the region; the number of the input that is the row."""
    node = rewriter.node(split)
    kind = rewriter.type_of(rewriter.operands(split)[0])
    row = add_region_input(region, "x", kind.with_shape(kind.shape[1:]))
    region.inputs.pop()
    attrs = {**node.attrs, "axis": int(node.attrs["axis"]) - 1}  # type: ignore[arg-type]
    types = [part.with_shape(part.shape[1:]) for part in node.types]
    made = region.add("split", (row,), attrs, types, node.name, node.span)
    for place, value in enumerate(stacks):
        if value.node == split:
            inner = Value(region.inputs[first + place])
            region.replace_uses(inner, Value(made, value.result))
    return row.node

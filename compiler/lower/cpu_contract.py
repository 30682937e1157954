"""Contractions over semirings, and the matrix product, as loop nests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...runtime.kernels.pointwise import Writer, row_major
from ..ir.graph import Node, Value
from ..ops.contract import parse_spec
from .cpu import Lowering, rule
from .cpu_linear import back_product, outer_product
from .cpu_nest import Strided, Walk, emit_nest
from .storage import Flat

SEMIRINGS = {
    "sum_product": ("mul", "sum"),
    "max_product": ("mul", "max"),
    "min_product": ("mul", "min"),
    "max_plus": ("add", "max"),
    "min_plus": ("add", "min"),
    "lse_plus": ("add", "lse"),
}
"""How operands join and how letters vanish."""

DISTRIBUTIVE = ("sum_product", "max_plus", "min_plus", "lse_plus")
"""Where operands may be joined two by two; a maximum of products of either sign is not one."""


@rule("contract")
def lower_contract(state: Lowering, index: int, node: Node) -> None:
    """Operands joined where letters meet; many of them two by two."""
    semiring = str(node.attrs["semiring"])
    operands = [state.view(v) for v in state.graph.operands(index)]
    parts, output = parse_spec(str(node.attrs["spec"]), len(operands))
    product = _dense_product(parts, output) if semiring == "sum_product" else None
    if product is not None and node.type.dtype == "f32":
        d, x = (state.flat(v) for v in state.graph.operands(index))
        product(state, index, node.name or node.op, d, x)
        return
    terms = list(zip(parts, operands, strict=True))
    if len(terms) > 2 and semiring in DISTRIBUTIVE:
        terms = _pairwise(state, terms, output, semiring, node.name)
    contract(state, terms, output, state.new_flat(Value(index)), semiring, node.name or "contract")


def _dense_product(parts: Sequence[str], output: str) -> Callable[..., None] | None:
    """The kernel of ``ao,oi->ai`` or ``ao,ai->oi``: a dense layer's way back."""
    if [len(part) for part in parts] != [2, 2] or len({*parts[0], *parts[1]}) != 3:
        return None
    (a, o), (first, i) = parts
    if first == o and output == a + i:
        return back_product
    return outer_product if first == a and output == o + i else None


Term = tuple[str, Flat]


def _pairwise(
    state: Lowering, terms: list[Term], output: str, semiring: str, name: str
) -> list[Term]:
    """Terms after joining pairs until two are left, in the order that costs least."""
    spec = ",".join(letters for letters, _ in terms) + "->" + output
    shapes = [np.broadcast_to(np.empty((), np.float32), view.shape) for _, view in terms]
    path, _ = np.einsum_path(spec, *shapes, optimize="greedy")
    for pair in path[1:-1]:
        chosen = [terms[i] for i in pair]
        rest = [term for i, term in enumerate(terms) if i not in pair]
        needed = set(output).union(*(letters for letters, _ in rest))
        joined = "".join(dict.fromkeys("".join(letters for letters, _ in chosen)))
        kept = "".join(letter for letter in joined if letter in needed)
        sizes = _sizes(chosen)
        made = state.loose_flat([sizes[c] for c in kept], chosen[0][1].dtype)
        contract(state, chosen, kept, made, semiring, name or "contract")
        terms = [*rest, (kept, made)]
    return terms


def _sizes(terms: Sequence[Term]) -> dict[str, int]:
    return {c: n for letters, view in terms for c, n in zip(letters, view.shape, strict=True)}


def contract(
    state: Lowering, terms: Sequence[Term], output: str, out: Flat, semiring: str, name: str
) -> None:
    """One nest: the result's letters are kept, all others folded."""
    sizes = _sizes(terms)
    folded = [c for c in sizes if c not in output]
    order = [*output, *folded]
    writer = Writer()
    times, plus = SEMIRINGS[semiring]
    total = ""
    operands = []
    for letters, view in terms:
        operand = writer.argument(view.dtype)
        total = writer.apply(times, [total, operand]) if total else operand
        # A letter that an operand has twice walks its diagonal.
        steps = {c: 0 for c in order}
        for letter, step in zip(letters, view.strides, strict=True):
            steps[letter] += step
        operands.append(Strided(view.place, tuple(steps[c] for c in order), view.dtype))
    own = dict(zip(output, row_major(out.shape) if out.contiguous else out.strides, strict=True))
    result = Strided(out.place, tuple(own.get(c, 0) for c in order), out.dtype)
    walk = Walk(
        tuple(sizes[c] for c in order), tuple(range(len(output), len(order))), tuple(operands),
        (result,), writer.finish(total), (), plus if folded else "", 1.0, wide=len(terms) == 1,
    )  # fmt: skip
    emit_nest(state, walk, name)


@rule("matmul")
def lower_matmul(state: Lowering, index: int, node: Node) -> None:
    """The matrix product of trailing axes; leading ones broadcast, vectors as in numpy."""
    a, b = (state.view(v) for v in state.graph.operands(index))
    out = state.new_flat(Value(index))
    batch = "abcdefgh"
    left = "m" if len(a.shape) > 1 else ""
    right = "n" if len(b.shape) > 1 else ""
    lead = len(out.shape) - len(left) - len(right)
    terms = []
    for view, tail in ((a, f"{left}k"), (b, f"k{right}")):
        own = len(view.shape) - len(tail)
        letters = batch[lead - own : lead] + tail
        shape = [
            n if n != 1 or c in tail else out.shape[batch.index(c)]
            for c, n in zip(letters, view.shape, strict=True)
        ]
        steps = [0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True)]
        terms.append((letters, Flat(view.place, tuple(shape), view.dtype, tuple(steps))))
    contract(state, terms, batch[:lead] + left + right, out, "sum_product", node.name or "matmul")

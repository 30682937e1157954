"""Random draws by counter, and permutations made by sorting them."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.kernels import along, draws
from ...runtime.philox import path_hash
from ..ir.graph import Node, Value
from ..ops import OpError
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .storage import Flat


def draw(
    state: Lowering, key: Flat, path: str, kind: str, out: Flat, dtype: str, p: Flat | None = None
) -> None:
    """``out`` holds the draws of a path."""
    count = prod(out.shape)
    if not count:
        return
    signed = path_hash(path)
    words = {
        "key": key.place, "y": out.place, "p": p.place if p else 0, "count": count,
        "size": p.shape[-1] if p else 0, "per_task": draws.PAIRS,
        "hash": signed - (1 << 64) if signed >> 63 else signed,
    }  # fmt: skip
    kernel = draws.DrawKernel(kind, dtype)
    state.emit(kernel, draws.tasks(count), draws.WORDS, words, path)


@rule("random_bits", "random_uniform", "random_normal")
def lower_draw(state: Lowering, index: int, node: Node) -> None:
    """Elements drawn by their number."""
    if node.type.dtype not in draws.SIZES:
        raise OpError("E804", f"there is no CPU kernel to draw {node.type.dtype}")
    key = state.flat(state.graph.operands(index)[0])
    kind = node.op.removeprefix("random_")
    draw(state, key, str(node.attrs["path"]), kind, state.new_flat(Value(index)), node.type.dtype)


@rule("random_categorical")
def lower_categorical(state: Lowering, index: int, node: Node) -> None:
    """An index for each row of weights."""
    p, key = (state.flat(v) for v in state.graph.operands(index))
    draw(state, key, str(node.attrs["path"]), "index", state.new_flat(Value(index)), p.dtype, p)


@rule("random_permutation")
def lower_permutation(state: Lowering, index: int, node: Node) -> None:
    """The stable order of random bits."""
    attrs: Any = node.attrs
    key, out = state.flat(state.graph.operands(index)[0]), state.new_flat(Value(index))
    bits = state.loose_flat(out.shape, "i64")
    draw(state, key, attrs["path"], "order", bits, "i64")
    size = out.shape[0]
    words = {
        "x": bits.place, "places": out.place, "lines": 1, "inner": 1, "size": size, "kept": size,
        "outer_step": size * 8, "step": 8, "per_task": 1, "scratch": SCRATCH,
        "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = along.SortKernel("i64", False, False, True)
    state.emit(kernel, 1, along.SORT_WORDS, words, attrs["path"], along.sort_scratch(size))

"""Linear algebra to rows: factorisations and solutions of small matrices."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.kernels import matrix
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .cpu_nest import under
from .cpu_views import compact
from .storage import Flat

FAULTS = {
    "cholesky": "the matrix is not positive definite",
    "inverse": "singular matrix",
    "solve": "singular matrix",
}


@rule("cholesky", "inverse", "det", "logdet", "solve", "triangular_solve")
def lower_matrix(state: Lowering, index: int, node: Node) -> None:
    """One matrix of the batch a task."""
    operands = [state.view(v) for v in state.graph.operands(index)]
    out = state.new_flat(Value(index))
    n, a = operands[0].shape[-1], operands[0]
    is_vector = len(operands) == 2 and len(operands[1].shape) < len(a.shape)
    columns, batch, b = n, a.shape[:-2], None
    if len(operands) == 2:
        columns = 1 if is_vector else operands[1].shape[-1]
        batch = out.shape[: len(out.shape) - (1 if is_vector else 2)]
        b = _batched(state, operands[1], batch, 1 if is_vector else 2)
    count = prod(batch)
    if not count or not n:
        return
    a = _batched(state, a, batch, 2)
    unit = DTYPES[a.dtype].itemsize
    fault: Any = 0
    if node.op in FAULTS:
        fault = state.check("E408", f"{node.op}: {FAULTS[node.op]}")
    words = {
        "a": a.place, "b": b.place if b else 0, "y": out.place, "n": n, "columns": columns,
        "a_step": n * n * unit, "b_step": n * columns * unit, "fault": fault,
        "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = matrix.MatrixKernel(node.op, a.dtype, bool(node.attrs.get("lower", False)))
    state.emit(kernel, count, matrix.WORDS, words, node.name or node.op,
               matrix.scratch_bytes(n, columns))  # fmt: skip


def _batched(state: Lowering, view: Flat, batch: tuple[int, ...], own: int) -> Flat:
    """A batch of matrices one after the other, repeated where it broadcasts."""
    shape = (*batch, *view.shape[len(view.shape) - own :])
    wide = Flat(view.place, shape, view.dtype, under(view, shape).strides)
    return wide if wide.contiguous else compact(state, wide)

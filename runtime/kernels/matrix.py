"""Linear algebra over a batch of small matrices: a task does one of them, in float64."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["a", "b", "y", "n", "columns", "a_step", "b_step", "fault", "scratch", "scratch_slot"]
"""Matrices a [n, n] and right-hand sides b [n, columns], ``*_step`` bytes from one to the next (0
where one serves all). ``fault`` is set when a matrix has no answer."""

SIZES = {"f32": 4, "f64": 8}


def scratch_bytes(n: int, columns: int) -> int:
    """Bytes of one matrix and its right-hand sides in float64."""
    return 8 * n * (n + max(columns, n))


@dataclass(frozen=True)
class MatrixKernel:
    """``op`` is that of the op table; ``lower`` belongs to ``triangular_solve``."""

    op: str
    dtype: str
    lower: bool = False

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.op}_{self.dtype}{'_lower' if self.lower else ''}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = SIZES[self.dtype]
        return "\n".join([
            f'"""{self.op} of matrices."""',
            "from numba import float32, float64",
            "from tilth.runtime.kernels import matrix_math as m",
            "from tilth.runtime.simd import load_i64, store_f64, store_i64,"
            f" load_{self.dtype} as load, store_{self.dtype} as store",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    left = scratch + slot * scratch_slot",
            "    right = left + n * n * 8",
            "    for i in range(n * n):",
            f"        store_f64(left + i * 8, float64(load(a + task * a_step + i * {size})))",
            *("    " + line for line in self._body(size)),
        ]) + "\n"  # fmt: skip

    def _body(self, size: int) -> list[str]:
        cast = "float32" if self.dtype == "f32" else "float64"

        def write(source: str, count: str) -> list[str]:
            return [
                f"for i in range({count}):",
                f"    store(y + (task * {count} + i) * {size},"
                f" {cast}(m.get({source}, {count}, 0, i)))",
            ]

        place = f"b + task * b_step + i * {size}"
        read = ["for i in range(n * columns):",
                f"    store_f64(right + i * 8, float64(load({place})))"]  # fmt: skip
        failed = ["    store_i64(fault, task + 1)"]
        if self.op == "cholesky":
            return ["if not m.cholesky(left, n):", *failed, *write("left", "(n * n)")]
        if self.op in ("det", "logdet"):
            return [
                "sign = m.eliminate(left, n, right, 0)",
                f"value = m.determinant(left, n, sign, {self.op == 'logdet'})",
                f"store(y + task * {size}, {cast}(value))",
            ]
        if self.op == "triangular_solve":
            return [*read, f"m.substitute(left, n, right, columns, {self.lower})",
                    *write("right", "(n * columns)")]  # fmt: skip
        begin = ["m.set_identity(right, n)"] if self.op == "inverse" else read
        return [
            *begin,
            "m.eliminate(left, n, right, columns)",
            "if m.is_singular(left, n):",
            *failed,
            "m.substitute(left, n, right, columns, False)",
            *write("right", "(n * columns)"),
        ]

"""Dense linear algebra on small matrices of float64 in memory, one element at a time.

Matrices are row-major at byte addresses. Golub and Van Loan, Matrix Computations, 4th edition:
algorithms 3.4.1 (elimination with partial pivoting) and 4.2.1 (Cholesky).
"""

from __future__ import annotations

import math

from numba import float64, int64, njit

from ..simd import load_f64, store_f64


@njit(error_model="numpy")
def get(a, n, i, j):
    """Element (i, j) of a matrix of ``n`` columns."""
    return load_f64(a + (i * n + j) * 8)


@njit(error_model="numpy")
def put(a, n, i, j, value):
    """Set element (i, j)."""
    store_f64(a + (i * n + j) * 8, value)


@njit(error_model="numpy")
def cholesky(a, n):
    """The lower triangle L with L L^T = a, in place, zeros above; whether there is one."""
    for j in range(n):
        total = get(a, n, j, j)
        for k in range(j):
            total -= get(a, n, j, k) * get(a, n, j, k)
        if not total > 0.0:
            return False
        root = math.sqrt(total)
        put(a, n, j, j, root)
        for i in range(j + 1, n):
            total = get(a, n, i, j)
            for k in range(j):
                total -= get(a, n, i, k) * get(a, n, j, k)
            put(a, n, i, j, total / root)
        for k in range(j + 1, n):
            put(a, n, j, k, 0.0)
    return True


@njit(error_model="numpy")
def swap_rows(a, n, i, j):
    """Exchange two rows."""
    for k in range(n):
        value = get(a, n, i, k)
        put(a, n, i, k, get(a, n, j, k))
        put(a, n, j, k, value)


@njit(error_model="numpy")
def eliminate(a, n, b, columns):
    """Bring a to triangular form, and b by the same steps; the sign of the rows' exchanges."""
    sign = 1.0
    for j in range(n):
        best = j
        for i in range(j + 1, n):
            if abs(get(a, n, i, j)) > abs(get(a, n, best, j)):
                best = i
        if best != j:
            swap_rows(a, n, j, best)
            swap_rows(b, columns, j, best)
            sign = -sign
        pivot = get(a, n, j, j)
        if pivot == 0.0:
            continue
        for i in range(j + 1, n):
            factor = get(a, n, i, j) / pivot
            if factor != 0.0:
                for k in range(j, n):
                    put(a, n, i, k, get(a, n, i, k) - factor * get(a, n, j, k))
                for k in range(columns):
                    put(b, columns, i, k, get(b, columns, i, k) - factor * get(b, columns, j, k))
    return sign


@njit(error_model="numpy")
def substitute(a, n, b, columns, lower):
    """Solve a triangular system in place of b."""
    for step in range(n):
        i = step if lower else n - 1 - step
        first, last = (0, i) if lower else (i + 1, n)
        for k in range(columns):
            total = get(b, columns, i, k)
            for j in range(first, last):
                total -= get(a, n, i, j) * get(b, columns, j, k)
            put(b, columns, i, k, total / get(a, n, i, i))


@njit(error_model="numpy")
def is_singular(a, n):
    """Whether a triangular matrix has a zero on its diagonal."""
    found = False
    for i in range(n):
        found = found or get(a, n, i, i) == 0.0
    return found


@njit(error_model="numpy")
def determinant(a, n, sign, logarithm):
    """The determinant of a triangular matrix times ``sign``, or its logarithm.

    The logarithm is -inf for 0 and NaN for a negative determinant.
    """
    total = float64(0.0) if logarithm else float64(sign)
    for i in range(n):
        value = get(a, n, i, i)
        if logarithm:
            sign = -sign if value < 0.0 else sign
            total += math.log(abs(value)) if value != 0.0 else -math.inf
        else:
            total *= value
    if logarithm and sign < 0.0 and total > -math.inf:
        return math.nan
    return total


@njit(error_model="numpy")
def set_identity(b, n):
    """The identity matrix."""
    for i in range(int64(n)):
        for j in range(int64(n)):
            put(b, n, i, j, 1.0 if i == j else 0.0)

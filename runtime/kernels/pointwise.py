"""Generator of element-wise kernels: an expression in SSA form becomes one streaming loop.

An :class:`Expression` names its values: ``a0, a1, ...`` are arrays, ``k0, k1, ...`` constants whose
values lie in the row, ``t0, t1, ...`` the results of its steps in order. Kernels are keyed by that
structure and by how operands broadcast, never by a size or a constant's value.

All arrays are walked as ``outer`` indices times one *run* of contiguous result elements, which
:func:`places` finds for any broadcasting. Along the run an operand is

* ``full`` - contiguous like the result,
* ``lanes`` - 16 values that repeat every 16 elements (a channel vector on blocked tensors),
* ``one`` - a single value,
* ``strided`` - a step of its own (views, transposes).

float32, float64 and truth values (bytes, 0 or 1) are computed on vectors; an expression that
touches whole numbers or strided operands is computed one element at a time.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from . import indices
from .elements import (
    SCALAR_BOOL,
    SCALAR_FLOAT,
    SCALAR_WHOLE,
    TRUTHS,
    VECTOR_BOOL,
    VECTOR_FLOAT,
)

WORDS = ("run", "chunk", "chunks", "pieces", "per_task")
"""The row begins so: elements of a run, of a piece of it, pieces in a run, pieces in all, pieces a
task does. Then the outer sizes; for each array its address and its byte strides along the outer
axes (a ``strided`` one also its step along the run); for each result the same; the constants, as
float64 bits or whole numbers."""

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u64": 8, "u8": 1, "bool": 1}
"""Bytes of the element types that kernels know; ``u64`` is only read, and cast to another."""

BLOCK = 16
CHUNK = 4096
"""Elements of a piece of a long run: small enough to share, large enough to forget its start."""


@dataclass(frozen=True)
class Argument:
    """An array operand: element type and how it is read along the run."""

    dtype: str
    access: str = "full"


@dataclass(frozen=True)
class Instruction:
    """One step: an op of the tables in ``elements`` on named values, and its result's type."""

    op: str
    operands: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class Expression:
    """What an element-wise kernel computes; ``outputs`` are names of values."""

    arguments: tuple[Argument, ...]
    constants: tuple[str, ...]
    steps: tuple[Instruction, ...]
    outputs: tuple[str, ...]

    def dtype(self, name: str) -> str:
        """The element type of a value."""
        place = int(name[1:])
        if name[0] == "a":
            return self.arguments[place].dtype
        return self.constants[place] if name[0] == "k" else self.steps[place].dtype


# ---------------------------------------------------------------- writing expressions

NUMBERS = {
    "leaky_relu": ("slope",),
    "elu": ("alpha",),
    "polygamma": ("n",),
}
"""Attributes of ops that become constants, after the op's operands."""


@dataclass
class Writer:
    """Collects an expression step by step; ``values`` are the constants' values."""

    arguments: list[Argument] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    steps: list[Instruction] = field(default_factory=list)

    def argument(self, dtype: str, access: str = "full") -> str:
        """Add an array operand; its name."""
        self.arguments.append(Argument(dtype, access))
        return f"a{len(self.arguments) - 1}"

    def constant(self, dtype: str, value: float) -> str:
        """Add a constant; its name."""
        self.constants.append(dtype)
        self.values.append(value)
        return f"k{len(self.constants) - 1}"

    def apply(
        self, op: str, operands: Sequence[str], attrs: Mapping[str, Any] | None = None
    ) -> str:
        """Add an op of the op table with its attributes; its result's name."""
        attrs = attrs or {}
        names = list(operands)
        dtype = self._dtype(names[0])
        if op == "clamp":
            for bound, how in (("min", "at_least"), ("max", "at_most")):
                if attrs[bound] is not None:
                    limit = self.constant(dtype, attrs[bound])
                    names = [self._step(how, (names[0], limit), dtype)]
            return names[0]
        if op == "clamp_backward":
            return self._clamp_backward(names, dtype, attrs)
        if op == "cast":
            return self._step("cast", (names[0],), str(attrs["dtype"]))
        if op == "gelu" and attrs["approximate"] == "tanh":
            op = "gelu_tanh"
        if op == "sigmoid" and attrs["slope"] != 1.0:
            scaled = self._step("mul", (names[0], self.constant(dtype, attrs["slope"])), dtype)
            return self._step("sigmoid", (scaled,), dtype)
        if op == "softplus" and attrs["beta"] != 1.0:
            beta = self.constant(dtype, attrs["beta"])
            scaled = self._step("mul", (names[0], beta), dtype)
            return self._step("div", (self._step("softplus", (scaled,), dtype), beta), dtype)
        if op in NUMBERS:
            names += [self.constant(dtype, float(attrs[name])) for name in NUMBERS[op]]
        result = "bool" if op in TRUTHS else self._dtype(names[1]) if op == "where" else dtype
        return self._step(op, tuple(names), result)

    def _clamp_backward(self, names: list[str], dtype: str, attrs: Mapping[str, Any]) -> str:
        """The second operand where the first lies between the bounds, else 0."""
        low = self.constant(dtype, attrs["low"])
        inside = self._step("gt", (names[0], low), "bool")
        if attrs["high"] is not None:
            below = self._step("lt", (names[0], self.constant(dtype, attrs["high"])), "bool")
            inside = self._step("and", (inside, below), "bool")
        zero = self.constant(dtype, 0.0)
        return self._step("where", (inside, names[1], zero), dtype)

    def finish(self, *outputs: str) -> Expression:
        """The expression with these results."""
        parts = (self.arguments, self.constants, self.steps)
        return Expression(*(tuple(part) for part in parts), outputs)  # type: ignore[arg-type]

    def _step(self, op: str, operands: tuple[str, ...], dtype: str) -> str:
        self.steps.append(Instruction(op, operands, dtype))
        return f"t{len(self.steps) - 1}"

    def _dtype(self, name: str) -> str:
        parts = (tuple(self.arguments), tuple(self.constants), tuple(self.steps))
        return Expression(*parts, ()).dtype(name)


# ---------------------------------------------------------------- broadcasting


@dataclass(frozen=True)
class Places:
    """How arrays lie along the result: outer sizes, the run, and each array's strides in elements.

    ``access`` and ``strides`` have one entry per array; the last stride is the step along the run.
    """

    outer: tuple[int, ...]
    run: int
    access: tuple[str, ...]
    strides: tuple[tuple[int, ...], ...]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a contiguous array."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_strides(shape: Sequence[int], result: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array seen under a result's shape."""
    lead = len(result) - len(shape)
    strides = row_major(shape)
    return (0,) * lead + tuple(
        0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True)
    )


def places(result: Sequence[int], strides: Sequence[Sequence[int]]) -> Places:
    """Collapse a walk over ``result``, whose own array is contiguous.

    ``strides`` are each operand's strides in elements under the result's shape, 0 where it is
    repeated (:func:`broadcast_strides`).
    """
    kept = [axis for axis, size in enumerate(result) if size != 1]
    sizes = [result[axis] for axis in kept]
    steps = [[s[axis] for axis in kept] for s in strides]
    axis = len(sizes) - 2
    while axis >= 0:
        if all(s[axis] == s[axis + 1] * sizes[axis + 1] for s in steps):
            sizes[axis : axis + 2] = [sizes[axis] * sizes[axis + 1]]
            for s in steps:
                del s[axis]
        axis -= 1
    if not sizes:
        sizes, steps = [1], [[0] for _ in steps]
    if sizes[-1] == BLOCK and len(sizes) > 1:
        inner = [(s[-2], s[-1]) for s in steps]
        if all(pair in ((BLOCK, 1), (0, 1), (0, 0)) for pair in inner):
            names = {(BLOCK, 1): "full", (0, 1): "lanes", (0, 0): "one"}
            access = tuple(names[pair] for pair in inner)
            walk = tuple(
                (*s[:-2], int(pair != (0, 0))) for s, pair in zip(steps, inner, strict=True)
            )
            return Places(tuple(sizes[:-2]), sizes[-2] * BLOCK, access, walk)
    known = {0: "one", 1: "full"}
    access = tuple(known.get(s[-1], "strided") if sizes[-1] > 1 else "one" for s in steps)
    return Places(tuple(sizes[:-1]), sizes[-1], access, tuple(tuple(s) for s in steps))


def division(where: Places, grain: int = 4 * CHUNK) -> tuple[int, int, int]:
    """``(chunk, pieces, pieces per task)`` such that a task has about ``grain`` elements."""
    chunk = min(where.run, CHUNK)
    pieces = prod(where.outer) * -(-where.run // chunk)
    return chunk, pieces, max(1, grain // chunk)


def tasks(where: Places) -> int:
    """How many tasks a walk has."""
    _, pieces, per_task = division(where)
    return -(-pieces // per_task)


def words(
    expression: Expression,
    where: Places,
    addresses: Sequence[Any],
    outputs: Sequence[Any],
    values: Sequence[float],
) -> list[Any]:
    """The row of a kernel; ``addresses`` and ``outputs`` are words of the row's kind."""
    chunk, pieces, per_task = division(where)
    row: list[Any] = [where.run, chunk, -(-where.run // chunk), pieces, per_task, *where.outer]
    arrays = zip(expression.arguments, addresses, where.strides, strict=True)
    for argument, address, strides in arrays:
        size = SIZES[argument.dtype]
        row += [address, *(s * size for s in strides[:-1])]
        if argument.access == "strided":
            row.append(strides[-1] * size)
    own = row_major((*where.outer, where.run))
    for name, address in zip(expression.outputs, outputs, strict=True):
        row += [address, *(s * SIZES[expression.dtype(name)] for s in own[:-1])]
    for dtype, value in zip(expression.constants, values, strict=True):
        is_float = dtype in ("f32", "f64")
        row.append(struct.unpack("<q", struct.pack("<d", value))[0] if is_float else int(value))
    return row


# ---------------------------------------------------------------- kernels


@dataclass(frozen=True)
class PointwiseKernel:
    """A kernel of one expression, for ``outer`` levels of outer indices."""

    expression: Expression
    outer: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name: the ops, and a hash of the structure."""
        ops = "_".join(step.op for step in self.expression.steps[:4]) or "copy"
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return f"pointwise_{ops}_{digest}_w{self.width}"

    @property
    def is_vector(self) -> bool:
        """Whether the kernel computes on vectors."""
        e = self.expression
        kinds = {a.dtype for a in e.arguments} | set(e.constants) | {s.dtype for s in e.steps}
        strided = any(a.access == "strided" for a in e.arguments)
        return kinds <= {"f32", "f64", "bool"} and not strided and "bool" not in e.constants

    def source(self) -> str:
        """The kernel's Python source."""
        body = _vector_body(self) if self.is_vector else _scalar_body(self)
        lines = [
            f'"""Element-wise: {", ".join(s.op for s in self.expression.steps) or "copy"}."""',
            *(_vector_imports(self) if self.is_vector else _scalar_imports()),
            "",
            "",
            "def kernel(row, task, slot):",
            *_read_words(self),
            *_walk(self, body),
        ]
        return "\n".join(lines) + "\n"


def _read_words(kernel: PointwiseKernel) -> list[str]:
    e = kernel.expression
    names = [*WORDS, *(f"n{d}" for d in range(kernel.outer))]
    for place, argument in enumerate(e.arguments):
        names += [f"a{place}_at", *(f"a{place}_s{d}" for d in range(kernel.outer))]
        if argument.access == "strided":
            names.append(f"a{place}_step")
    for place in range(len(e.outputs)):
        names += [f"y{place}_at", *(f"y{place}_s{d}" for d in range(kernel.outer))]
    rows = [f"    {name} = load_i64(row + {8 * i})" for i, name in enumerate(names)]
    for place, dtype in enumerate(e.constants):
        at = f"row + {8 * (len(names) + place)}"
        rows.append(f"    k{place} = {constant_code(dtype, at, kernel.is_vector)}")
    return rows


def constant_code(dtype: str, at: str, vector: bool) -> str:
    """A constant out of the row."""
    if dtype == "f32":
        value = f"float32(load_f64({at}))"
        return f"spread32({value})" if vector else value
    if dtype == "f64":
        return f"spread64(load_f64({at}))" if vector else f"load_f64({at})"
    return CASTS[dtype].format(f"load_i64({at})")


def _walk(kernel: PointwiseKernel, body: list[str]) -> list[str]:
    """The pieces of a task: outer indices are counted on, not divided out, from piece to piece."""
    e, depth = kernel.expression, kernel.outer
    rows = [
        "    first = task * per_task",
        "    last = min(first + per_task, pieces)",
        "    piece = first % chunks",
        "    index = first // chunks",
    ]
    rows += indices.split(depth)
    rows += [
        "    for _ in range(first, last):",
        "        start = piece * chunk",
        "        count = min(chunk, run - start)",
    ]
    for place, argument in enumerate(e.arguments):
        move = {
            "full": f" + start * {SIZES[argument.dtype]}",
            "strided": f" + start * a{place}_step",
        }
        rows.append(f"        p{place} = a{place}_at" + indices.offset(f"a{place}", depth)
                    + move.get(argument.access, ""))  # fmt: skip
    for place, name in enumerate(e.outputs):
        rows.append(f"        q{place} = y{place}_at" + indices.offset(f"y{place}", depth)
                    + f" + start * {SIZES[e.dtype(name)]}")  # fmt: skip
    rows += ["        " + line for line in body]
    rows += ["        piece += 1", "        if piece == chunks:", "            piece = 0"]
    return rows + indices.advance(depth, 12)


# ---------------------------------------------------------------- on vectors


def _lane_count(kernel: PointwiseKernel) -> int:
    """Lanes of every value: the machine's float32 lanes, half of them if all is float64."""
    e = kernel.expression
    kinds = {a.dtype for a in e.arguments} | set(e.constants) | {s.dtype for s in e.steps}
    return kernel.width // 2 if "f64" in kinds and "f32" not in kinds else kernel.width


def _vector_imports(kernel: PointwiseKernel) -> list[str]:
    n = _lane_count(kernel)
    return [
        "from numba import float32",
        "from tilth.runtime.kernels import vector_math as e, vector_ops as v",
        "from tilth.runtime.kernels.masks import (",
        f"    as_number, pick, store_first, store_mask, load_mask{n} as load_bool,",
        f"    load_first_mask{n} as first_bool, load_first{n}d as first_f64,",
        *([f"    load_first{n} as first_f32,"] if n >= 4 else []),
        ")",
        "from tilth.runtime.simd import (",
        "    load_f32, load_f64, load_i64, load_u8, narrow, store, vabs, vceil, vfloor, vmax,",
        f"    vmin, vround, vsqrt, widen, load{n}d as load_f64s, spread{n}d as spread64,",
        *([f"    load{n} as load_f32s, spread{n} as spread32,"] if n >= 4 else []),
        ")",
    ]


def _vector_body(kernel: PointwiseKernel) -> list[str]:
    e = kernel.expression
    n = _lane_count(kernel)
    by_lanes = any(a.access == "lanes" for a in e.arguments)
    groups = BLOCK // n if by_lanes else 1
    rows = []
    for place, argument in enumerate(e.arguments):
        if argument.access == "one":
            rows.append(f"a{place} = {_spread_one(argument.dtype, f'p{place}')}")
        elif argument.access == "lanes":
            size = SIZES[argument.dtype]
            rows += [f"a{place}_{g} = {LOADS[argument.dtype]}(p{place} + {g * n * size})"
                     for g in range(groups)]  # fmt: skip
    rows.append(f"for _ in range((count + {groups * n - 1}) // {groups * n}):")
    for g in range(groups):
        rows += ["    " + line for line in _vector_step(kernel, n, g if by_lanes else None)]
    return rows


LOADS = {"f32": "load_f32s", "f64": "load_f64s", "bool": "load_bool"}
_FIRSTS = {"f32": "first_f32", "f64": "first_f64", "bool": "first_bool"}


def _spread_one(dtype: str, at: str) -> str:
    if dtype == "bool":
        return f"spread64(load_u8({at}) * 1.0) > 0.0"
    return f"spread32(load_f32({at}))" if dtype == "f32" else f"spread64(load_f64({at}))"


def _vector_step(kernel: PointwiseKernel, n: int, group: int | None) -> list[str]:
    """One vector of the run; blocked runs have no partial vector."""
    e = kernel.expression
    whole, part = [], []
    for place, argument in enumerate(e.arguments):
        if argument.access == "full":
            whole.append(f"a{place} = {LOADS[argument.dtype]}(p{place})")
            part.append(f"a{place} = {_FIRSTS[argument.dtype]}(p{place}, count)")
    rows = _either(n, whole, part, group)
    rename = {}
    if group is not None:
        rename = {f"a{i}": f"a{i}_{group}" for i, a in enumerate(e.arguments)
                  if a.access == "lanes"}  # fmt: skip
    for place, step in enumerate(e.steps):
        operands = [rename.get(name, name) for name in step.operands]
        rows.append(f"t{place} = {vector_code(e, step, operands)}")
    whole, part = [], []
    for place, name in enumerate(e.outputs):
        value = rename.get(name, name)
        put = "store_mask" if e.dtype(name) == "bool" else "store"
        whole.append(f"{put}(q{place}, {value})")
        part.append(f"store_first(q{place}, {value}, count)")
    rows += _either(n, whole, part, group)
    for place, argument in enumerate(e.arguments):
        if argument.access == "full":
            rows.append(f"p{place} += {n * SIZES[argument.dtype]}")
    rows += [f"q{place} += {n * SIZES[e.dtype(name)]}" for place, name in enumerate(e.outputs)]
    return [*rows, *([] if group is not None else [f"count -= {n}"])]


def _either(n: int, whole: list[str], part: list[str], group: int | None) -> list[str]:
    """All lanes, or the first ``count`` at a run's end; the arithmetic between is shared."""
    if group is not None or not whole:
        return whole
    return [
        f"if count >= {n}:",
        *("    " + line for line in whole),
        "else:",
        *("    " + line for line in part),
    ]


def vector_code(e: Expression, step: Instruction, operands: list[str]) -> str:
    """A step on vectors; ``operands`` are the variables that hold its operands."""
    source = e.dtype(step.operands[0])
    if step.op == "cast":
        return _vector_cast(source, step.dtype, operands[0])
    by_mask = source == "bool" and step.op != "where"
    table = VECTOR_BOOL if by_mask else VECTOR_FLOAT
    return table[step.op].format(*operands)


def _vector_cast(source: str, target: str, value: str) -> str:
    if source == target:
        return value
    if target == "bool":
        return f"{value} != 0.0"
    if source == "bool":
        like = "spread32(float32(0.0))" if target == "f32" else "spread64(0.0)"
        return f"as_number({value}, {like})"
    return f"widen({value})" if target == "f64" else f"narrow({value})"


# ---------------------------------------------------------------- one element at a time

CASTS = {
    "f32": "float32({0})",
    "f64": "float64({0})",
    "i32": "int32({0})",
    "i64": "int64({0})",
    "u8": "uint8({0})",
    "bool": "({0}) != 0",
}


def _scalar_imports() -> list[str]:
    return [
        "import math",
        "from numba import float32, float64, int32, int64, uint8",
        "from tilth.runtime.kernels import scalar_math as s",
        "from tilth.runtime.simd import (",
        "    load_f32, load_f64, load_i32, load_i64, load_u64, load_u8, store_f32, store_f64,",
        "    store_i32, store_i64, store_u8,",
        ")",
    ]


def _scalar_body(kernel: PointwiseKernel) -> list[str]:
    e = kernel.expression
    if any(a.access == "lanes" for a in e.arguments):
        raise ValueError("whole numbers have no blocked layout")
    ahead, inside, after = [], [], []
    for place, argument in enumerate(e.arguments):
        line = f"a{place} = {scalar_load(argument.dtype, f'p{place}')}"
        (ahead if argument.access == "one" else inside).append(line)
        if argument.access != "one":
            step = f"a{place}_step" if argument.access == "strided" else SIZES[argument.dtype]
            after.append(f"p{place} += {step}")
    for place, step in enumerate(e.steps):
        inside.append(f"t{place} = {scalar_code(e, step)}")
    for place, name in enumerate(e.outputs):
        dtype = e.dtype(name)
        value = f"uint8({name})" if dtype == "bool" else name
        inside.append(f"store_{'u8' if dtype == 'bool' else dtype}(q{place}, {value})")
        after.append(f"q{place} += {SIZES[dtype]}")
    return [*ahead, "for _ in range(count):", *("    " + line for line in inside + after)]


def scalar_load(dtype: str, at: str) -> str:
    """One element out of memory."""
    return f"load_u8({at}) != 0" if dtype == "bool" else f"load_{dtype}({at})"


def scalar_code(e: Expression, step: Instruction) -> str:
    """A step on single elements."""
    source = e.dtype(step.operands[1 if step.op == "where" else 0])
    if step.op == "cast":
        value = step.operands[0]
        if source in ("f32", "f64") and step.dtype in ("i32", "u8"):
            value = f"int64({value})"
        return CASTS[step.dtype].format(value)
    if source == "bool":
        return SCALAR_BOOL[step.op].format(*step.operands)
    table, wide = (SCALAR_FLOAT, "float64") if source[0] == "f" else (SCALAR_WHOLE, "int64")
    names = [n if e.dtype(n) == "bool" else f"{wide}({n})" for n in step.operands]
    code = table[step.op].format(*names)
    return code if step.dtype == "bool" else CASTS[step.dtype].format(code)


ROWS = {"PointwiseKernel": None}
"""Rows depend on the expression, so they have no fixed names."""

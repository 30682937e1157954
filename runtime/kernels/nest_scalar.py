"""Loop nests one element at a time: whole numbers, truth values, results that lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import indices
from .pointwise import CASTS, scalar_code, scalar_load

if TYPE_CHECKING:
    from .nest_kernel import NestKernel


def scalar_tile(kernel: NestKernel) -> list[str]:
    """A piece: elements along the lanes, each with its fold."""
    if kernel.inner == "reduced":
        return _element(kernel)
    moves = [f"    s{i} += a{i}_step" for i in range(len(kernel.expression.arguments))]
    moves += [f"    q{i} += y{i}_step" for i in range(len(kernel.targets))]
    return [
        "for _ in range(min(run - start, chunk)):",
        *("    " + line for line in _element(kernel)),
        *moves,
    ]


def _element(kernel: NestKernel) -> list[str]:
    """One result: the expression, folded over what is reduced."""
    e = kernel.expression
    if not kernel.fold:
        stores = []
        for place, (name, target) in enumerate(zip(e.outputs, kernel.targets, strict=True)):
            stores.append(_store(target, f"q{place}", name))
        return _loops(kernel, [*_evaluate(kernel), *stores])
    output = e.outputs[0]
    source = e.dtype(output)
    if kernel.fold in ("argmax", "argmin"):
        return _position(kernel, output, source)
    if kernel.fold == "lse":
        return _lse(kernel, output)
    lines = [f"total = {_start(kernel, source)}"]
    if kernel.fold in ("max", "min") and source[0] != "f":
        lines.append("count = int64(0)")
    lines += _loops(kernel, [*_evaluate(kernel), *_join(kernel, output, source)])
    value = "total / divisor" if kernel.fold == "sum" and source[0] == "f" else "total"
    return [*lines, _store(kernel.targets[0], "q0", value)]


def _loops(kernel: NestKernel, body: list[str]) -> list[str]:
    """All loops of the fold, lanes included; ``step`` counts elements along the lanes."""
    operands = range(len(kernel.expression.arguments))
    if kernel.inner == "reduced":
        moves = [f"    p{i} += a{i}_step" for i in operands]
        body = ["for step in range(run):", *("    " + line for line in body), *moves]
    return indices.fold_loops(kernel.reduced, len(operands), body)


def _evaluate(kernel: NestKernel) -> list[str]:
    e = kernel.expression
    lines = [f"a{i} = {scalar_load(a.dtype, f'p{i}')}" for i, a in enumerate(e.arguments)]
    return lines + [f"t{i} = {scalar_code(e, step)}" for i, step in enumerate(e.steps)]


_STARTS = {"sum": "0", "prod": "1", "any": "0", "all": "1"}


def _start(kernel: NestKernel, source: str) -> str:
    if kernel.fold in ("max", "min"):
        infinity = "-math.inf" if kernel.fold == "max" else "math.inf"
        return infinity if source[0] == "f" else "int64(0)"
    kind = "float64" if source[0] == "f" else "int64"
    return f"{kind}({_STARTS[kernel.fold]})"


def _join(kernel: NestKernel, output: str, source: str) -> list[str]:
    """Whole numbers join in int64, which wraps as the element type does; floats in float64."""
    fold = kernel.fold
    if fold in ("any", "all"):
        sign = "|" if fold == "any" else "&"
        return [f"total {sign}= int64({output} != 0)"]
    if fold in ("max", "min"):
        sign = ">" if fold == "max" else "<"
        if source[0] == "f":
            return [
                f"value = float64({output})",
                f"if value {sign} total or value != value:",
                "    total = value",
            ]
        return [
            f"value = int64({output})",
            f"if count == 0 or value {sign} total:",
            "    total = value",
            "count += 1",
        ]
    kind = "float64" if source[0] == "f" else "int64"
    return [f"total {'+' if fold == 'sum' else '*'}= {kind}({output})"]


def _lse(kernel: NestKernel, output: str) -> list[str]:
    """The largest, then the sum of exponentials measured from it."""
    return [
        "top = -math.inf",
        *_loops(kernel, [
            *_evaluate(kernel),
            f"value = float64({output})",
            "if value > top or value != value:",
            "    top = value",
        ]),
        "if not abs(top) < math.inf:",
        "    top = 0.0",
        "total = 0.0",
        *_loops(kernel, [*_evaluate(kernel), f"total += math.exp(float64({output}) - top)"]),
        _store(kernel.targets[0], "q0", "s.log(total) + top"),
    ]  # fmt: skip


def _position(kernel: NestKernel, output: str, source: str) -> list[str]:
    sign = ">" if kernel.fold == "argmax" else "<"
    place = "step" if kernel.inner == "reduced" else indices.folded_number(kernel.reduced)
    kind = "float64" if source[0] == "f" else "int64"
    body = [
        *_evaluate(kernel),
        f"value = {kind}({output})",
        # NaN comes first of all; whole numbers are never NaN.
        f"if count == 0 or value {sign} total or (value != value and total == total):",
        "    total = value",
        f"    found = int64({place})",
        "count += 1",
    ]
    return [
        f"total = {kind}(0)",
        "found = int64(0)",
        "count = int64(0)",
        *_loops(kernel, body),
        _store(kernel.targets[0], "q0", "found"),
    ]


def _store(target: str, at: str, value: str) -> str:
    if target == "bool":
        return f"store_u8({at}, uint8({value} != 0))"
    return f"store_{target}({at}, {CASTS[target].format(value)})"

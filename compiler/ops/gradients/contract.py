"""Gradients of contractions over semirings, and of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

from ..base import gradient_of
from ..contract import parse_spec
from ..expr import Expr, Pullback

_KINDS = {"max": "max", "min": "min", "lse": "lse"}


@gradient_of("contract")
def _contract(pull: Pullback) -> Sequence[Expr | None]:
    semiring = str(pull.attrs["semiring"])
    inputs, output = parse_spec(str(pull.attrs["spec"]), len(pull.x))
    if semiring != "sum_product":
        plus, _, times = semiring.partition("_")
        return _by_joining(pull, inputs, output, _KINDS[plus], times)
    return [
        _factor(pull, place, inputs, output) if need else None
        for place, need in enumerate(pull.needs)
    ]


def _factor(pull: Pullback, place: int, inputs: Sequence[str], output: str) -> Expr:
    """The cotangent of one factor of a sum of products: the others times the result's."""
    x, letters = pull.x[place], inputs[place]
    operands = [pull.d, *(other for i, other in enumerate(pull.x) if i != place)]
    parts = [output, *(part for i, part in enumerate(inputs) if i != place)]
    wanted = ""
    for axis, letter in enumerate(letters):
        if letter in wanted:  # a diagonal was read: only it gets something
            fresh = next(c for c in ascii_letters if c not in "".join([*inputs, wanted, *parts]))
            operands.append(x.writer.make("eye", size=x.shape[axis], dtype=x.dtype))
            parts.append(letter + fresh)
            letter = fresh
        wanted += letter
    held = "".join(letter for letter in wanted if any(letter in part for part in parts))
    made = operands[0].contract(f"{','.join(parts)}->{held}", *operands[1:])
    if held == wanted:
        return made
    # A letter that only this operand has was summed away: every element along it counts alike.
    missing = [axis for axis, letter in enumerate(wanted) if letter not in held]
    return made.unsqueeze(*missing).broadcast(x.shape)


def _by_joining(
    pull: Pullback, inputs: Sequence[str], output: str, kind: str, times: str
) -> Sequence[Expr | None]:
    """Through the table of all joined elements, of which ``kind`` chooses or weighs."""
    order = output + "".join(dict.fromkeys(c for p in inputs for c in p if c not in output))
    apart = pull.apart()
    parts = [_aligned(x, letters, order) for x, letters in zip(apart.x, inputs, strict=True)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + part if times == "plus" else joined * part
    return apart.through([joined.reduce(kind, range(len(output), len(order)))])


def _aligned(x: Expr, letters: str, order: str) -> Expr:
    """``x`` with one axis a letter of ``order``, of size 1 where it does not have the letter."""
    distinct = "".join(dict.fromkeys(letters))
    if distinct != letters:
        x = x.contract(f"{letters}->{distinct}")
    held = sorted(distinct, key=order.index)
    x = x.transpose([distinct.index(letter) for letter in held])
    return x.unsqueeze(*(axis for axis, letter in enumerate(order) if letter not in held))


@gradient_of("matmul")
def _matmul(pull: Pullback) -> Sequence[Expr | None]:
    a, b = pull.x
    left = a.unsqueeze(0) if a.rank == 1 else a
    right = b.unsqueeze(1) if b.rank == 1 else b
    d = pull.d
    if b.rank == 1:
        d = d.unsqueeze(d.rank)
    if a.rank == 1:
        d = d.unsqueeze(d.rank - 1)
    da = db = None
    if pull.needs[0]:
        da = d.op("matmul", _turned(right)).sum_to(left.shape).reshape(a.shape)
    if pull.needs[1]:
        db = _turned(left).op("matmul", d).sum_to(right.shape).reshape(b.shape)
    return [da, db]


def _turned(x: Expr) -> Expr:
    return x.moved(x.rank - 1, x.rank - 2)


@gradient_of("linear")
def _linear(pull: Pullback) -> Sequence[Expr | None]:
    x, weight, *bias = pull.x
    d = pull.d
    lead: Any = ascii_letters[: x.rank - 1]
    dx = dw = None
    if pull.needs[0]:
        dx = d.contract(f"{lead}O,OI->{lead}I", weight)
    if pull.needs[1]:
        dw = d.contract(f"{lead}O,{lead}I->OI", x)
    return [dx, dw, *(d.sum(range(x.rank - 1)) for _ in bias)]

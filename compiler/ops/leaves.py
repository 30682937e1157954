"""Nodes without operands whose values come from outside: inputs, weights and constants.

Their types are given when the node is made, so that no shape rule applies.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.types import Attrs, TensorType
from .base import Op, define

LEAVES = ("input", "param", "constant")


def _declared(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    raise TypeError("the type of a leaf is declared, not inferred")


define(
    Op(
        "input",
        (),
        _declared,
        None,
        "A tensor that every call brings.",
        why_no_reference="its value is the caller's",
    )
)
define(
    Op(
        "param",
        (),
        _declared,
        None,
        "A weight: its path, initialiser, domain and kind (weight, bias, norm, buffer, param).",
        attrs=("path", "init", "kind", "domain"),
        why_no_reference="its value is in the weights",
    )
)
define(
    Op(
        "constant",
        (),
        _declared,
        None,
        "A tensor known while compiling, held by the graph under its content's hash.",
        attrs=("hash",),
        why_no_reference="its value is in the graph's table of constants",
    )
)

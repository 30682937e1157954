"""Dropout and stochastic depth: the identity at inference; training puts random masks here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.types import Attrs, TensorType
from .base import Op, Operand, Setting, define, layer_of
from .net_rules import need_float, need_range


def _same(op: str, types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    rate = attrs["rate"]
    fits = isinstance(rate, (int, float)) and 0 <= rate < 1
    need_range(op, "rate", rate, fits, "a number from 0 up to but not including 1")
    need_float(op, *types)
    return list(types)


def _identity(x: np.ndarray, *, rate: float, ramp: int = 0) -> np.ndarray:
    return x


def _dropout_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    return _same("dropout", types, attrs)


def _drop_path_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    ramp = attrs["ramp"]
    fits = isinstance(ramp, int) and not isinstance(ramp, bool) and ramp >= 0
    need_range("drop_path", "ramp", ramp, fits, "a whole number of batches")
    return _same("drop_path", types, attrs)


layer_of(
    define(
        Op(
            "dropout",
            (Operand("x"),),
            _dropout_shape,
            _identity,
            "The identity at inference. Training replaces the node: each element is zeroed with "
            "probability rate and the rest divided by 1 - rate. Srivastava et al., JMLR 2014.",
            ("rate",),
            batching="elementwise",
        )
    ),
    Setting("rate", "float", 0.5),
)

layer_of(
    define(
        Op(
            "drop_path",
            (Operand("x"),),
            _drop_path_shape,
            _identity,
            "The identity at inference. Training replaces the node: each sample (first axis) is "
            "zeroed with probability rate and the rest divided by 1 - rate. Over the first `ramp` "
            "batches the rate grows from 0. Huang et al., Deep Networks with Stochastic Depth, "
            "ECCV 2016; Zoph et al., NASNet, CVPR 2018 (scheduled).",
            ("rate", "ramp"),
            batching="elementwise",
        )
    ),
    Setting("rate", "float"),
    Setting("ramp", "int", 0),
)

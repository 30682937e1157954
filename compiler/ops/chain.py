"""Chains of finite variables in log space: forward, backward, best path and sampled paths.

A chain is ``init[K]`` at step 0, ``transition[S, K, K]`` (row: the earlier value) into each step
and ``emission[T, K]``. ``S`` is 1 when every step has the same table, else ``T``; entry 0 is then
not read. Leading axes are a batch and broadcast. All tables are log-potentials and need not be
normalised; -inf is an impossible value and 0 * -inf is 0.
(Rabiner, Proceedings of the IEEE 77(2), 1989; Chib, Journal of Econometrics 75, 1996.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...runtime import philox
from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, define
from .random import require_key
from .rules import broadcast_shapes, quiet, require_equal, require_kind, require_rank
from .special import logsumexp

MODES = ("sum", "max", "posterior", "path", "sample")
"""What a chain is asked: log of the sum, or of the best, over all paths; marginals, expected
transitions and log of the sum; the best path (of equals the first); a path drawn from the
posterior."""

LOG_Z = 2
"""Which result of ``posterior`` is the log of the sum."""

LOWEST = -1.7e308
"""Below every finite log-potential: subtracting it from -inf leaves -inf, never nan."""


def _chain_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    mode = str(attrs["mode"])
    if mode not in MODES:
        raise OpError("E404", f"chain: unknown mode {mode}; known are {', '.join(MODES)}")
    tables, key = types[:3], types[3:]
    if len(key) != (mode == "sample"):
        raise OpError("E407", f"chain {mode}: {len(types)} operands")
    for kind in key:
        require_key("chain sample", kind)
    init, transition, emission = tables
    for kind, rank in zip(tables, (1, 3, 2), strict=True):
        require_kind("chain", kind, "float")
        require_rank("chain", kind, rank)
    states, steps = emission.shape[-1], emission.shape[-2]
    for size in (init.shape[-1], transition.shape[-1], transition.shape[-2]):
        require_equal("chain: states", states, size, tables)
    if transition.shape[-3] != 1:
        require_equal("chain: steps", steps, transition.shape[-3], tables)
    ranks = zip(tables, (1, 3, 2), strict=True)
    batch = broadcast_shapes("chain", [kind.shape[: kind.rank - rank] for kind, rank in ranks])
    if mode in ("sum", "max"):
        return (emission.with_shape(batch),)
    if mode == "posterior":
        pairs = (*batch, *transition.shape[-3:])
        marginals = emission.with_shape((*batch, steps, states))
        return (marginals, emission.with_shape(pairs), emission.with_shape(batch))
    return (TensorType("i32", (*batch, steps)),)


@quiet
def _chain(*operands: np.ndarray, mode: str, path: str = "") -> Any:
    init, transition, emission = (x.astype(np.float64) for x in operands[:3])
    dtype = operands[2].dtype
    shapes = (init.shape[:-1], transition.shape[:-3], emission.shape[:-2])
    batch = np.broadcast_shapes(*shapes)
    init = np.broadcast_to(init, (*batch, init.shape[-1]))
    emission = np.broadcast_to(emission, (*batch, *emission.shape[-2:]))
    transition = np.broadcast_to(transition, (*batch, *transition.shape[-3:]))
    if mode == "sum":
        return logsumexp(forward(init, transition, emission)[..., -1, :], (-1,), False).astype(
            dtype
        )
    if mode == "max":
        return np.max(_best(init, transition, emission)[0], axis=-1).astype(dtype)
    if mode == "posterior":
        return tuple(x.astype(dtype) for x in posterior(init, transition, emission))
    if mode == "path":
        return _best_path(init, transition, emission)
    return _sampled_path(init, transition, emission, philox.stream(operands[3], path))


def _into(transition: np.ndarray, step: int) -> np.ndarray:
    """The table into a step."""
    return transition[..., step if transition.shape[-3] > 1 else 0, :, :]


def forward(init: np.ndarray, transition: np.ndarray, emission: np.ndarray) -> np.ndarray:
    """Log of the sum over paths that end in each value at each step, ``[..., T, K]``."""
    alpha = np.empty(emission.shape)
    alpha[..., 0, :] = init + emission[..., 0, :]
    for step in range(1, emission.shape[-2]):
        joint = alpha[..., step - 1, :, None] + _into(transition, step)
        alpha[..., step, :] = logsumexp(joint, (-2,), False) + emission[..., step, :]
    return alpha


def backward(transition: np.ndarray, emission: np.ndarray) -> np.ndarray:
    """Log of the sum over what follows each value at each step, ``[..., T, K]``."""
    beta = np.zeros(emission.shape)
    for step in range(emission.shape[-2] - 2, -1, -1):
        later = emission[..., step + 1, :] + beta[..., step + 1, :]
        joint = _into(transition, step + 1) + later[..., None, :]
        beta[..., step, :] = logsumexp(joint, (-1,), False)
    return beta


def posterior(
    init: np.ndarray, transition: np.ndarray, emission: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Marginals ``[..., T, K]``, expected transitions ``[..., S, K, K]`` and log Z ``[...]``.

    The first two are its gradient with respect to emission and transition; a chain that no path
    can have has log Z = -inf, and all zeros there.
    """
    alpha, beta = forward(init, transition, emission), backward(transition, emission)
    log_z = logsumexp(alpha[..., -1, :], (-1,), False)
    total = np.maximum(log_z, LOWEST)
    marginals = np.exp(alpha + beta - total[..., None, None])
    pairs = np.zeros(transition.shape)
    shared = transition.shape[-3] == 1
    for step in range(1, emission.shape[-2]):
        later = emission[..., step, :] + beta[..., step, :] - total[..., None]
        joint = alpha[..., step - 1, :, None] + _into(transition, step) + later[..., None, :]
        pairs[..., 0 if shared else step, :, :] += np.exp(joint)
    return marginals, pairs, log_z


def _best(
    init: np.ndarray, transition: np.ndarray, emission: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best score of a path that ends in each value, and the value before each."""
    steps = emission.shape[-2]
    back = np.zeros(emission.shape, np.int32)
    score = init + emission[..., 0, :]
    for step in range(1, steps):
        joint = score[..., :, None] + _into(transition, step)
        back[..., step, :] = np.argmax(joint, axis=-2)
        score = np.max(joint, axis=-2) + emission[..., step, :]
    return score, back


def _best_path(init: np.ndarray, transition: np.ndarray, emission: np.ndarray) -> np.ndarray:
    """The best path, ``i32[..., T]``; of equal ones the first value, from the end on."""
    score, back = _best(init, transition, emission)
    steps = emission.shape[-2]
    path = np.empty(emission.shape[:-1], np.int32)
    path[..., -1] = np.argmax(score, axis=-1)
    for step in range(steps - 1, 0, -1):
        here = path[..., step, None]
        path[..., step - 1] = np.take_along_axis(back[..., step, :], here, -1)[..., 0]
    return path


def _sampled_path(
    init: np.ndarray, transition: np.ndarray, emission: np.ndarray, source: philox.Stream
) -> np.ndarray:
    """Forward filter, backward sample: the uniform of element (batch, step) decides the step."""
    alpha = forward(init, transition, emission)
    uniform = philox.uniform(source, emission.shape[:-1], np.dtype(np.float64))
    path = np.empty(emission.shape[:-1], np.int32)
    for step in range(emission.shape[-2] - 1, -1, -1):
        score = alpha[..., step, :]
        if step + 1 < emission.shape[-2]:
            table = np.swapaxes(_into(transition, step + 1), -1, -2)
            after = path[..., step + 1, None, None]
            score = score + np.take_along_axis(table, after, -2)[..., 0, :]
        path[..., step] = _pick(score, uniform[..., step])
    return path


def _pick(score: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A value by inversion of the distribution that a row of log-weights gives."""
    top = np.maximum(np.max(score, axis=-1, keepdims=True), LOWEST)
    running = np.cumsum(np.exp(score - top), axis=-1)
    return np.sum(running <= uniform[..., None] * running[..., -1:], axis=-1).astype(np.int32)


define(
    Op(
        "chain",
        (
            Operand("init"),
            Operand("transition"),
            Operand("emission"),
            Operand("key", optional=True),
        ),
        _chain_shape,
        _chain,
        "A chain of finite variables in log space; `mode` is sum, max, posterior, path or sample.",
        attrs=("mode", "path"),
        batching="none",
        random=True,
    )
)

"""How ops run in PyTorch: one call of ``torch.nn.functional`` each, as its users write them.

A rule gets the ``torch`` module, the node's attributes and its operands as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Enter a rule for some ops."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


# ---------------------------------------------------------------- layers


@rule("conv")
def _conv(t: Any, a: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    x, pad = _even_pads(t, x, a["pad"], 0.0)
    how = {"stride": a["stride"], "padding": pad, "dilation": a["dilation"], "groups": a["groups"]}
    return _of_rank(t, "conv{}d", x)(x, weight, bias, **how)


@rule("conv_transpose")
def _conv_transpose(t: Any, a: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    if any(before != after for before, after in a["pad"]):
        raise NotImplementedError("conv_transpose with uneven padding")
    pad = [before for before, _ in a["pad"]]
    function = _of_rank(t, "conv_transpose{}d", x)
    how = (a["stride"], pad, a["out_pad"], a["groups"], a["dilation"])
    return function(x, weight, bias, *how)


@rule("linear")
def _linear(t: Any, a: Any, *tensors: Any) -> Any:
    return t.nn.functional.linear(*tensors)


@rule("batch_norm")
def _batch_norm(t: Any, a: Any, x: Any, mean: Any, var: Any, *learned: Any) -> Any:
    return t.nn.functional.batch_norm(x, mean, var, *learned, eps=a["eps"])


@rule("layer_norm")
def _layer_norm(t: Any, a: Any, x: Any, *learned: Any) -> Any:
    return t.nn.functional.layer_norm(x, x.shape[-a["axes"] :], *learned, eps=a["eps"])


@rule("lrn")
def _lrn(t: Any, a: Any, x: Any) -> Any:
    alpha = a["alpha"] if a["average"] else a["alpha"] * a["size"]
    return t.nn.functional.local_response_norm(x, a["size"], alpha, a["beta"], a["k"])


# ---------------------------------------------------------------- elementwise

_SAME = (
    "relu", "relu6", "tanh", "mish", "softsign", "selu", "hardswish", "hardsigmoid",
)  # fmt: skip
for _name in _SAME:
    RULES[_name] = lambda t, a, x, name=_name: getattr(t.nn.functional, name)(x)

_PLAIN = (
    "add", "sub", "mul", "div", "minimum", "maximum", "exp", "log", "sqrt", "rsqrt", "abs", "neg",
    "square", "matmul",
)  # fmt: skip
for _name in _PLAIN:
    RULES[_name] = lambda t, a, *tensors, name=_name: getattr(t, name)(*tensors)


@rule("relu_")
def _relu_in_place(t: Any, a: Any, x: Any) -> Any:
    return t.relu_(x)


@rule("relu6_")
def _relu6_in_place(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.relu6(x, inplace=True)


@rule("add_")
def _add_in_place(t: Any, a: Any, x: Any, y: Any) -> Any:
    return x.add_(y)


@rule("sigmoid")
def _sigmoid(t: Any, a: Any, x: Any) -> Any:
    return t.sigmoid(x if a["slope"] == 1 else a["slope"] * x)


@rule("swish")
def _swish(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.silu(x)


@rule("leaky_relu")
def _leaky_relu(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.leaky_relu(x, a["slope"])


@rule("elu")
def _elu(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.elu(x, a["alpha"])


@rule("gelu")
def _gelu(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.gelu(x, approximate=a["approximate"])


@rule("prelu")
def _prelu(t: Any, a: Any, x: Any, weight: Any) -> Any:
    return t.nn.functional.prelu(x, weight)


@rule("softmax")
def _softmax(t: Any, a: Any, x: Any) -> Any:
    return t.softmax(x if a["beta"] == 1 else a["beta"] * x, a["axis"])


@rule("dropout", "drop_path", "stop_gradient")
def _identity(t: Any, a: Any, x: Any) -> Any:
    return x


# ---------------------------------------------------------------- pools and resampling


@rule("maxpool")
def _maxpool(t: Any, a: Any, x: Any) -> Any:
    x, pad = _even_pads(t, x, a["pad"], float("-inf"))
    function = _of_rank(t, "max_pool{}d", x)
    return function(x, a["kernel"], a["stride"], pad, a["dilation"], a["ceil"])


@rule("avgpool")
def _avgpool(t: Any, a: Any, x: Any) -> Any:
    if any(before != after for before, after in a["pad"]):
        raise NotImplementedError("avgpool with uneven padding")
    pad = [before for before, _ in a["pad"]]
    function = _of_rank(t, "avg_pool{}d", x)
    return function(x, a["kernel"], a["stride"], pad, a["ceil"], a["count_pad"])


@rule("adaptive_avgpool")
def _adaptive_avgpool(t: Any, a: Any, x: Any) -> Any:
    return _of_rank(t, "adaptive_avg_pool{}d", x)(x, a["size"])


@rule("adaptive_maxpool")
def _adaptive_maxpool(t: Any, a: Any, x: Any) -> Any:
    return _of_rank(t, "adaptive_max_pool{}d", x)(x, a["size"])


@rule("resize")
def _resize(t: Any, a: Any, x: Any) -> Any:
    mode = a["mode"].replace("_", "-")
    smooth = {"align_corners": a["align_corners"]} if mode.startswith("bi") else {}
    where = {"size": a["size"]} if a["scale"] is None else {"scale_factor": a["scale"]}
    how = {"mode": mode, "antialias": a["antialias"], **smooth, **where}
    return t.nn.functional.interpolate(x, **how)


@rule("pixel_shuffle")
def _pixel_shuffle(t: Any, a: Any, x: Any) -> Any:
    return t.nn.functional.pixel_shuffle(x, a["factor"])


# ---------------------------------------------------------------- movement and reductions


@rule("reshape")
def _reshape(t: Any, a: Any, x: Any) -> Any:
    return x.reshape(a["shape"])


@rule("transpose")
def _transpose(t: Any, a: Any, x: Any) -> Any:
    return x.permute(a["perm"])


@rule("concat")
def _concat(t: Any, a: Any, *parts: Any) -> Any:
    return t.cat(parts, a["axis"])


@rule("split")
def _split(t: Any, a: Any, x: Any) -> Any:
    return t.split(x, list(a["sizes"]), a["axis"])


@rule("slice")
def _slice(t: Any, a: Any, x: Any) -> Any:
    return x[tuple(slice(*part) for part in zip(a["starts"], a["stops"], a["steps"], strict=True))]


@rule("pad")
def _pad(t: Any, a: Any, x: Any) -> Any:
    mode = {"edge": "replicate"}.get(a["mode"], a["mode"])
    pairs = list(zip(a["before"], a["after"], strict=True))
    if mode != "constant":
        return t.nn.functional.pad(x, _flat(pairs[2:]), mode)
    return t.nn.functional.pad(x, _flat(pairs), mode, a["value"])


@rule("channel_shuffle")
def _channel_shuffle(t: Any, a: Any, x: Any) -> Any:
    groups, axis, shape = a["groups"], a["axis"], list(x.shape)
    split = [*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]]
    return x.view(split).transpose(axis, axis + 1).reshape(shape)


@rule("reduce")
def _reduce(t: Any, a: Any, x: Any) -> Any:
    names = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin", "lse": "logsumexp"}
    return getattr(t, names[a["kind"]])(x, a["axes"], keepdim=a["keepdims"])


@rule("contract")
def _contract(t: Any, a: Any, *tensors: Any) -> Any:
    if a["semiring"] != "sum_product":
        raise NotImplementedError(f"contract over {a['semiring']}")
    return t.einsum(a["spec"], *tensors)


# ---------------------------------------------------------------- helpers


def _of_rank(t: Any, name: str, x: Any) -> Any:
    return getattr(t.nn.functional, name.format(x.dim() - 2))


def _even_pads(t: Any, x: Any, pairs: Sequence[tuple[int, int]], value: float) -> tuple[Any, Any]:
    """``x`` and a padding the same on both sides; any other is put around ``x``."""
    if all(before == after for before, after in pairs):
        return x, [before for before, _ in pairs]
    return t.nn.functional.pad(x, _flat(pairs), value=value), [0] * len(pairs)


def _flat(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Padding as PyTorch takes it: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]

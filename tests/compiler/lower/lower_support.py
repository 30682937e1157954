"""Running one lowered op on blocked arrays, against the op's reference."""

from typing import Any

import numpy as np
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType
from tilth.compiler.lower import cpu
from tilth.compiler.lower.storage import Blocked, Place
from tilth.compiler.lower.target import Target
from tilth.compiler.ops import OPS, infer
from tilth.runtime import packing as pack
from tilth.runtime.module import Module, Plan, Port


def to_blocks(x: np.ndarray) -> np.ndarray:
    """NCHW as [C/16, N, H, W, 16] with pad lanes poisoned."""
    n, c, h, w = x.shape
    blocks = -(-c // 16)
    full = np.full((n, blocks * 16, h, w), np.nan, np.float32)
    full[:, :c] = x
    return np.ascontiguousarray(full.reshape(n, blocks, 16, h, w).transpose(1, 0, 3, 4, 2))


def from_blocks(y: np.ndarray, channels: int) -> np.ndarray:
    """The inverse; pad lanes are dropped."""
    blocks, n, h, w, _ = y.shape
    return y.transpose(1, 0, 4, 2, 3).reshape(n, blocks * 16, h, w)[:, :channels]


def run_blocked(op: str, arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray],
                attrs: dict[str, Any], target: Target) -> np.ndarray:  # fmt: skip
    """One op on blocked images (``arrays``, in operand order among ``weights``) through a plan."""
    graph = Graph(op)
    values = []
    for name, array in {**arrays, **weights}.items():
        kind = TensorType("f32", array.shape)
        if name in arrays:
            values.append((name, graph.add_input(name, kind)))
        else:
            described = {"path": name, "init": ("zeros",), "kind": "weight", "domain": "real"}
            values.append((name, Value(graph.add("param", (), described, (kind,), name))))
    order = attrs.pop("order", None)
    named = dict(values)
    operands = [named[name] for name in order] if order else [v for _, v in values]
    types = infer(op, [graph.type_of(v) for v in operands], attrs)
    index = graph.add(op, operands, attrs, types, "op")
    graph.set_output("y", Value(index))
    state = cpu.Lowering(graph, target)
    cpu.load_rules()
    for place, name in enumerate(arrays):
        n, c, h, w = arrays[name].shape
        state.stored[named[name]] = Blocked(Place(None, 0, place), n, c, h, w)
        shape = to_blocks(arrays[name]).shape
        state.inputs.append(Port(name, "float32", shape))
    n, c, h, w = types[0].shape
    state.stored[Value(index)] = Blocked(Place(None, 0, len(arrays)), n, c, h, w)
    state.outputs.append(Port("y", "float32", (-(-c // 16), n, h, w, 16)))
    cpu.RULES[op](state, index, graph.node(index))
    lowered = state.finish(op)
    space: dict[str, Any] = {"np": np, "pack": pack}
    text = "\n".join(["def load(w):", *[f"    {x}" for x in lowered.load.lines], "    return"])
    exec(text if "yield" in text else text + "\n    yield", space)
    plan = Plan(op, lowered.inputs, lowered.outputs, lowered.rows, lowered.arena_bytes,
                lowered.scratch_bytes, space["load"], lowered.load.packed,
                lowered.load.size)  # fmt: skip
    module = Module(plan, weights, target.threads)
    result = module(**{name: to_blocks(a) for name, a in arrays.items()})
    return from_blocks(result, c)


def reference(op: str, arrays: list[np.ndarray], attrs: dict[str, Any]) -> np.ndarray:
    """The op's reference in float64."""
    function = OPS[op].reference
    assert function is not None
    return function(*[a.astype(np.float64) for a in arrays], **attrs)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """max |difference| / max |reference|."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())

"""Fixtures for op tests: stored references, and a bench that builds, infers and runs layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.ops import LAYERS, OPS, infer
from tilth.compiler.ops.base import REQUIRED, as_arrays

GOLDEN = Path(__file__).parent.parent / "golden"


class Bench:
    """A minimal Builder whose parameters are graph nodes that :meth:`run` takes values for."""

    def __init__(self) -> None:
        self.graph = Graph("bench")
        self.params: dict[str, tuple[tuple[Any, ...], Any, str, str | None]] = {}

    def emit(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, Any] | None = None
    ) -> Any:
        attrs = dict(attrs or {})
        assert set(attrs) == set(OPS[op].attrs), f"{op}: attributes {sorted(attrs)}"
        types = infer(op, [self.graph.type_of(v) for v in operands], attrs)
        index = self.graph.add(op, operands, attrs, types)
        values = tuple(Value(index, i) for i in range(len(types)))
        return values if len(values) > 1 else values[0]

    def param(
        self,
        name: str,
        shape: Sequence[Any],
        init: Any,
        kind: str = "weight",
        dtype: str | None = None,
    ) -> Value:
        assert name not in self.params
        self.params[name] = (tuple(shape), init, kind, dtype)
        return Value(
            self.graph.add("param", (), {}, (TensorType(dtype or "f32", tuple(shape)),), name)
        )

    def type_of(self, value: Value) -> TensorType:
        return self.graph.type_of(value)

    def input(self, shape: Sequence[Any], dtype: str = "f64") -> Value:
        return self.graph.add_input(f"x{len(self.graph)}", TensorType(dtype, tuple(shape)))

    def apply(self, layer: str, *operands: Value | Sequence[Any], **settings: Any) -> Any:
        """Build a layer on inputs; a list in place of a tensor is the shape of a new f64 input."""
        values = [v if isinstance(v, Value) else self.input(v) for v in operands]
        known = LAYERS[layer]
        full = {s.name: s.default for s in known.settings} | settings
        assert set(full) == {s.name for s in known.settings}
        assert REQUIRED not in full.values()
        return known.build(self, values, **full)

    def run(self, value: Value, feeds: Mapping[Value, np.ndarray], **params: np.ndarray) -> Any:
        """The array of ``value``; every array met has the dtype and shape that was inferred."""
        memory = {v: np.asarray(a) for v, a in feeds.items()}
        for index, node in self.graph.nodes():
            if node.op == "param":
                memory[Value(index)] = np.asarray(params[node.name])
            elif node.op != "input":
                arrays = [memory[v] for v in self.graph.operands(index)]
                for i, array in enumerate(as_arrays(OPS[node.op].reference(*arrays, **node.attrs))):
                    assert array.dtype == DTYPES[node.types[i].dtype], node.op
                    assert array.shape == node.types[i].shape, node.op
                    memory[Value(index, i)] = array
        return memory[value]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def run_layer() -> Callable[..., np.ndarray]:
    """Build a layer for given arrays and run it; ``_params`` are the weights by name."""

    def run(
        layer: str, *arrays: np.ndarray, _params: Mapping[str, Any] | None = None, **settings: Any
    ) -> Any:
        names = {v: k for k, v in DTYPES.items()}
        bench = Bench()
        inputs = [bench.input(a.shape, names[a.dtype]) for a in arrays]
        value = bench.apply(layer, *inputs, **settings)
        feeds = dict(zip(inputs, arrays, strict=True))
        params = {k: np.asarray(v) for k, v in (_params or {}).items()}
        assert set(params) == set(bench.params)
        if isinstance(value, tuple):
            return tuple(bench.run(v, feeds, **params) for v in value)
        return bench.run(value, feeds, **params)

    return run


@pytest.fixture
def run_op() -> Callable[..., Any]:
    """Infer and run one op; results have the dtype and shape that its rule gives."""

    def run(op: str, *arrays: np.ndarray, **attrs: Any) -> Any:
        names = {v: k for k, v in DTYPES.items()}
        bench = Bench()
        inputs = [bench.input(a.shape, names[a.dtype]) for a in arrays]
        value = bench.emit(op, inputs, attrs)
        feeds = dict(zip(inputs, arrays, strict=True))
        if isinstance(value, tuple):
            return tuple(bench.run(v, feeds) for v in value)
        return bench.run(value, feeds)

    return run


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """The arrays of a stored reference case, as ``family/case``."""

    def load(case: str) -> dict[str, np.ndarray]:
        family, name = case.split("/")
        assert name in json.loads((GOLDEN / family / "manifest.json").read_text())
        with np.load(GOLDEN / family / f"{name}.npz") as stored:
            return dict(stored)

    return load


@pytest.fixture
def agree() -> Callable[..., None]:
    """Assert that ``max|a - b|`` is within ``tolerance`` of ``max(1, max|b|)``."""

    def check(ours: Any, reference: Any, tolerance: float) -> None:
        ours, reference = np.asarray(ours), np.asarray(reference)
        assert ours.shape == reference.shape
        scale = max(1.0, float(np.abs(reference).max(initial=0)))
        worst = float(np.abs(ours.astype(np.float64) - reference).max(initial=0))
        assert worst <= tolerance * scale, f"off by {worst} at scale {scale}"

    return check

"""Small graphs as formulas, compiled for the CPU and compared with the reference interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tilth.compiled import plan_of
from tilth.compiler import pipeline
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.lower import cpu
from tilth.compiler.lower.source import module_text
from tilth.compiler.lower.target import Target
from tilth.compiler.ops import infer
from tilth.compiler.ops.control import WITH_REGION, region_result_types
from tilth.runtime.module import Module
from tilth.runtime.simd import lanes


class Build:
    """A graph under construction: ``b("add", x, y)`` adds a node with types by its rule."""

    def __init__(self, seed: int = 0) -> None:
        self.graph = Graph("test")
        self.rng = np.random.default_rng(seed)
        self.inputs: dict[str, np.ndarray] = {}
        self.weights: dict[str, np.ndarray] = {}
        self.values: list[Value] = []

    def input(self, shape: Sequence[int], dtype: str = "f32", data: Any = None) -> Value:
        """An input with normal numbers, or whole numbers or truth values, or ``data``."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self._array(shape, dtype) if data is None else np.asarray(
            data, DTYPES[dtype])  # fmt: skip
        return self.graph.add_input(name, TensorType(dtype, tuple(self.inputs[name].shape)))

    def weight(self, shape: Sequence[int], dtype: str = "f32") -> Value:
        """A parameter with normal numbers."""
        path = f"w{len(self.weights)}"
        self.weights[path] = self._array(shape, dtype)
        attrs = {"path": path, "init": ("zeros",), "kind": "weight", "domain": "real"}
        return Value(self.graph.add("param", (), attrs, (TensorType(dtype, tuple(shape)),), path))

    def constant(self, array: Any, dtype: str) -> Value:
        """A constant."""
        return self.graph.add_constant(np.asarray(array, DTYPES[dtype]), dtype)

    def _array(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        kind = DTYPES[dtype]
        if kind.kind == "f":
            return self.rng.standard_normal(shape).astype(kind)
        return self.rng.integers(0, 2 if dtype == "bool" else 7, shape).astype(kind)

    def __call__(
        self, op: str, *operands: Value, region: Graph | None = None, **attrs: Any
    ) -> Value:
        types = [self.graph.type_of(v) for v in operands]
        if op in WITH_REGION:
            assert region is not None
            made = region_result_types(op, types, attrs, region)
        else:
            made = infer(op, types, attrs)
        regions = () if region is None else (region,)
        return Value(self.graph.add(op, operands, attrs, made, "", None, regions))

    def output(self, *values: Value) -> Build:
        """Put values out."""
        for value in values:
            self.graph.set_output(f"y{len(self.graph.outputs)}", value)
        return self


def region(*kinds: TensorType) -> Build:
    """A region under construction; its inputs are the graph's."""
    made = Build()
    made.values = [made.graph.add_input(f"a{i}", kind) for i, kind in enumerate(kinds)]
    return made


def compiled(
    graph: Graph, weights: dict[str, np.ndarray], threads: int = 1, width: int = 0,
    fused: bool = True,
) -> Module:  # fmt: skip
    """The module of a graph, by way of its readable text."""
    if fused:
        graph = pipeline.run(graph).graph
    plan = cpu.lower(graph, Target(width or lanes(), threads))
    return Module(plan_of(module_text(plan, "test"), "test"), weights, threads)


def check(b: Build, tolerance: float = 1e-5, fused: bool = False, **how: Any) -> Module:
    """Every output agrees with the reference in float64, relative to its largest element."""
    expected = interpret(b.graph, b.inputs, b.weights, precision="f64")
    module = compiled(b.graph, b.weights, fused=fused, **how)
    for _ in range(2):
        # The arena of the first call is full of numbers in the second: nothing may rely on zeros.
        for frame in module._pool:
            frame.arena.view(np.float32)[:] = np.nan
        found = module.run(b.inputs)
        for name, reference in expected.items():
            agree(found[name], reference, tolerance, name)
    return module


def agree(found: np.ndarray, reference: np.ndarray, tolerance: float, name: str = "") -> None:
    """Equal up to ``tolerance`` of the largest element; what is not finite is in equal places."""
    assert found.shape == reference.shape, name
    assert found.dtype.kind == reference.dtype.kind, name
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, reference, name)
        return
    ours, wanted = found.astype(np.float64), reference.astype(np.float64)
    odd = ~np.isfinite(wanted)
    np.testing.assert_array_equal(ours[odd], wanted[odd], name)
    gap = np.abs(ours[~odd] - wanted[~odd]).max(initial=0)
    size = max(np.abs(wanted[~odd]).max(initial=0), 1e-30)
    assert gap <= tolerance * size, f"{name}: {gap / size:.2e}"

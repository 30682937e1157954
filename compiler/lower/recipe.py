"""Ops written in terms of simpler ones, at the place where they are lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.graph import Graph, Node, Value
from ..ir.types import AttrValue, TensorType
from ..ops.expr import Writer
from ..options import Options
from ..passes.fuse_elementwise import fuse_elementwise
from ..rewrite import Rewriter
from .cpu import Lowering
from .cpu_loops import given


class Recipe:
    """A region under construction, for values of the graph around it."""

    def __init__(self, state: Lowering, values: Sequence[Value]) -> None:
        self.state = state
        self.graph = Graph("recipe")
        self.outer = list(values)
        self.inputs = [self.graph.add_input("a", state.type_of(v)) for v in values]
        self.writer = Writer(self.graph)

    def __call__(
        self, op: str, *operands: Value, attrs: Mapping[str, AttrValue] | None = None
    ) -> Value:
        """Add an op; types by its rule."""
        return self.writer.emit(op, operands, attrs)[0]

    def type_of(self, value: Value) -> TensorType:
        """The type of a value of the region."""
        return self.graph.type_of(value)

    def finish(self, index: int, *results: Value) -> None:
        """Emit the region under the name of node ``index``; its results are those of that node."""
        for place, value in enumerate(results):
            self.graph.set_output(f"r{place}", value)
        rewriter = Rewriter(self.graph)
        label = self.state.graph.node(index).name
        for inner in rewriter.all():
            if not rewriter.node(inner).name:
                rewriter.rename(inner, label)
        fuse_elementwise(rewriter, Options())
        region = rewriter.graph
        body = self.state.inside(region, [given(self.state, v) for v in self.outer])
        for place, (_, value) in enumerate(region.outputs):
            if self.state.type_of(Value(index, place)).rank != 4:
                body.goals[value] = self.state.new_flat(Value(index, place))
        body.run()
        for place, (_, value) in enumerate(region.outputs):
            stored: Any = body.stored.get(value)
            self.state.stored[Value(index, place)] = stored or body.view(value)


def with_prologue(r: Recipe, x: Value, named: Mapping[str, Value], node: Node) -> Value:
    """What happens to a fused product's input."""
    if node.attrs.get("prologue"):
        x = r("affine", x, named["scale"], named["shift"])
    return r("relu", x) if node.attrs.get("prologue") == "affine_relu" else x


def with_epilogue(r: Recipe, y: Value, named: Mapping[str, Value], node: Node) -> Value:
    """What happens to a fused product's result, after its bias."""
    y = r("add", y, named["residual"]) if "residual" in named else y
    activation = str(node.attrs.get("activation", ""))
    attrs: Any = node.attrs.get("activation_attrs", ())
    return r(activation, y, attrs=dict(attrs)) if activation else y

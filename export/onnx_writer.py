"""Writing a Graph with its weights as an ONNX file."""

# The packages are extras, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.interpret import bind_sizes
from ..compiler.ir.dims import Dim, DimLike, evaluate
from ..compiler.ir.graph import Graph, Value
from ..compiler.ir.types import DTYPES, TensorType
from ..compiler.ops.base import OpError
from . import onnx_loops as onnx_loops
from . import onnx_nets as onnx_nets
from . import onnx_tensors as onnx_tensors
from .onnx_graph import ELEMENT_TYPES, Body, Call, Emitter

OPSET = 20
IR_VERSION = 9
"""The oldest that holds the opset, for readers that are not new."""

LIMIT = 2**31 - 2**20
"""Bytes that one file of protocol buffers can hold."""


def write_onnx(
    graph: Graph,
    params: Mapping[str, np.ndarray],
    path: str | os.PathLike[str] | None = None,
    sizes: Mapping[str, DimLike] | None = None,
) -> Any:
    """The graph as an ``onnx.ModelProto``, also written to ``path`` when it is given.

    Inputs and outputs keep their names; weights are initialisers named by their paths. Sizes left
    open become named dimensions where ONNX allows it. Weights above 2 GiB go to ``path`` with
    ``.data`` after it.

    Raises
    ------
    OpError
        E804 for an op that ONNX has no form of, or without the ``onnx`` package; E801 for a
        weight that is missing or of another shape; E805 for an open size that must be known.
    """
    if importlib.util.find_spec("onnx") is None:
        message = "writing ONNX needs the package `onnx`, which is not installed"
        raise OpError("E804", message, "pip install 'tilth[onnx]'")
    body, arrays = emit(graph, params, sizes)
    return _write(_model(body, arrays), path, sum(a.nbytes for a in arrays.values()))


def emit(
    graph: Graph, params: Mapping[str, np.ndarray], sizes: Mapping[str, DimLike] | None = None
) -> tuple[Body, dict[str, np.ndarray]]:
    """The ONNX graph as records, and its initialisers by name; needs no ``onnx``."""
    bound = graph.bind(_all_sizes(graph, sizes or {}))
    e = Emitter(Body(bound.name or "graph"))
    for index in bound.inputs:
        node = bound.node(index)
        e.body.inputs.append((node.name, node.type))
        e.names[Value(index)] = node.name
    for index, node in bound.of_op("param"):
        weight = str(node.attrs["path"])
        e.arrays[weight] = _weight(weight, params, node.type)
        e.names[Value(index)] = weight
    e.graph(bound)
    return e.body, e.arrays


# ---------------------------------------------------------------- sizes and weights


def _all_sizes(graph: Graph, sizes: Mapping[str, DimLike]) -> dict[str, DimLike]:
    """The sizes given, checked against the graph's constraints once all are numbers."""
    known = {name: size for name, size in sizes.items() if isinstance(size, int)}
    if graph.symbols <= known.keys():
        shapes = {
            graph.node(i).name: tuple(evaluate(d, known) for d in graph.node(i).type.shape)
            for i in graph.inputs
        }
        bind_sizes(graph, shapes, None, known)
    return dict(sizes)


def _weight(path: str, params: Mapping[str, np.ndarray], kind: TensorType) -> np.ndarray:
    if path not in params:
        raise OpError("E801", f"weight {path} is missing; expected {kind}")
    array = np.asarray(params[path])
    if array.shape != tuple(kind.shape):
        raise OpError("E801", f"weight {path}: expected {kind}, found {list(array.shape)}")
    return array.astype(DTYPES[kind.dtype], copy=False)


# ---------------------------------------------------------------- protocol buffers


def _model(body: Body, arrays: Mapping[str, np.ndarray]) -> Any:
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    model = helper.make_model(
        _graph(body, tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="tilth",
    )
    model.ir_version = IR_VERSION
    return model


def _graph(body: Body, tensors: list[Any]) -> Any:
    from onnx import helper

    nodes = [_node(call, place) for place, call in enumerate(body.calls)]
    inputs, outputs = ([_info(*port) for port in ports] for ports in (body.inputs, body.outputs))
    return helper.make_graph(nodes, body.name, inputs, outputs, tensors)


def _node(call: Call, place: int) -> Any:
    from onnx import helper

    attrs: dict[str, Any] = {
        name: _graph(value, []) if isinstance(value, Body) else value
        for name, value in call.attrs.items()
        if not (isinstance(value, list) and not value)
    }
    name = f"{call.label}_{place}"
    return helper.make_node(call.op, list(call.inputs), list(call.outputs), name, **attrs)


def _info(name: str, kind: TensorType) -> Any:
    from onnx import helper

    shape = [str(d) if isinstance(d, Dim) else d for d in kind.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[kind.dtype], shape)


def _write(model: Any, path: str | os.PathLike[str] | None, size: int) -> Any:
    if path is None:
        return model
    import onnx

    file = Path(path)
    beside = file.name + ".data"
    if size > LIMIT:
        onnx.save_model(
            model, file, save_as_external_data=True, location=beside, convert_attribute=False
        )
    else:
        onnx.save_model(model, file)
    return model

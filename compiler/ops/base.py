"""What an op is, the table that holds them all, and how the language reaches them.

An :class:`Op` is what the graph contains: operands, attributes, a shape rule and a numpy reference
that defines its meaning. A :class:`Layer` is what the language calls (``conv(64, 3)``): it declares
the settings a user writes and builds nodes from them, making weights on the way. An op that needs
no weights and whose settings are its attributes gets its layer from :func:`layer_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..ir.dims import DimLike
from ..ir.graph import Graph, Value
from ..ir.types import Attrs, AttrValue, Span, TensorType

if TYPE_CHECKING:
    from .expr import Expr, Pullback


class OpError(Exception):
    """A fault in how an op is used; the elaborator adds the place.

    ``code`` is a diagnostic code (``E1xx`` shapes and types, ``E4xx`` settings). ``span`` is the
    place of a fault that only shows after elaboration, ``found`` what is printed beside it.
    """

    def __init__(
        self, code: str, message: str, hint: str | None = None, span: Span | None = None,
        found: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.span = span
        self.found = found


REQUIRED = object()
"""The default of a setting that must be given."""


@dataclass(frozen=True)
class Setting:
    """One setting of a layer. ``kind`` is one of ``KINDS``; ``choices`` limits a ``choice``."""

    name: str
    kind: str
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()


KINDS = (
    "int",
    "ints",
    "float",
    "number",
    "numbers",
    "bool",
    "str",
    "choice",
    "dtype",
    "shape",
    "rule",
)
"""``int`` a whole number or size; ``ints`` one or a list of them; ``float`` any real number;
``number`` int or float kept as given; ``numbers`` a list; ``shape`` a list of sizes; ``rule`` an
initialiser such as ``he`` or ``normal(0, 0.01)``."""


@dataclass(frozen=True)
class Operand:
    """One operand. A ``variadic`` operand (the last) takes the rest; ``optional`` may be absent."""

    name: str
    optional: bool = False
    variadic: bool = False


ShapeRule = Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]
CostRule = Callable[[Sequence[TensorType], Sequence[TensorType], Attrs], DimLike]
Reference = Callable[..., Any]
Gradient = Callable[["Pullback"], "Sequence[Expr | None]"]
"""Emits the operands' cotangents from those of the results; ``None`` where there is none."""

Expansion = Callable[["Sequence[Expr]", Attrs], "Expr | Sequence[Expr]"]
"""The same results by simpler ops, from the operands."""


@dataclass(frozen=True)
class Op:
    """One row of the op table.

    ``shape(types, attrs)`` gives result types or raises :class:`OpError`.
    ``reference(*arrays, **attrs)`` computes in the dtype it is given and returns one array or a
    tuple; when it is ``None``, ``why_no_reference`` says why. ``macs`` counts multiply-accumulates.
    ``batching`` tells how the op maps over leading index axes in an equation:

    * ``elementwise`` - broadcasts like numpy; nothing to do,
    * ``leading`` - the first axis is a batch; index axes are merged into it,
    * ``last`` - works on trailing axes and treats all leading ones as batch,
    * ``axis`` - attributes named in ``axis_attrs`` shift by the number of index axes,
    * ``none`` - cannot be used inside an equation over an index.

    ``gradient`` is entered by :func:`gradient_of` and :func:`expansion_of`, in the family's file
    under ``gradients/``. Without one, or when it is zero everywhere (:func:`zero_gradient`),
    ``why_no_gradient`` says why.
    """

    name: str
    operands: tuple[Operand, ...]
    shape: ShapeRule
    reference: Reference | None
    doc: str
    attrs: tuple[str, ...] = ()
    batching: str = "none"
    axis_attrs: tuple[str, ...] = ("axis",)
    macs: CostRule | None = None
    random: bool = False
    why_no_reference: str = ""
    gradient: Gradient | None = None
    expansion: Expansion | None = None
    why_no_gradient: str = ""


class Builder(Protocol):
    """What a layer may ask for while it builds nodes (the elaborator implements it)."""

    graph: Graph

    def emit(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, AttrValue] | None = None
    ) -> Any:
        """Add a node, types by its shape rule; one Value, or a tuple when it has several."""
        ...

    def param(
        self,
        name: str,
        shape: Sequence[DimLike],
        init: AttrValue,
        kind: str = "weight",
        dtype: str | None = None,
    ) -> Value:
        """A weight at the current path; ``kind`` is ``weight``, ``bias``, ``norm``, ``buffer``."""
        ...

    def type_of(self, value: Value) -> TensorType:
        """The type of a value."""
        ...


@dataclass(frozen=True)
class Layer:
    """A name of the language that builds nodes.

    ``operands`` is (fewest, most) tensors it applies to (most ``None``: any number).
    ``build(builder, tensors, **settings)`` returns a Value or a tuple of Values.
    ``batching`` is as in :class:`Op`, for layers that are used inside indexed equations.
    """

    name: str
    settings: tuple[Setting, ...]
    operands: tuple[int, int | None]
    build: Callable[..., Any]
    doc: str
    batching: str = "none"
    has_weights: bool = False


OPS: dict[str, Op] = {}
LAYERS: dict[str, Layer] = {}


def define(op: Op) -> Op:
    """Enter an op in the table."""
    if op.name in OPS:
        raise ValueError(f"op {op.name} is declared twice")
    OPS[op.name] = op
    return op


def gradient_of(*names: str) -> Callable[[Gradient], Gradient]:
    """Enter the gradient of ops."""

    def enter(gradient: Gradient) -> Gradient:
        for name in names:
            _enter_gradient(name, gradient=gradient)
        return gradient

    return enter


def expansion_of(*names: str) -> Callable[[Expansion], Expansion]:
    """Enter what ops are in simpler ones; unless they have a gradient, it is that of these."""

    def enter(expansion: Expansion) -> Expansion:
        for name in names:
            if OPS[name].gradient is None and not OPS[name].why_no_gradient:
                _enter_gradient(name, gradient=_through_expansion)
            OPS[name] = replace(OPS[name], expansion=expansion)
        return expansion

    return enter


def zero_gradient(why: str, *names: str) -> None:
    """State that the derivative of ops is zero wherever it exists, and why."""
    for name in names:
        _enter_gradient(name, gradient=ZERO, why_no_gradient=why)


def no_gradient(why: str, *names: str) -> None:
    """State why ops cannot be differentiated."""
    for name in names:
        _enter_gradient(name, why_no_gradient=why)


def ZERO(pull: Pullback) -> Sequence[Expr | None]:
    """The gradient of ops whose derivative is zero wherever it exists."""
    return [None] * len(pull.x)


def _through_expansion(pull: Pullback) -> Sequence[Expr | None]:
    return pull.through_expansion()


def _enter_gradient(name: str, **entries: Any) -> None:
    if OPS[name].gradient is not None or OPS[name].why_no_gradient:
        raise ValueError(f"the gradient of {name} is declared twice")
    OPS[name] = replace(OPS[name], **entries)


def define_layer(layer: Layer) -> Layer:
    """Enter a layer in the table."""
    if layer.name in LAYERS:
        raise ValueError(f"layer {layer.name} is declared twice")
    LAYERS[layer.name] = layer
    return layer


def layer_of(op: Op, *settings: Setting, name: str | None = None) -> Layer:
    """The layer of an op without weights whose settings are its attributes, one to one."""
    fewest = sum(1 for o in op.operands if not o.optional and not o.variadic)
    most = None if any(o.variadic for o in op.operands) else len(op.operands)
    if any(o.variadic for o in op.operands):
        fewest = max(fewest, 1)

    def build(builder: Builder, tensors: Sequence[Value], **values: AttrValue) -> Any:
        return builder.emit(op.name, tensors, values)

    return define_layer(
        Layer(name or op.name, settings, (fewest, most), build, op.doc, op.batching)
    )


def infer(op_name: str, types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    """Result types of an op; raises :class:`OpError`."""
    return tuple(OPS[op_name].shape(types, attrs))


def as_arrays(result: Any) -> tuple[np.ndarray, ...]:
    """A reference's answer as a tuple of arrays."""
    if isinstance(result, tuple):
        return tuple(np.asarray(r) for r in result)
    return (np.asarray(result),)

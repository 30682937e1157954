"""What an expression of the language can evaluate to while a spec is elaborated.

Constants are plain Python values (``int``, ``float``, ``bool``, ``str``, symbolic ``Dim``, lists).
Everything else is one of the classes below. A :class:`Tensor` inside an equation over indices
carries *labels*: its leading axes run over index variables, the rest is what one element looks
like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Union

from ...compiler.ir.dims import Dim, DimLike
from ...compiler.ir.graph import Value
from ...compiler.ir.types import Span, TensorType
from .. import syntax as s

if TYPE_CHECKING:
    from ...compiler.ops.base import Layer
    from .builder import GraphBuilder
    from .environment import Env
    from .scope import Scope

BATCH = "N"
_numbers = count(1)


@dataclass(frozen=True)
class Axis:
    """A leading axis that runs over an index: ``low <= index < low + size``.

    ``kind`` is ``index``, ``batch`` (the implied first axis), ``latent`` (the values of a random
    variable) or ``branch`` (the outcomes of a random step). ``grid`` holds the extents when the
    index is a position. An ``inner`` batch did not come first in the tensor it was taken from.
    """

    name: str
    size: DimLike
    low: DimLike = 0
    kind: str = "index"
    grid: tuple[DimLike, ...] | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    inner: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Edge:
    """The value of a recurrence one step outside its range; see :class:`Tensor`."""

    place: int
    side: int
    value: Value
    at: int


@dataclass(frozen=True)
class Tensor:
    """A value of the graph under construction; see the module's text for ``labels``.

    ``grid`` is set when the last axis holds the coordinates of a position on a grid. ``edge`` is
    what an equation set one step outside the range: the index's place, before it (-1) or after it
    (1), and the value, of size 1 along the axis ``at``.
    """

    value: Value
    home: GraphBuilder = field(repr=False, compare=False)
    labels: tuple[Axis, ...] = ()
    grid: tuple[DimLike, ...] | None = None
    edge: Edge | None = field(default=None, repr=False, compare=False)

    @property
    def type(self) -> TensorType:
        """Type of the whole node, labels included."""
        return self.home.type_of(self.value)

    @property
    def dtype(self) -> str:
        """Element type."""
        return self.type.dtype

    @property
    def rest(self) -> tuple[DimLike, ...]:
        """Shape of one element, labels left out."""
        return self.type.shape[len(self.labels) :]


@dataclass(frozen=True)
class Unknown:
    """A tensor whose type is being inferred (the first round over a recurrence)."""


@dataclass(frozen=True)
class TupleValue:
    """Several values side by side."""

    items: tuple[Any, ...]


@dataclass(frozen=True)
class LabelIndex:
    """An index variable that is an axis of every tensor it touches."""

    axis: Axis
    offset: DimLike = 0


@dataclass(frozen=True)
class ScanIndex:
    """An index variable inside the body of a recurrence: one step at a time."""

    name: str
    low: DimLike
    size: DimLike
    home: Any
    offset: int = 0


@dataclass(frozen=True)
class DistributionValue:
    """A distribution with its parameters: ``normal(mu, sd)``."""

    name: str
    params: Mapping[str, Any]
    span: Span
    branches: tuple[tuple[Any, Any], ...] = ()


@dataclass(frozen=True)
class RandomVariable:
    """The variable of one or more ``~`` statements."""

    name: str


@dataclass(frozen=True)
class Record:
    """A structure of tensors: ``table[s, a]``, ``sparse[f32, V, V]``."""

    kind: str
    fields: Mapping[str, Tensor]
    columns: DimLike = 0

    @property
    def shape(self) -> tuple[DimLike, ...]:
        """The axes that indices walk over."""
        if self.kind == "sparse":
            return (self.fields["indptr"].type.shape[0] - 1, self.columns)
        return next(iter(self.fields.values())).type.shape


# ---------------------------------------------------------------- blocks


@dataclass(frozen=True)
class OpBlock:
    """A layer with its settings, waiting for tensors."""

    layer: Layer
    settings: Mapping[str, Any]
    span: Span


@dataclass(frozen=True)
class IdentityBlock:
    """``id``: the empty chain."""

    span: Span


@dataclass(frozen=True)
class PipeBlock:
    """``a >> b >> c`` or ``chain([...])``."""

    parts: tuple[BlockLike, ...]
    span: Span


@dataclass(frozen=True)
class CombineBlock:
    """``f + g`` and the like: both on the same input; ``at`` is the operator's own place."""

    op: str
    left: Any
    right: Any
    span: Span
    at: Span


@dataclass(frozen=True)
class FanBlock:
    """``(f, g)``: one input, a tuple of results."""

    parts: tuple[Any, ...]
    span: Span


@dataclass(frozen=True)
class SideBlock:
    """``f | g``: side by side on a tuple."""

    parts: tuple[Any, ...]
    span: Span


@dataclass(frozen=True)
class RepeatBlock:
    """``f ^ n``."""

    body: BlockLike
    times: int
    span: Span


@dataclass(frozen=True)
class NegateBlock:
    """``-f``."""

    body: BlockLike
    span: Span


@dataclass(frozen=True)
class LabelBlock:
    """``f as name``."""

    body: BlockLike
    name: str
    pattern: bool
    env: Env
    span: Span


@dataclass(frozen=True)
class DefBlock:
    """A call of a ``def`` that makes a block; it may open a level of the weight path."""

    name: str
    body: Any
    span: Span


@dataclass(frozen=True)
class DelayedBlock:
    """The body of a ``def`` that looks at its input ``_``; evaluated anew at each application."""

    body: s.Expr | s.Block
    env: Env
    span: Span


@dataclass(frozen=True)
class FnBlock:
    """``fn(a, b) { ... }``."""

    params: tuple[str, ...]
    body: s.Block
    env: Env
    span: Span


@dataclass
class Instance:
    """A named block: its weights arise at the first use and are shared by all.

    ``first`` and ``place`` are where it is used first and last, ``seen`` the paths of this use.
    One that is made inside another shares that one's weights.
    """

    name: str
    block: BlockLike
    path: str
    span: Span
    weights: dict[str, tuple[Value, TensorType]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    first: Span | None = None
    place: Span | None = None


@dataclass(frozen=True)
class SpecBlock:
    """The net of another spec (``use:``)."""

    alias: str
    scope: Scope
    span: Span


@dataclass(frozen=True)
class DefValue:
    """A ``def`` itself."""

    statement: s.Definition
    scope: Scope


BlockLike = Union[
    OpBlock, IdentityBlock, PipeBlock, CombineBlock, FanBlock, SideBlock, RepeatBlock, NegateBlock,
    LabelBlock, DefBlock, DelayedBlock, FnBlock, Instance, SpecBlock,
]  # fmt: skip
BLOCKS = (
    OpBlock, IdentityBlock, PipeBlock, CombineBlock, FanBlock, SideBlock, RepeatBlock, NegateBlock,
    LabelBlock, DefBlock, DelayedBlock, FnBlock, Instance, SpecBlock,
)  # fmt: skip


def is_block(value: Any) -> bool:
    """Whether ``value`` is applied to tensors."""
    return isinstance(value, BLOCKS)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a constant number (a symbolic size counts)."""
    return isinstance(value, (int, float, Dim)) and not isinstance(value, bool)


def is_constant(value: Any) -> bool:
    """Whether ``value`` is known while compiling."""
    if isinstance(value, (list, tuple)):
        return all(is_constant(item) for item in value)
    return isinstance(value, (bool, int, float, str, Dim))


def describe(value: Any) -> str:
    """What a value is, in a message."""
    if isinstance(value, Tensor):
        return f"a tensor {value.type}" if not value.labels else "a tensor"
    if isinstance(value, TupleValue):
        return f"a tuple of {len(value.items)}"
    if isinstance(value, bool):
        return f"the condition {str(value).lower()}"
    if isinstance(value, (int, float, Dim)):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the text "{value}"'
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if is_block(value):
        return "a block"
    if isinstance(value, DistributionValue):
        return f"the distribution {value.name}"
    if isinstance(value, RandomVariable):
        return f"the random variable {value.name}"
    if isinstance(value, (LabelIndex, ScanIndex)):
        return "an index"
    if isinstance(value, DefValue):
        return f"the definition {value.statement.name}"
    if isinstance(value, Record):
        return f"a {value.kind}"
    return "a value whose type is not known yet"

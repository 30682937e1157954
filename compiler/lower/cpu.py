"""From a fused graph with known sizes to a plan for the CPU: one function an op, by table.

Each lowering asks for its operands' storage in the layout it wants, makes its result's storage and
emits rows. Concatenations of whole blocks are views: their operands are placed inside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ...runtime.abi import Address, Step, Word
from ...runtime.module import KernelSpec, Port, Row
from ..ir.graph import Graph, Node, Value
from ..ir.types import DTYPES, TensorType
from ..ops import OpError
from .load import LoadProgram, Packed
from .storage import BLOCK, Arena, Blocked, Flat, Lane, Mapped, Place, Storage
from .target import Target

SCRATCH = Address("scratch", 0)
LEAVES = ("param", "constant", "input")


@dataclass
class PendingRow:
    """A row whose addresses are not known yet."""

    kernel: KernelSpec
    tasks: int
    words: list[Any]
    label: str


@dataclass
class Lowering:
    """The state of one lowering."""

    graph: Graph
    target: Target
    arena: Arena = field(default_factory=Arena)
    rows: list[PendingRow] = field(default_factory=list)
    stored: dict[Value, Storage] = field(default_factory=dict)
    scratch: int = 0
    tables: list[tuple[Packed, tuple[Lane, ...], Place]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.load = LoadProgram(self.graph)
        self.phases = load_phase(self.graph)
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.parents = placements(self.graph, self.phases)
        self.readers = {index: self.graph.users(index) for index, _ in self.graph.nodes()}

    # ------------------------------------------------------------ asking

    def type_of(self, value: Value) -> TensorType:
        """Type of a value (sizes are numbers here)."""
        return self.graph.type_of(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape as integers."""
        return tuple(cast(int, d) for d in self.graph.type_of(value).shape)

    def blocked(self, value: Value) -> Blocked:
        """A value in blocked layout, converted when it is not."""
        found = self.stored[value]
        if isinstance(found, Blocked):
            return found
        from .cpu_layout import gather_lanes, to_blocked

        if isinstance(found, Mapped):
            return gather_lanes(self, value, found)
        return to_blocked(self, value, found)

    def flat(self, value: Value) -> Flat:
        """A value in row-major layout, converted when it is not."""
        found = self.stored[value]
        if isinstance(found, Flat):
            return found
        from .cpu_layout import to_flat

        return to_flat(self, value, self.blocked(value))

    # ------------------------------------------------------------ making

    def new_blocked(self, value: Value) -> Blocked:
        """Storage for a blocked result; inside its concatenation when it has one."""
        if value in self.stored:
            return cast(Blocked, self.stored[value])
        n, c, h, w = self.shape(value)
        parent = self.parents.get(value)
        if parent is not None:
            outer = self.new_blocked(parent.value)
            place = outer.place.moved(parent.channel // BLOCK * outer.block)
            made = Blocked(place, n, c, h, w)
        else:
            blank = Blocked(Place(None), n, c, h, w)
            made = Blocked(Place(self.arena.new(blank.bytes)), n, c, h, w)
        self.stored[value] = made
        return made

    def loose_blocked(self, shape: Sequence[int]) -> Blocked:
        """Storage for a step in between that no value of the graph names."""
        n, c, h, w = shape
        blank = Blocked(Place(None), n, c, h, w)
        return Blocked(Place(self.arena.new(blank.bytes)), n, c, h, w)

    def flat_or_packed(self, value: Value) -> tuple[Any, str]:
        """The word and element type of a row-major operand, from the weights if it is one."""
        kind = self.type_of(value)
        if value.node in self.phases:
            size = DTYPES[kind.dtype].itemsize
            for dim in self.shape(value):
                size *= dim
            text = f"np.ascontiguousarray({self.load.text(value)}, np.{DTYPES[kind.dtype]})"
            return self.load.pack("operand", text, size), kind.dtype
        return self.flat(value).place, kind.dtype

    def new_flat(self, value: Value) -> Flat:
        """Storage for a row-major result; the output's own array when it is one."""
        kind = self.type_of(value)
        shape = self.shape(value)
        port = self.port_of(value)
        if port is not None:
            place = Place(None, 0, port)
        else:
            size = DTYPES[kind.dtype].itemsize
            for dim in shape:
                size *= dim
            place = Place(self.arena.new(size))
        made = Flat(place, shape, kind.dtype)
        self.stored[value] = made
        return made

    def port_of(self, value: Value) -> int | None:
        """The call's array that a value is written to directly, if it is an output."""
        for place, (_, output) in enumerate(self.graph.outputs):
            if output == value:
                return len(self.graph.inputs) + place
        return None

    def emit(
        self, kernel: KernelSpec, tasks: int, names: Sequence[str], words: Mapping[str, Any],
        label: str, scratch: int = 0,
    ) -> None:  # fmt: skip
        """Append a row; ``words`` by name, missing ones are 0. Places keep their buffers alive."""
        unknown = set(words) - set(names)
        if unknown:
            raise ValueError(f"{kernel.name} has no words {sorted(unknown)}")
        self.emit_words(kernel, tasks, [words.get(name, 0) for name in names], label, scratch)

    def emit_words(
        self, kernel: KernelSpec, tasks: int, values: Sequence[Any], label: str, scratch: int = 0
    ) -> None:
        """Append a row whose words are in order already."""
        step = len(self.rows)
        for value in values:
            if isinstance(value, Place) and value.buffer is not None:
                value.buffer.touch(step)
        self.scratch = max(self.scratch, scratch)
        self.rows.append(PendingRow(kernel, tasks, list(values), label))

    def lane_table(self, lanes: Sequence[Lane], label: str) -> tuple[Packed, Place]:
        """A table of channels' offsets from a base; filled in when buffers have places.

        The buffers stay alive at the row that is emitted next.
        """
        for lane in lanes:
            if lane.block.buffer is None:
                raise OpError("E804", "a channel map of the caller's array is not possible")
            lane.block.buffer.touch(len(self.rows))
        base = lanes[0].block
        packed = self.load.reserve(f"{label}.map", len(lanes) * 8)
        self.tables.append((packed, tuple(lanes), base))
        return packed, base

    # ------------------------------------------------------------ finishing

    def finish(self, name: str) -> LoweredPlan:
        """Offsets for all buffers, addresses for all words."""
        arena_bytes = self.arena.layout()
        slot = -(-self.scratch // 64) * 64
        for packed, lanes, base in self.tables:
            start = base.resolve().offset
            offsets = [lane.place.resolve().offset - start for lane in lanes]
            self.load.fill(packed, f"np.array({offsets}, np.int64)")
        rows = []
        for row in self.rows:
            words = tuple(_resolve(word, slot) for word in row.words)
            rows.append(Row(row.kernel, Step(row.kernel.name, row.tasks, words, row.label)))
        return LoweredPlan(
            name, tuple(self.inputs), tuple(self.outputs), tuple(rows), arena_bytes, slot,
            self.load,
        )  # fmt: skip


class ScratchSlot:
    """The word that is the size of one thread's scratch."""


SCRATCH_SLOT = ScratchSlot()


def _resolve(word: Any, slot: int) -> Word:
    if isinstance(word, (Place, Packed)):
        return word.resolve()
    if isinstance(word, ScratchSlot):
        return slot
    return word


@dataclass(frozen=True)
class LoweredPlan:
    """A plan and the program of its load phase."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    rows: tuple[Row, ...]
    arena_bytes: int
    scratch_bytes: int
    load: LoadProgram


@dataclass(frozen=True)
class Parent:
    """Where a value lies inside the concatenation it belongs to."""

    value: Value
    channel: int


def load_phase(graph: Graph) -> set[int]:
    """Nodes that depend on parameters and constants alone."""
    found: set[int] = set()
    for index, node in graph.nodes():
        operands = graph.operands(index)
        fixed = node.op in ("param", "constant", "fill", "iota", "eye")
        derived = node.op != "input" and operands and all(v.node in found for v in operands)
        if fixed or derived:
            found.add(index)
    return found


def placements(graph: Graph, loaded: set[int]) -> dict[Value, Parent]:
    """Operands of channel concatenations that can be written in place: whole blocks, one parent."""
    found: dict[Value, Parent] = {}
    for index, node in graph.nodes():
        if node.op != "concat" or node.attrs["axis"] != 1 or node.type.rank != 4:
            continue
        if not in_whole_blocks(graph, index):
            continue
        channel = 0
        for value in graph.operands(index):
            size: Any = graph.type_of(value).shape[1]
            producer = graph.node(value.node)
            movable = producer.op not in (*LEAVES, "split", "slice", "take", "reshape")
            movable = movable and value.node not in loaded and value not in found
            if (
                isinstance(size, int)
                and channel % BLOCK == 0
                and movable
                and (graph.operands(index).count(value) == 1)
            ):
                found[value] = Parent(Value(index), channel)
            channel += size
    return found


def in_whole_blocks(graph: Graph, index: int) -> bool:
    """Whether every operand of a concatenation begins at a block."""
    *rest, _ = graph.operands(index)
    return all(graph.type_of(v).shape[1] % BLOCK == 0 for v in rest)


LowerRule = Callable[[Lowering, int, Node], None]
RULES: dict[str, LowerRule] = {}
"""How each op is lowered; filled by the ``cpu_*`` modules."""


def rule(*ops: str) -> Callable[[LowerRule], LowerRule]:
    """Enter a function as the lowering of some ops."""

    def enter(function: LowerRule) -> LowerRule:
        for op in ops:
            RULES[op] = function
        return function

    return enter


def load_rules() -> None:
    """Import the modules that fill the table; they import this one."""
    from . import cpu_conv as cpu_conv
    from . import cpu_elements as cpu_elements
    from . import cpu_layout as cpu_layout
    from . import cpu_linear as cpu_linear
    from . import cpu_simple as cpu_simple


def lower(graph: Graph, target: Target) -> LoweredPlan:
    """Lower a fused graph whose sizes are all numbers.

    Raises :class:`OpError` E804 for an op that has no kernel yet.
    """
    load_rules()
    state = Lowering(graph, target)
    for place, index in enumerate(graph.inputs):
        node = graph.node(index)
        shape = tuple(cast(int, d) for d in node.type.shape)
        state.inputs.append(Port(node.name, str(DTYPES[node.type.dtype]), shape))
        state.stored[Value(index)] = Flat(Place(None, 0, place), shape, node.type.dtype)
    for index, node in graph.nodes():
        if node.op in LEAVES or index in state.phases:
            continue
        if node.op not in RULES:
            raise OpError("E804", f"there is no CPU kernel for `{node.op}` yet",
                          "run it with `--engine reference`")  # fmt: skip
        RULES[node.op](state, index, node)
    for name, value in graph.outputs:
        kind = graph.type_of(value)
        shape = tuple(cast(int, d) for d in kind.shape)
        state.outputs.append(Port(name, str(DTYPES[kind.dtype]), shape))
    from .cpu_layout import deliver_outputs

    deliver_outputs(state)
    return state.finish(graph.name)

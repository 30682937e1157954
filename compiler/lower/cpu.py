"""From a fused graph with known sizes to a plan for the CPU: one function an op, by table.

Each lowering asks for its operands' storage in the layout it wants, makes its result's storage and
emits rows. Concatenations of whole blocks are views: their operands are placed inside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, cast

import numpy as np

from ...runtime.abi import Address, Step, Word
from ...runtime.module import Check, KernelSpec, Port, Row
from ..ir.graph import Graph, Node, Value
from ..ir.types import DTYPES, TensorType
from ..ops import OPS, OpError
from .load import LoadProgram, LoadText, Packed
from .storage import BLOCK, Arena, Blocked, Buffer, Flat, Lane, Loop, Mapped, Place, Storage
from .target import Target

SCRATCH = Address("scratch", 0)
LEAVES = ("param", "constant", "input")


@dataclass
class PendingRow:
    """A row whose addresses are not known yet; without a kernel it is the end of a loop."""

    kernel: KernelSpec | None
    tasks: int
    words: list[Any]
    label: str


@dataclass
class Emission:
    """What is emitted so far; lowerings of regions share it.

    ``loop`` is the one being emitted, ``owners`` the nodes that rows belong to (see
    :class:`LoweredPlan`).
    """

    arena: Arena = field(default_factory=Arena)
    rows: list[PendingRow] = field(default_factory=list)
    scratch: int = 0
    tables: list[tuple[Packed, tuple[Lane, ...], Place]] = field(default_factory=list)
    loop: Loop | None = None
    loops: int = 0
    cells: int = 0
    checks: list[Check] = field(default_factory=list)
    touches: list[tuple[Buffer, Loop]] = field(default_factory=list)
    owners: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class Lowering:
    """The state of one lowering: of a graph, or of a region where it stands (``inside``).

    ``goals`` says where results of a region should be written, if that can be. ``path`` are the
    loops around the region; ``None`` where all its rows belong to the node that it stands for.
    """

    graph: Graph
    target: Target
    out: Emission = field(default_factory=Emission)
    stored: dict[Value, Storage] = field(default_factory=dict)
    load: LoadProgram = field(default_factory=lambda: LoadProgram(Graph()))
    inner: bool = False
    goals: dict[Value, Flat] = field(default_factory=dict)
    path: tuple[int, ...] | None = ()

    def __post_init__(self) -> None:
        if not self.inner:
            self.load = LoadProgram(self.graph)
        self.phases = self.load.early()
        self.rows_too: dict[Value, Flat] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.parents = placements(self.graph, self.phases)
        self.spans = flat_placements(self.graph, self.phases)
        self.readers = {index: self.graph.users(index) for index, _ in self.graph.nodes()}

    def inside(
        self, region: Graph, given: Sequence[Storage | str], loop: int | None = None
    ) -> Lowering:
        """The lowering of a region, its inputs stored already or named in the load phase.

        ``loop`` is the node whose region it is, if it is a loop's.
        """
        stored = {Value(i): g for i, g in zip(region.inputs, given, strict=True)}
        names = {value: g for value, g in stored.items() if isinstance(g, str)}
        storages = {value: g for value, g in stored.items() if not isinstance(g, str)}
        load = LoadProgram(region, self.load.out, names)
        path = None if self.path is None or loop is None else (*self.path, loop)
        return Lowering(region, self.target, self.out, storages, load, True, path=path)

    def run(self) -> None:
        """Emit all nodes."""
        for index, node in self.graph.nodes():
            if node.op in LEAVES or index in self.phases:
                continue
            RULES.get(node.op, expand)(self, index, node)
            if self.path is not None:
                new = len(self.out.rows) - len(self.out.owners)
                self.out.owners += [(*self.path, index)] * new

    # ------------------------------------------------------------ asking

    def type_of(self, value: Value) -> TensorType:
        """Type of a value (sizes are numbers here)."""
        return self.graph.type_of(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape as integers."""
        return tuple(cast(int, d) for d in self.graph.type_of(value).shape)

    def blocked(self, value: Value) -> Blocked:
        """A value in blocked layout, converted when it is not."""
        found = self.stored.get(value)
        if isinstance(found, Blocked):
            return found
        from .cpu_layout import gather_lanes, to_blocked

        if isinstance(found, Mapped):
            made = gather_lanes(self, found)
        else:
            made = to_blocked(self, self.flat(value))
        self.stored[value] = made
        return made

    def view(self, value: Value) -> Flat:
        """A value by strides: row-major, a view, or packed with the weights."""
        if value.node in self.phases:
            kind = self.type_of(value)
            text = f"np.ascontiguousarray({self.load.text(value)}, np.{DTYPES[kind.dtype]})"
            packed = self.load.pack("operand", text, self.bytes_of(value))
            return Flat(packed, self.shape(value), kind.dtype)
        found = self.stored[value]
        if isinstance(found, Flat):
            return found
        from .cpu_layout import to_flat

        if value not in self.rows_too:
            self.rows_too[value] = to_flat(self, self.blocked(value))
        return self.rows_too[value]

    def flat(self, value: Value) -> Flat:
        """A value in row-major layout, copied when it is not."""
        found = self.view(value)
        if found.contiguous:
            return Flat(found.place, found.shape, found.dtype)
        from .cpu_views import compact

        made = compact(self, found)
        self.stored[value] = made
        return made

    def bytes_of(self, value: Value) -> int:
        """Size of a row-major value."""
        return prod(self.shape(value)) * DTYPES[self.type_of(value).dtype].itemsize

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
            made = Blocked(self.room(blank.bytes), n, c, h, w)
        self.stored[value] = made
        return made

    def room(self, size: int) -> Place:
        """New memory of the arena, for the loop that is being emitted."""
        return Place(self.out.arena.new(size, self.out.loop))

    def loose_blocked(self, shape: Sequence[int]) -> Blocked:
        """Storage for a step in between that no value of the graph names."""
        n, c, h, w = shape
        blank = Blocked(Place(None), n, c, h, w)
        return Blocked(self.room(blank.bytes), n, c, h, w)

    def loose_flat(self, shape: Sequence[int], dtype: str) -> Flat:
        """Row-major storage for a step in between that no value of the graph names."""
        return Flat(self.room(prod(shape) * DTYPES[dtype].itemsize), tuple(shape), dtype)

    def new_flat(self, value: Value) -> Flat:
        """Storage for a row-major result; the output's own array when it is one."""
        if value in self.stored:
            return cast(Flat, self.stored[value])
        port = self.port_of(value)
        if value in self.goals and self.goals[value].contiguous:
            made = self.goals[value]
        elif value in self.spans and port is None:
            whole, start = self.spans[value]
            kind = self.type_of(value)
            place = self.new_flat(whole).place
            offset = start * DTYPES[kind.dtype].itemsize
            made = Flat(place.moved(offset), self.shape(value), kind.dtype)
        else:
            place = Place(None, 0, port) if port is not None else self.room(self.bytes_of(value))
            made = Flat(place, self.shape(value), self.type_of(value).dtype)
        self.stored[value] = made
        return made

    def port_of(self, value: Value) -> int | None:
        """The call's array that a value is written to directly, if it is an output."""
        if self.inner:
            return None
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
        self,
        kernel: KernelSpec | None,
        tasks: int,
        values: Sequence[Any],
        label: str,
        scratch: int = 0,
    ) -> None:
        """Append a row whose words are in order already."""
        step = len(self.out.rows)
        self.out.scratch = max(self.out.scratch, scratch)
        self.out.rows.append(PendingRow(kernel, tasks, list(values), label))
        self.enter_words(step)

    def enter_words(self, step: int) -> None:
        """Keep the buffers of a row alive, and let its loop move the words that turn with it."""
        for number, value in enumerate(self.out.rows[step].words):
            if not isinstance(value, (Place, Packed)):
                continue
            if isinstance(value, Place) and value.buffer is not None:
                value.buffer.touch(step)
                if self.out.loop is not None:
                    self.out.touches.append((value.buffer, self.out.loop))
            if value.turns:
                *rest, (loop, moved) = value.turns
                start = replace(value, turns=tuple(rest))
                loop.moving.append((step, number, start, moved))

    def lane_table(self, lanes: Sequence[Lane], label: str) -> tuple[Packed, Place]:
        """A table of channels' offsets from a base; filled in when buffers have places.

        The buffers stay alive at the row that is emitted next.
        """
        for lane in lanes:
            if lane.block.buffer is None:
                raise OpError("E804", "a channel map of the caller's array is not possible")
            lane.block.buffer.touch(len(self.out.rows))
            if self.out.loop is not None:
                self.out.touches.append((lane.block.buffer, self.out.loop))
        base = lanes[0].block
        packed = self.load.reserve(f"{label}.map", len(lanes) * 8)
        self.out.tables.append((packed, tuple(lanes), base))
        return packed, base

    # ------------------------------------------------------------ finishing

    def known(self, array: np.ndarray, dtype: str) -> Flat:
        """An array known while compiling, in the weights' memory."""
        array = np.array(array, DTYPES[dtype], order="C")
        packed = self.load.pack("known", self.load.literal(array), max(array.nbytes, 1))
        return Flat(packed, array.shape, dtype)

    def check(self, code: str, message: str, hint: str = "") -> Address:
        """A cell that a kernel sets to report a fault."""
        cell = self.cells(1)
        self.out.checks.append(Check(cell.offset // 8, code, message, hint))
        return cell

    def cells(self, count: int) -> Address:
        """Some int64 of the call, 0 when it starts."""
        self.out.cells += count
        return Address("cells", (self.out.cells - count) * 8)

    def finish(self, name: str) -> LoweredPlan:
        """Offsets for all buffers, addresses for all words."""
        out = self.out
        for buffer, loop in out.touches:
            buffer.touch_loop(loop)
        arena_bytes = out.arena.layout()
        slot = -(-out.scratch // 64) * 64
        for packed, lanes, base in out.tables:
            start = base.resolve().offset
            offsets = [lane.place.resolve().offset - start for lane in lanes]
            self.load.fill(packed, f"np.array({offsets}, np.int64)")
        rows = []
        for row in out.rows:
            words = tuple(_resolve(word, slot) for word in row.words)
            name_ = row.kernel.name if row.kernel is not None else "loop"
            rows.append(Row(row.kernel, Step(name_, row.tasks, words, row.label)))
        return LoweredPlan(
            name, tuple(self.inputs), tuple(self.outputs), tuple(rows), arena_bytes,
            out.arena.live(), slot, self.load.out, out.cells, tuple(out.checks), tuple(out.owners),
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
    """A plan and the program of its load phase.

    ``owners`` gives the node of the fused graph that each row computes, after the loops around it;
    the last rows, which only deliver outputs, have none. ``team`` is the most threads that pay.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    rows: tuple[Row, ...]
    arena_bytes: int
    live_bytes: int
    scratch_bytes: int
    load: LoadText
    cells: int
    checks: tuple[Check, ...]
    owners: tuple[tuple[int, ...], ...]
    team: int | None = None


@dataclass(frozen=True)
class Parent:
    """Where a value lies inside the concatenation it belongs to."""

    value: Value
    channel: int


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


def flat_placements(graph: Graph, loaded: set[int]) -> dict[Value, tuple[Value, int]]:
    """Row-major values that are joined end to end, and the element at which each begins.

    What is joined may be the value under another shape: gradients go into flat buffers.
    """
    found: dict[Value, tuple[Value, int]] = {}
    for index, node in graph.nodes():
        if node.op != "concat" or node.attrs["axis"] != 0 or index in loaded:
            continue
        start = 0
        for operand in graph.operands(index):
            value = operand
            while graph.node(value.node).op == "reshape":
                value = graph.operands(value.node)[0]
            producer = graph.node(value.node)
            movable = producer.op not in (*LEAVES, *VIEWS) and value.node not in loaded
            if movable and value not in found and graph.operands(index).count(operand) == 1:
                found[value] = (Value(index), start)
            start += prod(cast(int, d) for d in graph.type_of(operand).shape)
    return found


VIEWS = ("split", "slice", "take", "transpose", "broadcast", "concat")
"""Ops whose results may be views of what they read, or have a place already."""


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


def expand(state: Lowering, index: int, node: Node) -> None:
    """An op without a rule of its own, in the simpler ops that the op table says it is."""
    from .recipe import Recipe

    expansion = OPS[node.op].expansion
    if expansion is None:
        raise OpError(
            "E804",
            f"there is no CPU kernel for `{node.op}`: {WITHOUT_KERNEL.get(node.op, 'not yet')}",
            "run it with `--engine reference`",
        )
    r = Recipe(state, state.graph.operands(index))
    made = expansion([r.writer.expr(v) for v in r.inputs], node.attrs)
    results = made if isinstance(made, Sequence) else [made]
    r.finish(index, *(result.value for result in results))


WITHOUT_KERNEL = {
    "site": "inference turns statements into tensor ops first",
    "factor": "inference turns energies into tensor ops first",
    "query": "inference turns questions into tensor ops first",
    "grad": "differentiation turns it into tensor ops first",
    "sample": "it draws by rejection for some distributions, which the reference does",
    "svd": "decompositions run in the reference, by LAPACK",
    "eigh": "decompositions run in the reference, by LAPACK",
    "qr": "decompositions run in the reference, by LAPACK",
    "log_bessel_k": "it is a sum over a grid, in the reference",
}
"""Why an op has neither a rule nor an expansion."""


def load_rules() -> None:
    """Import the modules that fill the table; they import this one."""
    from . import cpu_backward as cpu_backward
    from . import cpu_batch_norm as cpu_batch_norm
    from . import cpu_chain as cpu_chain
    from . import cpu_contract as cpu_contract
    from . import cpu_conv as cpu_conv
    from . import cpu_densities as cpu_densities
    from . import cpu_elements as cpu_elements
    from . import cpu_fields as cpu_fields
    from . import cpu_layout as cpu_layout
    from . import cpu_linear as cpu_linear
    from . import cpu_loops as cpu_loops
    from . import cpu_matrix as cpu_matrix
    from . import cpu_nest as cpu_nest
    from . import cpu_places as cpu_places
    from . import cpu_random as cpu_random
    from . import cpu_resample as cpu_resample
    from . import cpu_rows as cpu_rows
    from . import cpu_simple as cpu_simple
    from . import cpu_views as cpu_views


def lower(graph: Graph, target: Target) -> LoweredPlan:
    """Lower a fused graph whose sizes are all numbers.

    Raises :class:`OpError` E804 for an op that has no kernel yet.
    """
    load_rules()
    state = Lowering(graph, target)
    for place, index in enumerate(graph.inputs):
        node = graph.node(index)
        shape = state.shape(Value(index))
        state.inputs.append(Port(node.name, str(DTYPES[node.type.dtype]), shape))
        state.stored[Value(index)] = Flat(Place(None, 0, place), shape, node.type.dtype)
    state.run()
    for name, value in graph.outputs:
        dtype = str(DTYPES[graph.type_of(value).dtype])
        state.outputs.append(Port(name, dtype, state.shape(value)))
    from .cpu_layout import deliver_outputs

    deliver_outputs(state)
    return state.finish(graph.name)

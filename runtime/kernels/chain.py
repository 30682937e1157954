"""Chains of finite variables: their tables, how they lie in memory, and what is summed at the end.

All is float64. A row of ``states`` numbers is padded to whole vectors (``layout``), and tables hold
a padded row for each source state. Numbers are kept in one of two ways, chosen by the table when
the kernel runs:

* *scaled*, where every transition is at least ``DENSE`` of the largest: numbers are divided by
  powers of two at every step. What underflows then is below 1e-200 of any sum that it could enter.
* *wide* else, and where each step has a table of its own: a number is m 2**n with a double n of its
  own, so that nothing under- or overflows however long the chain (Rabiner's scaling, Proceedings
  of the IEEE 77(2), 1989, section V.A, loses paths through zeros there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DENSE = 1e-50
"""The least transition, as a share of the largest, that scaled numbers are safe with."""

NEVER = "-1e300"
"""An exponent below all others that can still be subtracted from -inf."""

HEADER = 64
"""Bytes before a chain's tables: whether numbers are wide, the log of the largest entry."""

TABLES = 6
"""Linear tables forward and backward (transposed); mantissas and exponents of the same."""


@dataclass(frozen=True)
class Layout:
    """How rows of K states lie in vectors of ``lanes`` doubles.

    ``vectors`` of a group are worked on at once, ``many`` tells several groups from one, ``whole``
    rows fill their vectors exactly. The sources of a product are taken ``turns`` at a time, so that
    the additions of a step do not wait for each other.
    """

    lanes: int
    vectors: int
    many: bool
    whole: bool

    @property
    def turns(self) -> int:
        """Sources that a product takes at a time."""
        return 4 if self.vectors <= 2 else 2

    @property
    def group(self) -> int:
        """Bytes of a group of vectors."""
        return self.vectors * self.lanes * 8

    @property
    def name(self) -> str:
        """Part of kernels' names."""
        marks = f"{'m' if self.many else ''}{'' if self.whole else 't'}"
        return f"{self.lanes}x{self.vectors}{marks}"

    def row(self, states: int) -> int:
        """Bytes of a padded row of targets."""
        return -(-states * 8 // self.group) * self.group

    def sources(self, states: int) -> int:
        """Rows of a table: sources, and zeros up to whole turns."""
        return -(-states // self.turns) * self.turns

    def wide_row(self, states: int) -> int:
        """Bytes of a row that is read source by source as well."""
        return max(self.row(states), -(-self.sources(states) // self.lanes) * self.lanes * 8)

    def table(self, states: int) -> int:
        """Bytes of one table."""
        return self.sources(states) * self.row(states)

    def tables(self, states: int) -> int:
        """Bytes of a chain's header and tables."""
        return HEADER + TABLES * self.table(states)

    def state(self, states: int) -> int:
        """Bytes of what a pass hands on: a row in both parts, exponents and peaks so far."""
        return 2 * self.wide_row(states) + 128


def layout(states: int, width: int) -> Layout:
    """The layout of K states on a machine with ``width`` float32 lanes."""
    lanes = width // 2
    vectors = -(-states // lanes)
    return Layout(lanes, min(vectors, 4), vectors > 4, states % lanes == 0)


# ---------------------------------------------------------------- text that all kernels share


def imports(shape: Layout, names: Sequence[str] = ()) -> list[str]:
    """The head of a kernel's source."""
    n = shape.lanes
    return [
        "import math",
        "from numba import float64, int64",
        "from tilth.runtime.kernels import vector_math as e",
        "from tilth.runtime.kernels.folds import sum_across",
        "from tilth.runtime.kernels.masks import (",
        f"    lanes_below, load_first{n}d as load_first, pick, store_first,",
        ")",
        "from tilth.runtime.simd import (",
        "    exponent, fma, load_f64, load_i64, mantissa, max_lanes, power_of_two, store,",
        "    store_f64, sum_lanes, vmax,",
        f"    load{n}d as load, spread{n}d as spread,",
        ")",
        *names,
        "",
        "",
    ]


def words(names: Sequence[str]) -> list[str]:
    """Words of a row into local names, and what follows from the number of states."""
    return [f"    {name} = load_i64(row + {8 * place})" for place, name in enumerate(names)]


def sizes(shape: Layout) -> list[str]:
    """The layout's numbers from ``states``."""
    n, group, turns = shape.lanes, shape.group, shape.turns
    return [
        f"    wide_row = (states * 8 + {group - 1}) // {group} * {group}",
        "    line = wide_row",
        f"    sources = (states + {turns - 1}) // {turns} * {turns}",
        f"    wide_row = max(wide_row, (sources + {n - 1}) // {n} * {n * 8})",
        "    size = sources * line",
        f"    none = spread({NEVER})",
        "    zero = spread(0.0)",
        "    nothing = spread(-math.inf)",
    ]


def each(shape: Layout, body: Sequence[str], indent: int) -> list[str]:
    """``body`` for each vector of a row: ``{v}`` numbers it in its group, ``{o}`` is its offset.

    With one group the copies are written out, so that ``name{v}`` are registers.
    """
    pad = " " * indent
    step = shape.lanes * 8
    if not shape.many:
        return [
            pad + text.replace("{v}", str(v)).replace("{o}", str(v * step))
            for v in range(shape.vectors)
            for text in body
        ]
    inside = [
        pad + "    " + text.replace("{v}", str(v)).replace("{o}", f"(o + {v * step})")
        for v in range(shape.vectors)
        for text in body
    ]
    return [f"{pad}for o in range(0, line, {shape.group}):", *inside]


def read(shape: Layout, at: str, pad: str) -> str:
    """A vector of an unpadded row at ``at`` with offset ``{o}``; ``pad`` beyond the row."""
    if shape.whole and not shape.many:
        return f"load({at} + {{o}})"
    left = "states - {o} // 8"
    return f"pick(lanes_below(zero, {left}), load_first({at} + {{o}}, {left}), {pad})"


def write(shape: Layout, at: str, value: str) -> str:
    """A vector into an unpadded row."""
    if shape.whole and not shape.many:
        return f"store({at} + {{o}}, {value})"
    return f"store_first({at} + {{o}}, {value}, states - {{o}} // 8)"


# ---------------------------------------------------------------- tables


TABLE_WORDS = ("transition", "tables", "states", "source_step", "table_step")
"""Log-potentials [K, K], and bytes from one chain's to the next."""


@dataclass(frozen=True)
class TableKernel:
    """Log-potentials to the six tables of a chain; a task does one chain."""

    shape: Layout

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"chain_tables_{self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        shape = self.shape
        lines = [
            '"""Tables of chains."""',
            *imports(shape),
            "def kernel(row, task, slot):",
            *words(TABLE_WORDS),
            *sizes(shape),
            "    source = transition + task * source_step",
            "    head = tables + task * table_step",
            f"    first = head + {HEADER}",
            "    top, low = nothing, spread(math.inf)",
            "    for i in range(states):",
            "        at = source + i * states * 8",
            *each(shape, [
                f"top = vmax({read(shape, 'at', 'nothing')}, top)",
                f"low = -vmax(-{read(shape, 'at', 'spread(math.inf)')}, -low)",
            ], 8),
            "    peak = max(max_lanes(top), -1.7e308)",
            "    least = -max_lanes(-low)",
            f"    wide = not least - peak >= {math.log(DENSE)}",
            "    store_f64(head, 1.0 if wide else 0.0)",
            "    store_f64(head + 8, peak)",
            "    for i in range(sources):",
            "        at, to = source + i * states * 8, first + i * line",
            "        if i < states:",
            *each(shape, [f"store(to + {{o}}, e.exp({read(shape, 'at', 'nothing')} - peak))"], 12),
            "        else:",
            *each(shape, ["store(to + {o}, zero)"], 12),
            *turned("first", "first + size", "0.0", 4),
            "    flat = first + 2 * size",
            *parts(shape, 4),
            *turned("flat", "flat + 2 * size", "0.0", 4),
            *turned("flat + size", "flat + 3 * size", "-math.inf", 4),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def parts(shape: Layout, indent: int) -> list[str]:
    """Log-potentials at ``source`` as mantissas and exponents at ``flat``, padded with zeros."""
    pad = " " * indent
    return [
        f"{pad}for i in range(sources):",
        f"{pad}    at, to = source + i * states * 8, flat + i * line",
        f"{pad}    if i < states:",
        *each(shape, [
            f"m{{v}}, n{{v}} = e.exp_parts({read(shape, 'at', 'nothing')})",
            "store(to + {o}, m{v})",
            "store(to + size + {o}, n{v})",
        ], indent + 8),
        f"{pad}    else:",
        *each(shape, [
            "store(to + {o}, zero)",
            "store(to + size + {o}, nothing)",
        ], indent + 8),
    ]  # fmt: skip


def turned(source: str, target: str, nothing: str, indent: int) -> list[str]:
    """A padded table transposed."""
    pad = " " * indent
    return [
        f"{pad}for i in range(sources):",
        f"{pad}    for j in range(line // 8):",
        f"{pad}        value = {nothing}",
        f"{pad}        if i < states and j < states:",
        f"{pad}            value = load_f64({source} + j * line + i * 8)",
        f"{pad}        store_f64({target} + i * line + j * 8, value)",
    ]


# ---------------------------------------------------------------- ends


END_WORDS = (
    "tables", "state", "logz", "pairs", "partial", "states", "steps", "middle", "table_step",
    "state_step", "partial_step",
)  # fmt: skip
"""``partial`` are the two halves' expected transitions; without them only log Z is made."""


@dataclass(frozen=True)
class EndKernel:
    """What two halves of a chain make together: log Z, or the expected transitions too."""

    shape: Layout
    posterior: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"chain_end_{'pairs' if self.posterior else 'total'}_{self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        shape = self.shape
        lines = [
            '"""The end of a chain."""',
            *imports(shape, ["from tilth.runtime.kernels.chain_math import meeting"]),
            "def kernel(row, task, slot):",
            *words(END_WORDS),
            *sizes(shape),
            "    head = tables + task * table_step",
            "    x = state + 2 * task * state_step",
            "    if logz != 0:",
            f"        value = meeting(x, x + state_step, head, head + {HEADER}, states,",
            "                        wide_row, line, size, steps, middle)",
            "        store_f64(logz + task * 8, value)",
        ]
        if self.posterior:
            lines += [
                "    if pairs == 0:",
                "        return",
                "    wide = load_f64(head) != 0.0",
                "    one = partial + 2 * task * partial_step",
                "    two = one + partial_step",
                "    for i in range(states):",
                "        for j in range(states):",
                "            at = i * line + j * 8",
                "            value = load_f64(one + at) + load_f64(two + at)",
                "            if not wide:",
                f"                value *= load_f64(head + {HEADER} + at)",
                "            store_f64(pairs + ((task * states + i) * states + j) * 8, value)",
            ]
        return "\n".join(lines) + "\n"


ROWS = {"TableKernel": TABLE_WORDS, "EndKernel": END_WORDS}
"""Words by kernel."""

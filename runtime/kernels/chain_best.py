"""The best path of a chain (Viterbi), and paths drawn from the posterior.

Scores add up as in the reference, in the same order, so that the same path wins; of equal ones the
first state does. (Viterbi, IEEE Trans. Information Theory 13, 1967; Chib, Journal of Econometrics
75, 1996.)
"""

from __future__ import annotations

from dataclasses import dataclass

from .chain import HEADER, Layout, each, imports, read, sizes, words

BEST_WORDS = (
    "init", "emission", "transition", "pointers", "path", "score", "states", "steps", "varying",
    "init_step", "emission_step", "transition_step", "scratch", "scratch_slot",
)  # fmt: skip
"""``pointers`` bytes [T, padded K] (``path`` 0: only the best score is wanted); a task a chain."""

MOST = 256
"""States whose numbers fit a byte."""


def best_scratch(shape: Layout, states: int) -> int:
    """Bytes of a padded table and two rows."""
    return shape.table(states) + 2 * shape.wide_row(states)


@dataclass(frozen=True)
class BestKernel:
    """The best path, or its score."""

    shape: Layout
    path: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"chain_{'path' if self.path else 'best'}_{self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        shape = self.shape
        lines = [
            '"""The best path of a chain."""',
            *imports(shape, [
                "from tilth.runtime.kernels.masks import store_bytes",
                "from tilth.runtime.simd import load_u8, store_i32",
            ]),
            "def kernel(row, task, slot):",
            *words(BEST_WORDS),
            *sizes(shape),
            "    table = scratch + slot * scratch_slot",
            "    x, y = table + size, table + size + wide_row",
            "    at = init + task * init_step",
            "    numbers = emission + task * emission_step",
            "    changes = transition + task * transition_step",
            "    back = pointers + task * steps * (line // 8)",
            *each(shape, [
                f"store(x + {{o}}, {read(shape, 'at', 'nothing')}"
                f" + {read(shape, 'numbers', 'nothing')})",
            ], 4),
            "    for t in range(1, steps):",
            "        if varying != 0 or t == 1:",
            *self._table(),
            "        here = numbers + t * states * 8",
            "        there = back + t * (line // 8)",
            *self._step(),
            "        x, y = y, x",
            "    best, found = load_f64(x), 0",
            "    for i in range(1, states):",
            "        if load_f64(x + i * 8) > best:",
            "            best, found = load_f64(x + i * 8), i",
        ]  # fmt: skip
        if not self.path:
            lines.append("    store_f64(score + task * 8, best)")
            return "\n".join(lines) + "\n"
        lines += [
            "    own = path + task * steps * 4",
            "    store_i32(own + (steps - 1) * 4, found)",
            "    for t in range(steps - 1, 0, -1):",
            "        found = int64(load_u8(back + t * (line // 8) + found))",
            "        store_i32(own + (t - 1) * 4, found)",
        ]
        return "\n".join(lines) + "\n"

    def _table(self) -> list[str]:
        return [
            "            rows = changes + (t if varying != 0 else 0) * states * states * 8",
            "            for i in range(states):",
            "                at, to = rows + i * states * 8, table + i * line",
            *each(self.shape, [f"store(to + {{o}}, {read(self.shape, 'at', 'nothing')})"], 16),
        ]

    def _step(self) -> list[str]:
        shape = self.shape
        n, count = shape.lanes, shape.vectors
        begin = "o" if shape.many else "0"
        lines = [
            f"w, s = table + {begin}, x",
            "c = spread(load_f64(s))",
            *(f"a{v} = c + load(w + {v * n * 8})" for v in range(count)),
            *(f"k{v} = zero" for v in range(count) if self.path),
            "for i in range(1, states):",
            "    w += line",
            "    s += 8",
            "    c = spread(load_f64(s))",
            *(["    number = spread(float64(i))"] if self.path else []),
        ]
        for v in range(count):
            lines.append(f"    z = c + load(w + {v * n * 8})")
            if self.path:
                lines.append(f"    k{v} = pick(z > a{v}, number, k{v})")
            lines.append(f"    a{v} = vmax(z, a{v})")
        for v in range(count):
            o = f"({begin} + {v * n * 8})" if shape.many else str(v * n * 8)
            value = read(shape, "here", "nothing").replace("{o}", o)
            lines.append(f"store(y + {o}, a{v} + {value})")
            if self.path:
                lines.append(f"store_bytes(there + {o} // 8, k{v})")
        pad = " " * 8
        if shape.many:
            head = f"{pad}for o in range(0, line, {shape.group}):"
            return [head, *(pad + "    " + line for line in lines)]
        return [pad + line for line in lines]


SAMPLE_WORDS = (
    "marginals", "exponents", "tables", "transition", "uniform", "path", "states", "steps",
    "varying", "table_step", "transition_step", "scratch", "scratch_slot",
)  # fmt: skip
"""A whole forward pass (``marginals``, ``exponents``), and a uniform f64 [T] for every chain."""


@dataclass(frozen=True)
class SampleKernel:
    """Paths drawn from the last step to the first; a task a chain."""

    shape: Layout

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"chain_sample_{self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""A path drawn from the posterior of a chain."""',
            *imports(self.shape, ["from tilth.runtime.kernels.chain_math import draw_path"]),
            "def kernel(row, task, slot):",
            *words(SAMPLE_WORDS),
            *sizes(self.shape),
            "    head = tables + task * table_step",
            "    draw_path(marginals + task * steps * states * 8,",
            "              exponents + task * steps * (line // 2), head,",
            "              transition + task * transition_step, varying != 0,",
            "              uniform + task * steps * 8, path + task * steps * 4, states, line,",
            f"              size, head + {HEADER}, steps, scratch + slot * scratch_slot)",
        ]
        return "\n".join(lines) + "\n"


ROWS = {"BestKernel": BEST_WORDS, "SampleKernel": SAMPLE_WORDS}
"""Words by kernel."""

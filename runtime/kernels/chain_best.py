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


def runs(shape: Layout) -> int:
    """Runs of neighbouring sources whose best are found side by side, then compared in order.

    As many as keep running scores and numbers in registers: one comparison need not wait for the
    one before, and an earlier source still wins over a later one that is equal.
    """
    room = 8 if shape.lanes == 8 else 4
    most = min(4, shape.lanes)  # the last run is filled up within a padded row
    return 1 if shape.many else min(most, max(1, room // shape.vectors))


def best_scratch(shape: Layout, states: int) -> int:
    """Bytes of a padded table and two rows."""
    sources = -(-states // runs(shape)) * runs(shape)
    return sources * shape.row(states) + 2 * shape.wide_row(states)


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
            f"    part = (states + {runs(shape) - 1}) // {runs(shape)}",
            "    apart, one = part * line, spread(1.0)",
            "    table = scratch + slot * scratch_slot",
            f"    x = table + {runs(shape)} * apart",
            "    y = x + wide_row",
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
        shape = self.shape
        return [
            "            rows = changes + (t if varying != 0 else 0) * states * states * 8",
            f"            for i in range({runs(shape)} * part):",
            "                at, to = rows + i * states * 8, table + i * line",
            "                if i < states:",
            *each(shape, [f"store(to + {{o}}, {read(shape, 'at', 'nothing')})"], 20),
            "                else:",
            *each(shape, ["store(to + {o}, nothing)"], 20),
        ]

    def _step(self) -> list[str]:
        shape = self.shape
        n, count = shape.lanes, shape.vectors
        begin = "o" if shape.many else "0"
        lines = [f"w, s = table + {begin}, x", *self._sources(first=True)]
        if self.path:
            lines.append("number = zero")
        lines += ["for i in range(1, part):", "    w += line", "    s += 8"]
        if self.path:
            lines.append("    number = number + one")
        lines += [f"    {line}" for line in self._sources(first=False)]
        # Pairs of neighbouring runs, then pairs of those: the first of equal sources stays.
        gap = 1
        while gap < runs(shape):
            for u in range(0, runs(shape), 2 * gap):
                lines += self._later(u, u + gap) if u + gap < runs(shape) else []
            gap *= 2
        for v in range(count):
            o = f"({begin} + {v * n * 8})" if shape.many else str(v * n * 8)
            value = read(shape, "here", "nothing").replace("{o}", o)
            lines.append(f"store(y + {o}, a0_{v} + {value})")
            if self.path:
                lines.append(f"store_bytes(there + {o} // 8, k0_{v})")
        pad = " " * 8
        if shape.many:
            head = f"{pad}for o in range(0, line, {shape.group}):"
            return [head, *(pad + "    " + line for line in lines)]
        return [pad + line for line in lines]

    def _sources(self, first: bool) -> list[str]:
        """One source of each run: the best score of a target so far and its number in the run."""
        n, lines = self.shape.lanes * 8, []
        for u in range(runs(self.shape)):
            lines.append(f"c = spread(load_f64(s + {u} * part * 8))")
            for v in range(self.shape.vectors):
                score = f"c + load(w + {u} * apart + {v * n})"
                if first:
                    lines.append(f"a{u}_{v} = {score}")
                    lines += [f"k{u}_{v} = zero"] if self.path else []
                    continue
                lines.append(f"z = {score}")
                if self.path:
                    lines.append(f"k{u}_{v} = pick(z > a{u}_{v}, number, k{u}_{v})")
                lines.append(f"a{u}_{v} = vmax(z, a{u}_{v})")
        return lines

    def _later(self, u: int, later: int) -> list[str]:
        """The better of two runs, the later one's numbers counted from the earlier's start."""
        lines = [f"far = spread(float64({later - u} * part))"] if self.path else []
        for v in range(self.shape.vectors):
            if self.path:
                better = f"a{later}_{v} > a{u}_{v}"
                lines.append(f"k{u}_{v} = pick({better}, k{later}_{v} + far, k{u}_{v})")
            lines.append(f"a{u}_{v} = vmax(a{later}_{v}, a{u}_{v})")
        return lines


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

"""Passes over a chain: the sum over paths up to (or from) every step, and what both ways make.

A chain is passed from both ends at once. Each pass stores its numbers up to the middle; then it
goes on, meets what the other one stored and turns it, in place, into marginals, and adds up the
expected transitions. So two threads share one chain, and nothing is kept but the marginals. The
numbers stored are the sums over paths up to a step, its emission included (forward), or over what
follows it (backward).
(Rabiner, Proceedings of the IEEE 77(2), 1989, equations 19 to 38; numbers as ``chain`` says.)
"""

from __future__ import annotations

from dataclasses import dataclass

from .chain import HEADER, Layout, each, imports, parts, read, sizes, turned, words, write

WORDS = (
    "init", "emission", "tables", "state", "marginals", "exponents", "partial", "transition",
    "states", "steps", "middle", "directions", "again", "init_step", "emission_step", "table_step",
    "state_step", "partial_step", "transition_step", "scratch", "scratch_slot",
)  # fmt: skip
"""A task is (chain, direction). ``again`` is 1 on the second half. Steps of chains in bytes;
``marginals`` [T, K] and ``exponents`` f32 [T, padded K] follow from the sizes."""

BLOCK = 32
"""Steps whose emissions are read and whose expected transitions are added at a time."""

ACTIONS = ("total", "store", "meet")
"""What a pass leaves at each step: nothing, its numbers, or marginals of it and the other one."""


def scratch_bytes(shape: Layout, states: int) -> int:
    """Bytes of a pass's own memory."""
    rows = (4 * BLOCK + 6) * shape.wide_row(states)
    return rows + 4 * shape.table(states) + 64


@dataclass(frozen=True)
class PassKernel:
    """One half of a pass. ``varying`` chains have a table a step."""

    shape: Layout
    action: str
    varying: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"chain_pass_{self.action}{'_varying' if self.varying else ''}_{self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        shape, n = self.shape, self.shape.lanes
        lines = [
            f'"""A pass over a chain: {self.action}."""',
            *imports(shape, [
                f"from tilth.runtime.simd import load{n} as load_short, narrow, widen",
            ]),
            "def kernel(row, task, slot):",
            *words(WORDS),
            *sizes(shape),
            "    chain, back = task // directions, task % directions != 0",
            "    mine = scratch + slot * scratch_slot",
            f"    short = {BLOCK} * wide_row",
            "    emit, emit_n, ps, qs = mine, mine + short, mine + 2 * short, mine + 3 * short",
            "    y = mine + 4 * short",
            "    yn, g, gn, q, qn = (y + wide_row, y + 2 * wide_row, y + 3 * wide_row,",
            "                        y + 4 * wide_row, y + 5 * wide_row)",
            "    own = y + 6 * wide_row",
            "    x = state + task * state_step",
            "    xn = x + wide_row",
            "    begin = init + chain * init_step",
            "    numbers = emission + chain * emission_step",
            "    out = marginals + chain * steps * states * 8",
            "    outs = exponents + chain * steps * (line // 2)",
            "    way = -1 if back else 1",
            "    edge = steps - 1 if back else 0",
            "    first = (middle - 1 if back else middle) if again else edge",
            "    count = middle if back == (again != 0) else steps - middle",
            "    shift = load(x + 2 * wide_row)",
            "    peaks = load_f64(x + 2 * wide_row + 64)",
            "    if again == 0:",
            "        shift, peaks = zero, 0.0",
            "        for i in range(wide_row // 8):",
            "            store_f64(x + i * 8, 0.0)",
            "            store_f64(xn + i * 8, -math.inf)",
            "    for i in range(wide_row // 8):",
            "        store_f64(y + i * 8, 0.0)",
            "        store_f64(g + i * 8, 0.0)",
            "        store_f64(gn + i * 8, -math.inf)",
            *self._clear_partial(),
            *self._branches(),
            "    store(x + 2 * wide_row, shift)",
            "    store_f64(x + 2 * wide_row + 64, peaks)",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _clear_partial(self) -> list[str]:
        if self.action != "meet":
            return []
        if self.varying:
            return [
                "    partial += chain * steps * states * states * 8",
                "    if not back:",
                "        for i in range(states * states):",
                "            store_f64(partial + i * 8, 0.0)",
            ]
        return [
            "    partial += task * partial_step",
            "    for i in range(sources):",
            "        at = partial + i * line",
            *each(self.shape, ["store(at + {o}, zero)"], 8),
        ]

    def _branches(self) -> list[str]:
        if self.varying:
            return [
                "    changes = transition + chain * transition_step",
                "    flat = own",
                "    table = own + (2 * size if back else 0)",
                *self._blocks(True, 4),
            ]
        return [
            "    head = tables + chain * table_step",
            f"    table = head + {HEADER} + (size if back else 0)",
            "    if load_f64(head) != 0.0:",
            f"        flat = head + {HEADER} + 2 * size",
            "        table = flat + (2 * size if back else 0)",
            *self._blocks(True, 8),
            "    else:",
            *self._blocks(False, 8),
        ]

    def _blocks(self, wide: bool, indent: int) -> list[str]:
        pad = " " * indent
        emissions = self._wide_emissions() if wide else self._emissions()
        step = self._wide_step() if wide else self._step()
        pairs = self.action == "meet" and not wide
        return [
            f"{pad}for done in range(0, count, {BLOCK}):",
            f"{pad}    rows = min({BLOCK}, count - done)",
            f"{pad}    for b in range(rows):",
            f"{pad}        t = first + way * (done + b)",
            f"{pad}        at = numbers + t * states * 8",
            f"{pad}        to = emit + b * wide_row",
            *(f"{pad}        {line}" for line in emissions),
            f"{pad}    for b in range(rows):",
            f"{pad}        t = first + way * (done + b)",
            f"{pad}        ev = emit + b * wide_row",
            *(f"{pad}        {line}" for line in step),
            *([f"{pad}    {line}" for line in self._add_pairs()] if pairs else []),
        ]

    # ------------------------------------------------------------ scaled

    def _emissions(self) -> list[str]:
        shape = self.shape
        value = read(shape, "at", "nothing")
        return [
            "top = nothing",
            *each(shape, [f"l{{v}} = {value}", "top = vmax(l{v}, top)"], 0),
            "peak = max(max_lanes(top), -1.7e308)",
            "peaks += peak",
            *each(shape, [
                *([f"l{{v}} = {value}"] if shape.many else []),
                "store(to + {o}, e.exp(l{v} - peak))",
            ], 0),
        ]  # fmt: skip

    def _product(self) -> list[str]:
        """The product of the table and x into y."""
        shape = self.shape
        n = shape.lanes * 8
        sums = [(u, v) for u in range(shape.turns) for v in range(shape.vectors)]
        lines = [
            *(f"a{u}_{v} = zero" for u, v in sums),
            "w = table + o" if shape.many else "w = table",
            "s = x",
            f"for _ in range(sources // {shape.turns}):",
        ]
        for u in range(shape.turns):
            lines.append(f"    c = spread(load_f64(s + {u * 8}))")
            for v in range(shape.vectors):
                at = f"w + {u} * line + {v * n}"
                lines.append(f"    a{u}_{v} = fma(c, load({at}), a{u}_{v})")
        lines += [f"    w += {shape.turns} * line", f"    s += {shape.turns * 8}"]
        for v in range(shape.vectors):
            parts = " + ".join(f"a{u}_{v}" for u in range(shape.turns))
            lines.append(f"store(y + o + {v * n}, {parts})" if shape.many else f"y{v} = {parts}")
        if not shape.many:
            return lines
        return [f"for o in range(0, line, {shape.group}):", *("    " + line for line in lines)]

    def _start(self) -> list[str]:
        """The numbers before the first emission."""
        shape = self.shape
        peak = [
            "top = nothing",
            *each(shape, [f"top = vmax({read(shape, 'begin', 'nothing')}, top)"], 0),
            "peak = max(max_lanes(top), -1.7e308)",
            "peaks += peak",
        ]
        put = "store(y + {o}, {value})" if shape.many else "y{v} = {value}"
        ones = "pick(lanes_below(zero, states - {o} // 8), spread(1.0), zero)"
        start = f"e.exp({read(shape, 'begin', 'nothing')} - peak)"
        return [
            "if back:",
            *each(shape, [put.replace("{value}", ones)], 4),
            "else:",
            *("    " + line for line in peak),
            *each(shape, [put.replace("{value}", start)], 4),
        ]

    def _step(self) -> list[str]:
        shape, meets = self.shape, self.action == "meet"
        here = "out + t * states * 8"
        total = [
            "total = zero",
            *each(shape, ["total = total + load(x + {o})"], 0),
            "k = exponent(sum_across(total))",
            "shift = shift + k",
            "factor = power_of_two(-k)",
        ]
        lines = [
            "factor = spread(1.0)",
            "if t == edge:",
            *("    " + line for line in self._start()),
            "else:",
            *("    " + line for line in [*total, *self._product()]),
        ]
        body = [
            *(["y{v} = load(y + {o})"] if shape.many else []),
            "f{v} = load(ev + {o}) * factor",
            *(["p{v} = load(x + {o})"] if meets else []),
            "x{v} = y{v} * f{v}",
            "store(x + {o}, x{v})",
        ]
        if self.action == "store":
            body += ["kept = y{v} if back else x{v}", write(shape, "here", "kept")]
        if not meets:
            return [*lines, f"here = {here}", *each(shape, body, 0)]
        body += [
            f"g{{v}} = {read(shape, 'here', 'zero')}",
            "r{v} = g{v} * (y{v} if back else x{v})",
            "u{v} = p{v} if back else f{v} * g{v}",
            "store(to + {o}, g{v} if back else p{v})",
            "sum_ = sum_ + r{v}",
            *(["store(y + {o}, r{v})", "store(tq + {o}, u{v})"] if shape.many else []),
        ]
        end = [
            *(["r{v} = load(y + {o})", "u{v} = load(tq + {o})"] if shape.many else []),
            write(shape, "here", "r{v} * inverse"),
            "store(tq + {o}, u{v} * share)",
        ]
        return [
            *lines,
            f"here = {here}",
            "to, tq = ps + b * wide_row, qs + b * wide_row",
            "sum_ = zero",
            *each(shape, body, 0),
            "whole = sum_lanes(sum_)",
            "inverse = 0.0 if whole == 0.0 else 1.0 / whole",
            # The transition over the middle is the forward pass's.
            "share = 0.0 if back and t == middle - 1 else inverse",
            *each(shape, end, 0),
        ]

    def _add_pairs(self) -> list[str]:
        """The sum over a block's steps of p q^T."""
        shape = self.shape
        n, turns = shape.lanes * 8, shape.turns
        sums = [(u, v) for u in range(turns) for v in range(shape.vectors)]
        at = "to + {u} * line + {o}"
        body = [
            "to = partial + i * line" + (" + o" if shape.many else ""),
            *(f"a{u}_{v} = load({at.format(u=u, o=v * n)})" for u, v in sums),
            "s, w = ps + i * 8, qs" + (" + o" if shape.many else ""),
            "for _ in range(rows):",
            *(f"    w{v} = load(w + {v * n})" for v in range(shape.vectors)),
        ]
        for u in range(turns):
            body.append(f"    c = spread(load_f64(s + {u * 8}))")
            body += [f"    a{u}_{v} = fma(c, w{v}, a{u}_{v})" for v in range(shape.vectors)]
        body += ["    s += wide_row", "    w += wide_row"]
        body += [f"store({at.format(u=u, o=v * n)}, a{u}_{v})" for u, v in sums]
        if shape.many:
            body = [f"for o in range(0, line, {shape.group}):", *("    " + b for b in body)]
        return [f"for i in range(0, sources, {turns}):", *("    " + line for line in body)]

    # ------------------------------------------------------------ wide

    def _wide_emissions(self) -> list[str]:
        value = read(self.shape, "at", "nothing")
        return [
            "tn = emit_n + b * wide_row",
            *each(self.shape, [
                f"m{{v}}, n{{v}} = e.exp_parts({value})",
                "store(to + {o}, m{v})",
                "store(tn + {o}, n{v})",
            ], 0),
        ]  # fmt: skip

    def _wide_product(self) -> list[str]:
        """As :meth:`_product`, each target from the largest of its own terms."""
        shape = self.shape
        n = shape.lanes * 8
        begin = "o" if shape.many else "0"
        lines = [
            *(f"t{v} = none" for v in range(shape.vectors)),
            f"w = table + size + {begin}",
            "s = xn",
            "for _ in range(states):",
            "    c = spread(load_f64(s))",
            *(f"    t{v} = vmax(t{v}, c + load(w + {v * n}))" for v in range(shape.vectors)),
            "    w += line",
            "    s += 8",
            *(f"a{v} = zero" for v in range(shape.vectors)),
            f"w = table + {begin}",
            "s = x",
            "for _ in range(states):",
            "    m, c = spread(load_f64(s)), spread(load_f64(s + wide_row))",
        ]
        for v in range(shape.vectors):
            power = f"vmax(c + load(w + size + {v * n}) - t{v}, low)"
            lines.append(f"    a{v} = fma(m * load(w + {v * n}), power_of_two({power}), a{v})")
        lines += ["    w += line", "    s += 8"]
        for v in range(shape.vectors):
            lines.append(f"store(y + {begin} + {v * n}, a{v})")
            lines.append(f"store(yn + {begin} + {v * n}, t{v})")
        lines = ["low = spread(-1023.0)", *lines] if not shape.many else lines
        if not shape.many:
            return lines
        inside = ["    " + line for line in lines]
        return ["low = spread(-1023.0)", f"for o in range(0, line, {shape.group}):", *inside]

    def _wide_start(self) -> list[str]:
        shape = self.shape
        begin = read(shape, "begin", "nothing")
        here = "lanes_below(zero, states - {o} // 8)"
        return [
            "if back:",
            *each(shape, [
                f"store(y + {{o}}, pick({here}, spread(1.0), zero))",
                f"store(yn + {{o}}, pick({here}, zero, nothing))",
            ], 4),
            "else:",
            *each(shape, [
                f"m{{v}}, n{{v}} = e.exp_parts({begin})",
                "store(y + {o}, m{v})",
                "store(yn + {o}, n{v})",
            ], 4),
        ]  # fmt: skip

    def _own_table(self) -> list[str]:
        """The table into this step, or into the next one on the way back."""
        if not self.varying:
            return []
        return [
            "source = changes + (t + 1 if back else t) * states * states * 8",
            *parts(self.shape, 0),
            "if back:",
            *turned("flat", "flat + 2 * size", "0.0", 4),
            *turned("flat + size", "flat + 3 * size", "-math.inf", 4),
        ]

    def _wide_step(self) -> list[str]:
        shape, meets = self.shape, self.action == "meet"
        body = [
            *(["g{v} = load(x + {o})", "h{v} = load(xn + {o})"] if meets else []),
            "m{v} = load(y + {o}) * load(ev + {o})",
            "n{v} = load(yn + {o}) + load(evn + {o})",
            "lost = m{v} == 0.0",
            "n{v} = pick(lost, nothing, n{v} + exponent(m{v}))",
            "m{v} = pick(lost, zero, mantissa(m{v}))",
            "store(x + {o}, m{v})",
            "store(xn + {o}, n{v})",
        ]
        lines = [
            "if t == edge:",
            *("    " + line for line in self._wide_start()),
            "else:",
            *("    " + line for line in [*self._own_table(), *self._wide_product()]),
            "evn = ev + short",
            "here = out + t * states * 8",
            "there = outs + t * (line // 2)",
        ]
        if not meets:
            lines += each(shape, body, 0)
            return [*lines, *(self._keep() if self.action == "store" else [])]
        # x of the step before is p going forward, q going back.
        body += ["store(q + {o}, g{v})", "store(qn + {o}, h{v})"]
        return [*lines, *each(shape, body, 0), *self._meet()]

    def _keep(self) -> list[str]:
        """Store the numbers, exponents from the largest of the row."""
        shape = self.shape
        return [
            "kept, kept_n = (y, yn) if back else (x, xn)",
            "top = none",
            *each(shape, ["top = vmax(top, load(kept_n + {o}))"], 0),
            "peak = max_lanes(top)",
            *each(shape, [
                write(shape, "here", "load(kept + {o})"),
                "store(there + {o} // 2, narrow(load(kept_n + {o}) - peak))",
            ], 0),
        ]  # fmt: skip

    def _meet(self) -> list[str]:
        shape = self.shape
        return [
            "kept, kept_n = (y, yn) if back else (x, xn)",
            "top = none",
            *each(shape, [
                f"s{{v}} = {read(shape, 'here', 'zero')}",
                "d{v} = widen(load_short(there + {o} // 2))",
                "store(g + {o}, s{v})",
                "store(gn + {o}, d{v})",
                "top = vmax(top, d{v} + load(kept_n + {o}))",
            ], 0),
            "peak = max_lanes(top)",
            "low = spread(-1023.0)",
            "sum_ = zero",
            *each(shape, [
                "r{v} = power_of_two(vmax(load(gn + {o}) + load(kept_n + {o}) - peak, low))",
                "r{v} = r{v} * load(g + {o}) * load(kept + {o})",
                "sum_ = sum_ + r{v}",
                *(["store(y + {o}, r{v})"] if shape.many else []),
            ], 0),
            "whole = sum_lanes(sum_)",
            "inverse = 0.0 if whole == 0.0 else 1.0 / whole",
            *each(shape, [
                *(["r{v} = load(y + {o})"] if shape.many else []),
                write(shape, "here", "r{v} * inverse"),
            ], 0),
            *self._wide_pairs(),
        ]  # fmt: skip

    def _wide_pairs(self) -> list[str]:
        """Expected transitions: p A q over the sum of all, step by step."""
        shape = self.shape
        if self.varying:
            place = "to = partial + ((t + 1 if back else t) * states + i) * states * 8"
            put = [write(shape, "to", "value")]
        else:
            place = "to = partial + i * line"
            put = ["store(to + {o}, load(to + {o}) + value)"]
        return [
            # The transition over the middle is the forward pass's.
            "if not (back and t == middle - 1):",
            "    if back:",
            "        p, pn, u, un = g, gn, q, qn",
            *each(shape, [
                "store(q + {o}, load(q + {o}) * inverse)",
                "store(qn + {o}, load(qn + {o}) - peak)",
            ], 8),
            "    else:",
            "        p, pn, u, un = q, qn, g, gn",
            *each(shape, [
                "store(g + {o}, load(g + {o}) * load(ev + {o}) * inverse)",
                "store(gn + {o}, load(gn + {o}) + load(evn + {o}) - peak)",
            ], 8),
            "    for i in range(states):",
            "        c, d = spread(load_f64(p + i * 8)), spread(load_f64(pn + i * 8))",
            "        w = flat + i * line",
            f"        {place}",
            *each(shape, [
                "k = d + load(w + size + {o}) + load(un + {o})",
                "value = c * load(w + {o}) * load(u + {o}) * power_of_two(vmax(k, low))",
                *put,
            ], 8),
        ]  # fmt: skip

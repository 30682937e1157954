"""Source text for outer indices: divided out of a task's first number, then counted on."""

from __future__ import annotations

from collections.abc import Iterable


def split(depth: int, number: str = "index", indent: int = 4) -> list[str]:
    """Statements that take ``i0 .. i{depth-1}`` (sizes ``n0 ..``) out of a flat ``number``."""
    pad = " " * indent
    rows = []
    for d in reversed(range(depth)):
        rows += [f"{pad}i{d} = {number} % n{d}", f"{pad}{number} //= n{d}"]
    return rows


def advance(depth: int, indent: int) -> list[str]:
    """Statements that go on to the next index, the last one fastest."""
    rows = []
    pad = " " * indent
    for d in reversed(range(depth)):
        rows += [f"{pad}i{d} += 1", f"{pad}if i{d} == n{d}:", f"{pad}    i{d} = 0"]
        pad += "    "
    return rows


def offset(name: str, depth: int) -> str:
    """The byte offset of an array with strides ``{name}_s0 ..``, to be added to an address."""
    return "".join(f" + i{d} * {name}_s{d}" for d in range(depth))


def fold_loops(depth: int, operands: int, body: Iterable[str]) -> list[str]:
    """Loops over folded axes of sizes ``r0 ..``; ``p0 ..`` are the operands' addresses inside.

    Outside they are ``s0 ..``; the outermost loop runs ``from_0 .. to_0``.
    """
    if not depth:
        return [*(f"p{i} = s{i}" for i in range(operands)), *body]
    rows, pad = [], ""
    for d in range(depth):
        bounds = "from_0, to_0" if d == 0 else f"r{d}"
        rows.append(f"{pad}for j{d} in range({bounds}):")
        pad += "    "
    for i in range(operands):
        steps = "".join(f" + j{d} * a{i}_r{d}" for d in range(depth))
        rows.append(f"{pad}p{i} = s{i}{steps}")
    return [*rows, *(pad + line for line in body)]


def folded_number(depth: int) -> str:
    """The number of an element among those that are folded, row by row."""
    number = "j0" if depth else "0"
    for d in range(1, depth):
        number = f"({number}) * r{d} + j{d}"
    return number

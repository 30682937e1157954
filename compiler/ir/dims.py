"""Symbolic sizes: integers built from named symbols, in one canonical form.

A *dim* is an ``int`` or a :class:`Dim`. A ``Dim`` is a polynomial over atoms with integer
coefficients; an atom is a symbol (``N``, ``H``) or a floor division or a remainder of two dims.
Two dims that simplify to the same polynomial are equal, so ``(2*H)//2 == H`` holds structurally.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Union

DimLike = Union[int, "Dim"]


class UnboundSymbol(KeyError):
    """A symbol has no value in the bindings given to :meth:`Dim.evaluate`."""


@dataclass(frozen=True)
class Quotient:
    """The atom ``floor(a / b)`` (``kind='//'``), ``a mod b`` (``'%'``), ``min`` or ``max``."""

    kind: str
    a: DimLike
    b: DimLike

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        # Texts are sort keys, asked for again and again: each is made once.
        if self.kind in ("min", "max"):
            return f"{self.kind}({self.a}, {self.b})"
        return f"{_wrap(self.a)}{self.kind}{_wrap(self.b)}"


Atom = Union[str, Quotient]
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Dim:
    """A polynomial over symbols; ``terms`` holds ``(monomial, coefficient)``, sorted."""

    terms: tuple[tuple[Monomial, int], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __add__(self, other: DimLike) -> DimLike:
        return _collect(list(self.terms) + _terms(other))

    def __sub__(self, other: DimLike) -> DimLike:
        return self + (-1 * other)

    def __rsub__(self, other: DimLike) -> DimLike:
        return (-1 * self) + other

    def __neg__(self) -> DimLike:
        return -1 * self

    def __mul__(self, other: DimLike) -> DimLike:
        products = [
            (tuple(sorted(m + n, key=_atom_key)), a * b)
            for m, a in self.terms
            for n, b in _terms(other)
        ]
        return _collect(products)

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: DimLike) -> DimLike:
        return floordiv(self, other)

    def __rfloordiv__(self, other: DimLike) -> DimLike:
        return floordiv(other, self)

    def __mod__(self, other: DimLike) -> DimLike:
        return mod(self, other)

    def __rmod__(self, other: DimLike) -> DimLike:
        return mod(other, self)

    @property
    def symbols(self) -> frozenset[str]:
        """Names of all symbols that the value depends on."""
        return self._symbols

    @cached_property
    def _symbols(self) -> frozenset[str]:
        return frozenset(_symbols(self))

    def substitute(self, bindings: Mapping[str, DimLike]) -> DimLike:
        """The same polynomial with symbols replaced by dims."""
        if not self._symbols & bindings.keys():
            return self
        total: DimLike = 0
        for monomial, coefficient in self.terms:
            product: DimLike = coefficient
            for atom in monomial:
                product = product * _substitute_atom(atom, bindings)
            total = total + product
        return total

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        """The integer value under ``bindings``; raises :class:`UnboundSymbol`."""
        value = self.substitute(bindings)
        if isinstance(value, Dim):
            raise UnboundSymbol(sorted(value.symbols)[0])
        return value

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        parts: list[str] = []
        for monomial, coefficient in sorted(self.terms, key=_print_key):
            factors = [
                _factor(atom, len(monomial) > 1 or abs(coefficient) != 1) for atom in monomial
            ]
            if not factors:
                body = str(abs(coefficient))
            elif abs(coefficient) == 1:
                body = "*".join(factors)
            else:
                body = "*".join([str(abs(coefficient)), *factors])
            sign = "-" if coefficient < 0 else "+"
            parts.append(f"{sign} {body}" if parts else (f"-{body}" if coefficient < 0 else body))
        return " ".join(parts)

    __repr__ = __str__


def symbol(name: str) -> Dim:
    """The dim that is the symbol ``name``."""
    return Dim((((name,), 1),))


def is_symbol(dim: DimLike) -> str | None:
    """The symbol's name when ``dim`` is a bare symbol, else ``None``."""
    if isinstance(dim, Dim) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return None


def floordiv(a: DimLike, b: DimLike) -> DimLike:
    """``floor(a / b)``; multiples of an integer ``b`` are divided out exactly."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if a == b:
        return 1
    if b == 1:
        return a
    if isinstance(b, int):
        whole = _collect([(m, c // b) for m, c in _terms(a)])
        rest = _collect([(m, c % b) for m, c in _terms(a)])
        if isinstance(rest, int):
            return whole + rest // b
        return whole + Dim((((Quotient("//", rest, b),), 1),))
    exact = _divide_by_monomial(a, b)
    return exact if exact is not None else Dim((((Quotient("//", a, b),), 1),))


def mod(a: DimLike, b: DimLike) -> DimLike:
    """``a mod b``; multiples of an integer ``b`` vanish."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if a == b or b == 1:
        return 0
    if isinstance(b, int):
        rest = _collect([(m, c % b) for m, c in _terms(a)])
        if isinstance(rest, int):
            return rest % b
        return Dim((((Quotient("%", rest, b),), 1),))
    if _divide_by_monomial(a, b) is not None:
        return 0
    return Dim((((Quotient("%", a, b),), 1),))


def ceildiv(a: DimLike, b: DimLike) -> DimLike:
    """``ceil(a / b)``."""
    return -floordiv(-a, b)


def dim_min(a: DimLike, b: DimLike) -> DimLike:
    """The smaller of two dims, kept symbolic when undecided."""
    return _extremum("min", a, b)


def dim_max(a: DimLike, b: DimLike) -> DimLike:
    """The larger of two dims, kept symbolic when undecided."""
    return _extremum("max", a, b)


def product(dims: Iterable[DimLike]) -> DimLike:
    """The product of all dims (1 when there are none)."""
    total: DimLike = 1
    for dim in dims:
        total = total * dim
    return total


def substitute(dim: DimLike, bindings: Mapping[str, DimLike]) -> DimLike:
    """``dim`` with symbols replaced; an ``int`` is returned as it is."""
    return dim.substitute(bindings) if isinstance(dim, Dim) else dim


def evaluate(dim: DimLike, bindings: Mapping[str, int]) -> int:
    """The integer value of ``dim`` under ``bindings``; raises :class:`UnboundSymbol`."""
    return dim.evaluate(bindings) if isinstance(dim, Dim) else dim


def symbols_of(dim: DimLike) -> frozenset[str]:
    """Symbols in ``dim``; empty for an ``int``."""
    return dim.symbols if isinstance(dim, Dim) else frozenset()


_UNDECIDED: ContextVar[list[tuple[DimLike, DimLike]] | None] = ContextVar("undecided", default=None)


@contextmanager
def collect_undecided() -> Iterator[list[tuple[DimLike, DimLike]]]:
    """Gather the pairs that :func:`compare` could not decide, to be required equal later."""
    pairs: list[tuple[DimLike, DimLike]] = []
    token = _UNDECIDED.set(pairs)
    try:
        yield pairs
    finally:
        _UNDECIDED.reset(token)


def compare(a: DimLike, b: DimLike) -> bool | None:
    """True when equal for all sizes, False when never equal, None when it depends on sizes."""
    verdict = _compare(a, b)
    pairs = _UNDECIDED.get()
    if verdict is None and pairs is not None and a != 1 and b != 1:
        pairs.append((a, b))
    return verdict


def _compare(a: DimLike, b: DimLike) -> bool | None:
    if a == b:
        return True
    difference = a - b
    if isinstance(difference, int):
        return False
    constant = sum(c for m, c in difference.terms if not m)
    if constant == 0 and len(difference.terms) == 1:
        # A single product of sizes: zero only if a size is zero, which no tensor here has.
        atoms = difference.terms[0][0]
        return False if all(isinstance(atom, str) for atom in atoms) else None
    return None


def parse(text: str) -> DimLike:
    """Read the printed form back; raises ``ValueError`` on anything else."""
    parser = _Parser(text)
    value = parser.sum()
    if parser.position != len(parser.tokens):
        raise ValueError(f"unexpected {parser.tokens[parser.position]!r} in size {text!r}")
    return value


# ---------------------------------------------------------------- helpers


def _terms(value: DimLike) -> list[tuple[Monomial, int]]:
    if isinstance(value, Dim):
        return list(value.terms)
    return [((), int(value))] if value else []


def _collect(terms: Iterable[tuple[Monomial, int]]) -> DimLike:
    sums: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        sums[monomial] = sums.get(monomial, 0) + coefficient
    kept = {m: c for m, c in sums.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Dim(tuple(sorted(kept.items(), key=_term_key)))


def _atom_key(atom: Atom) -> str:
    return str(atom)


def _term_key(term: tuple[Monomial, int]) -> tuple[int, list[str]]:
    return (len(term[0]), [str(atom) for atom in term[0]])


def _print_key(term: tuple[Monomial, int]) -> tuple[bool, int, list[str]]:
    # Positive terms first, constants last: "H - 1", never "-1 + H".
    return (term[1] < 0, -len(term[0]), [str(atom) for atom in term[0]])


def _wrap(value: DimLike) -> str:
    text = str(value)
    simple = re.fullmatch(r"\w+", text) is not None
    return text if simple else f"({text})"


def _factor(atom: Atom, inside_product: bool) -> str:
    text = str(atom)
    if isinstance(atom, Quotient) and atom.kind in ("//", "%") and inside_product:
        return f"({text})"
    return text


def _symbols(value: DimLike) -> set[str]:
    found: set[str] = set()
    if isinstance(value, Dim):
        for monomial, _ in value.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found |= _symbols(atom.a) | _symbols(atom.b)
    return found


def _substitute_atom(atom: Atom, bindings: Mapping[str, DimLike]) -> DimLike:
    if isinstance(atom, str):
        return bindings.get(atom, symbol(atom))
    a, b = substitute(atom.a, bindings), substitute(atom.b, bindings)
    rules: dict[str, Callable[[DimLike, DimLike], DimLike]] = {
        "//": floordiv,
        "%": mod,
        "min": dim_min,
        "max": dim_max,
    }
    return rules[atom.kind](a, b)


def _extremum(kind: str, a: DimLike, b: DimLike) -> DimLike:
    difference = a - b
    if isinstance(difference, int):
        first = difference <= 0 if kind == "min" else difference >= 0
        return a if first else b
    a, b = sorted((a, b), key=str)
    return Dim((((Quotient(kind, a, b),), 1),))


def _divide_by_monomial(a: DimLike, b: DimLike) -> DimLike | None:
    """``a / b`` when ``b`` is one product of symbols that divides every term, else None."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return None
    monomial, coefficient = divisor[0]
    result: list[tuple[Monomial, int]] = []
    for term, c in _terms(a):
        remaining = list(term)
        for atom in monomial:
            if atom not in remaining:
                return None
            remaining.remove(atom)
        if c % coefficient:
            return None
        result.append((tuple(remaining), c // coefficient))
    return _collect(result)


_TOKEN = re.compile(r"\s*(//|[-+*%(),]|\d+|[A-Za-z_]\w*)")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.position = 0
        place = 0
        while place < len(text.rstrip()):
            match = _TOKEN.match(text, place)
            if match is None:
                raise ValueError(f"not a size: {text!r}")
            self.tokens.append(match.group(1))
            place = match.end()

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise ValueError(f"size ends too early: {self.text!r}")
        self.position += 1
        return token

    def sum(self) -> DimLike:
        value: DimLike = 0
        sign = -1 if self.peek() == "-" else 1
        if sign < 0:
            self.take()
        value = sign * self.term()
        while self.peek() in ("+", "-"):
            value = value + self.term() if self.take() == "+" else value - self.term()
        return value

    def term(self) -> DimLike:
        value = self.atom()
        while self.peek() in ("*", "//", "%"):
            operator = self.take()
            right = self.atom()
            if operator == "*":
                value = value * right
            else:
                value = floordiv(value, right) if operator == "//" else mod(value, right)
        return value

    def atom(self) -> DimLike:
        token = self.take()
        if token == "(":
            value = self.sum()
            self.expect(")")
            return value
        if token in ("min", "max") and self.peek() == "(":
            self.take()
            a = self.sum()
            self.expect(",")
            b = self.sum()
            self.expect(")")
            return dim_min(a, b) if token == "min" else dim_max(a, b)
        if token.isdigit():
            return int(token)
        if re.fullmatch(r"[A-Za-z_]\w*", token):
            return symbol(token)
        raise ValueError(f"unexpected {token!r} in size {self.text!r}")

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise ValueError(f"expected {token!r} in size {self.text!r}")

"""What a kind of benchmark is: which models it measures, against whom, how its rows are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..program import Program, load


class Measured(Protocol):
    """A row: what was measured of one model in one way; its text is a line for people."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def agrees(self) -> bool:
        """Whether it ran, and both sides gave the same."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Plain numbers for ``--json``."""
        ...

    def as_record(self) -> dict[str, Any]:
        """All that is kept of it on disk."""
        ...


@dataclass(frozen=True)
class Request:
    """What the command line asks of a model; ``peers`` is ``None`` for all that are installed."""

    spec: str
    variant: str | None = None
    options: tuple[str, ...] = ()
    sizes: Mapping[str, Any] = field(default_factory=dict)
    peers: tuple[str, ...] | None = None
    engine: str = "tilth"
    batch: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    rounds: int = 15
    seconds: float = 2.0
    train: bool = False
    profile: bool = False
    note: Callable[[str], None] = lambda line: None

    def load(self) -> Program:
        """The program, its sizes still open."""
        return load(self.spec, set=self.options, variant=self.variant)


@dataclass(frozen=True)
class Kind:
    """A kind of benchmark.

    ``fits`` says whether it measures a program, ``measure`` gives rows as they come, and raises
    ``RuntimeFault`` where the machine lacks something. ``options`` are those of ``--batch``,
    ``--engine``, ``--profile``, ``--seconds`` and ``--train`` that it takes. Rows that are alike
    in the columns ``key`` replace each other on disk; ``packages`` are the distributions that
    they depend on beyond our own, and ``named`` is what their file is called. ``alone`` says that
    models are measured without a peer too.
    """

    name: str
    peers: tuple[str, ...]
    packages: tuple[str, ...]
    key: tuple[str, ...]
    what: str
    fits: Callable[[Program], bool]
    measure: Callable[[Program, Request], Iterable[Sequence[Measured]]]
    options: frozenset[str] = frozenset()
    named: Callable[[Measured], str] = lambda row: row.model
    alone: bool = False

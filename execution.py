"""How expanded probabilistic graphs are run: compiled where that pays, else in the reference."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .compiler.interpret import interpret
from .compiler.ir.graph import Graph
from .compiler.ops.base import OpError
from .compiler.options import Options

ENGINES = ("auto", "cpu", "reference")
"""``auto`` compiles graphs of more than ``PAYS`` elements, if every op of theirs has a kernel."""

PAYS = 1 << 19
"""Elements of all values of a graph from which compiling it pays."""

KEPT = 16
"""Executions that a program keeps; the one not used for longest goes."""


class Execution:
    """A graph with known sizes, ready to be run with any weights; kernels stay loaded."""

    def __init__(self, graph: Graph, engine: str = "auto", precision: str | None = None) -> None:
        if engine not in ENGINES:
            hint = f"there is {', '.join(ENGINES)}"
            raise OpError("E804", f"there is no engine `{engine}` in this version", hint)
        self.graph, self.precision = graph, precision
        self._plan: Any = None
        self._module: Any = None
        self._lock = threading.Lock()
        if engine == "cpu" or (engine == "auto" and precision is None and _elements(graph) > PAYS):
            self._plan = self._compiled(engine == "auto")

    @property
    def compiled(self) -> bool:
        """Whether kernels run it."""
        return self._plan is not None

    def run(
        self, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Outputs by name."""
        if self._plan is None:
            with np.errstate(all="ignore"):
                return interpret(self.graph, arrays, params, seed, precision=self.precision)
        from .runtime.module import Module

        feeds = {"key": np.array([seed, 0], np.uint64), **arrays}
        names = [port.name for port in self._plan.inputs]
        with self._lock, np.errstate(all="ignore"):
            if self._module is None:
                self._module = Module(self._plan, params)
            else:
                self._module.reload(params)
            return self._module.run({name: feeds[name] for name in names if name in feeds})

    def _compiled(self, or_not: bool) -> Any:
        from .compiled import lowered_graph, plan_of
        from .compiler.lower.source import module_text

        try:
            plan, _ = lowered_graph(self.graph, None, Options())
            return plan_of(module_text(plan, self.graph.name), self.graph.name)
        except OpError as fault:
            if or_not and fault.code == "E804":
                return None
            raise


def _elements(graph: Graph) -> int:
    total = 0
    for _, node in graph.nodes():
        for kind in node.types:
            shape: Any = kind.shape
            total += int(np.prod(shape, dtype=np.int64))
    return total


@dataclass
class Kept:
    """Things by key, the last ``KEPT`` that were used."""

    rows: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or one in another process, starts empty: what is kept can be made again."""
        return Kept, ()

    def get(self, key: Any) -> Any:
        """What was kept under a key, else None."""
        with self.lock:
            if key in self.rows:
                self.rows.move_to_end(key)
            return self.rows.get(key)

    def put(self, key: Any, value: Any) -> Any:
        """Keep a value; the value."""
        with self.lock:
            self.rows[key] = value
            if len(self.rows) > KEPT:
                self.rows.popitem(last=False)
        return value

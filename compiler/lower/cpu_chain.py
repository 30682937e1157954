"""Chains to rows: tables, a pass from either end, and what the two make where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...runtime.kernels import chain, chain_best, chain_pass
from ..ir.graph import Node, Value
from ..ops import OpError
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .cpu_nest import under
from .cpu_random import draw
from .cpu_views import compact
from .recipe import Recipe
from .storage import Flat, Place

RANKS = (1, 3, 2)
"""Axes of one chain's init, transition and emission."""


@rule("chain")
def lower_chain(state: Lowering, index: int, node: Node) -> None:
    """A chain in any mode; it is float64 inside."""
    operands = state.graph.operands(index)
    if any(state.type_of(v).dtype != "f64" for v in operands[:3]):
        _in_double(state, index, node)
        return
    shapes = [state.shape(v)[:-rank] for v, rank in zip(operands, RANKS, strict=False)]
    batch = np.broadcast_shapes(*shapes)
    tables = [
        _chains(state, state.view(v), batch, rank) for v, rank in zip(operands, RANKS, strict=False)
    ]
    steps, states = state.shape(operands[2])[-2:]
    if not prod(batch) or not steps or not states:
        raise OpError("E804", "a chain without steps or states has no CPU kernel")
    varying = state.shape(operands[1])[-3] > 1
    worker = _Chains(state, node, tables, batch, steps, states, varying)
    mode = str(node.attrs["mode"])
    if mode in ("max", "path"):
        worker.best(state.new_flat(Value(index)), mode == "path")
    elif mode == "sum":
        worker.total(state.new_flat(Value(index)))
    elif mode == "posterior":
        worker.posterior(*(state.new_flat(Value(index, place)) for place in range(3)))
    else:
        worker.sample(state.new_flat(Value(index)), state.flat(operands[3]))


def _in_double(state: Lowering, index: int, node: Node) -> None:
    """The same chain with casts around it."""
    r = Recipe(state, state.graph.operands(index))
    wide = [r("cast", v, attrs={"dtype": "f64"}) if r.type_of(v).is_float else v for v in r.inputs]
    made = r.writer.emit("chain", wide, dict(node.attrs))
    r.finish(index, *(
        r("cast", v, attrs={"dtype": kind.dtype}) if kind.is_float else v
        for v, kind in zip(made, node.types, strict=True)
    ))  # fmt: skip


def _chains(state: Lowering, view: Flat, batch: tuple[int, ...], rank: int) -> tuple[Flat, int]:
    """One operand for each chain of the batch, row-major, and bytes from one to the next."""
    own = view.shape[len(view.shape) - rank :]
    lead = view.shape[: len(view.shape) - rank]
    if prod(lead) == 1 or lead == batch:
        flat = view if view.contiguous else compact(state, view)
        return flat, 0 if prod(lead) == 1 else prod(own) * 8
    shape = (*batch, *own)
    wide = Flat(view.place, shape, view.dtype, under(view, shape).strides)
    return compact(state, wide), prod(own) * 8


@dataclass
class _Chains:
    """The rows of one op: a batch of chains over the same states and steps."""

    state: Lowering
    node: Node
    tables: list[tuple[Flat, int]]
    batch: tuple[int, ...]
    steps: int
    states: int
    varying: bool

    def __post_init__(self) -> None:
        self.shape = chain.layout(self.states, self.state.target.lanes)
        self.count = prod(self.batch)
        self.label = self.node.name or "chain"

    def best(self, out: Flat, path: bool) -> None:
        """The best path or its score."""
        if path and self.states > chain_best.MOST:
            raise OpError("E804", f"a best path over {self.states} states has no CPU kernel",
                          "run it with `--engine reference`")  # fmt: skip
        words = {
            **self._operands(), "states": self.states, "steps": self.steps,
            "varying": int(self.varying), "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
            "path" if path else "score": out.place,
        }  # fmt: skip
        if path:
            row = self.shape.row(self.states) // 8
            words["pointers"] = self._room(self.count * self.steps * row)
        self._emit(chain_best.BestKernel(self.shape, path), self.count, chain_best.BEST_WORDS,
                   words, chain_best.best_scratch(self.shape, self.states))  # fmt: skip

    def total(self, out: Flat) -> None:
        """Log Z: half of the steps from either end, or all from the first with tables of steps."""
        half = self.steps if self.varying else max(1, self.steps // 2)
        parts = self._begin(half, 1 if self.varying else 2)
        self._pass("total", parts, again=False)
        self._end(parts, out, None)

    def posterior(self, marginals: Flat, pairs: Flat, log_z: Flat) -> None:
        """Marginals, in the memory of which the two passes leave what they hand over.

        Going on from the middle the forward pass ends where log Z is the sum of its numbers.
        """
        parts = self._begin(max(1, self.steps // 2), 2)
        parts |= {"marginals": marginals.place, "exponents": self._exponents()}
        if self.varying:
            parts["partial"] = pairs.place
        else:
            parts["partial_step"] = self.shape.table(self.states)
            parts["partial"] = self._room(2 * self.count * parts["partial_step"])
        self._pass("store", parts, again=False)
        self._pass("meet", parts, again=True)
        self._end({**parts, "middle": self.steps}, log_z, None if self.varying else pairs)

    def sample(self, out: Flat, key: Flat) -> None:
        """A pass to the last step, and choices on the way back."""
        parts = self._begin(self.steps, 1)
        room = self._room(self.count * self.steps * self.states * 8)
        parts |= {"marginals": room, "exponents": self._exponents()}
        self._pass("store", parts, again=False)
        uniform = self.state.loose_flat((*self.batch, self.steps), "f64")
        draw(self.state, key, str(self.node.attrs["path"]), "uniform", uniform, "f64")
        words = {name: parts[name] for name in chain_best.SAMPLE_WORDS if name in parts}
        words |= {"uniform": uniform.place, "path": out.place, "varying": int(self.varying)}
        self._emit(chain_best.SampleKernel(self.shape), self.count, chain_best.SAMPLE_WORDS,
                   words, 16 * self.states)  # fmt: skip

    # ------------------------------------------------------------ rows

    def _operands(self) -> dict[str, Any]:
        names = ("init", "transition", "emission")
        return {
            key: value
            for name, (flat, step) in zip(names, self.tables, strict=True)
            for key, value in ((name, flat.place), (f"{name}_step", step))
        }

    def _begin(self, middle: int, directions: int) -> dict[str, Any]:
        """The words that all rows of a pass share; emits the tables."""
        shape, states = self.shape, self.states
        operands = self._operands()
        chains = 1 if operands["transition_step"] == 0 else self.count
        head: Any
        if self.varying:
            # Numbers are wide and no table serves all steps.
            head, step = self.state.known(np.array([1.0, 0.0]), "f64").place, 0
        else:
            head, step = self._room(chains * shape.tables(states)), shape.tables(states)
            words = {
                "transition": operands["transition"], "tables": head, "states": states,
                "source_step": operands["transition_step"], "table_step": step,
            }  # fmt: skip
            self._emit(chain.TableKernel(shape), chains, chain.TABLE_WORDS, words, 0)
        return {
            **operands, "tables": head, "table_step": step if chains > 1 else 0,
            "state": self._room(2 * self.count * shape.state(states)),
            "state_step": shape.state(states), "states": states, "steps": self.steps,
            "middle": middle, "directions": directions, "scratch": SCRATCH,
            "scratch_slot": SCRATCH_SLOT,
        }  # fmt: skip

    def _pass(self, action: str, parts: dict[str, Any], again: bool) -> None:
        kernel = chain_pass.PassKernel(self.shape, action, self.varying)
        self._emit(kernel, self.count * parts["directions"], chain_pass.WORDS,
                   {**parts, "again": int(again)},
                   chain_pass.scratch_bytes(self.shape, self.states))  # fmt: skip

    def _end(self, parts: dict[str, Any], logz: Flat | None, pairs: Flat | None) -> None:
        words = {name: parts[name] for name in chain.END_WORDS if name in parts}
        words |= {"logz": logz.place} if logz else {}
        words |= {"pairs": pairs.place} if pairs else {}
        kernel = chain.EndKernel(self.shape, pairs is not None)
        self._emit(kernel, self.count, chain.END_WORDS, words, 0)

    def _exponents(self) -> Place:
        row = self.shape.row(self.states) // 2
        return self._room(self.count * self.steps * row)

    def _room(self, size: int) -> Place:
        return self.state.room(size)

    def _emit(
        self, kernel: Any, tasks: int, names: Any, words: dict[str, Any], scratch: int
    ) -> None:
        self.state.emit(kernel, tasks, names, words, self.label, scratch)

"""Packed weights of a product: packed when weights arrive, or by kernels at every step.

Weights that are known before the call become text of the load phase. Those that a call is given,
as a training step is, are packed by rows of the plan itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...runtime.kernels import packs
from ..ir.graph import Value
from .convolution import BLOCK
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering
from .load import Packed, label
from .storage import Place


@dataclass(frozen=True)
class Filters:
    """The weights of a convolution, [outputs, inputs / groups, taps...].

    ``turned`` are those of the backward convolution: inputs and outputs of a group change places,
    and the taps run backwards. ``known`` is the text of weights that the load phase rewrote.
    """

    state: Lowering
    value: Value
    name: str
    groups: int = 1
    turned: bool = False
    known: str = ""

    @property
    def steady(self) -> bool:
        """Whether they are known before the call."""
        return self.value.node in self.state.phases

    @property
    def text(self) -> str:
        """The weights in the load phase."""
        text = self.known or self.state.load.text(self.value)
        return f"pack.turned({text}, {self.groups})" if self.turned else text

    def panels(self, blocks: int, size: int) -> Packed | Place:
        """For the direct kernel: panels of ``blocks`` blocks of outputs."""
        if self.steady:
            text = f"pack.panels({self.text}, {blocks}, {self.groups})"
            return self._kept("weight", text, size)
        return self._packed(BLOCK * blocks, size)

    def planar(self, blocks: int, size: int) -> Packed | Place:
        """For an input that is staged by pixels."""
        if self.steady:
            return self._kept("weight", f"pack.planar({self.text}, {blocks})", size)
        return self._packed(BLOCK * blocks, size)

    def depthwise(self, size: int) -> Packed | Place:
        """One filter a channel."""
        if self.steady:
            text = replace(self, groups=self.state.shape(self.value)[0]).text
            return self._kept("weight", f"pack.depthwise({text})", size)
        features, _, *kernel = self.state.shape(self.value)
        taps, place = prod(kernel), self.state.flat(self.value).place
        step = -4 if self.turned else 4
        place = place.moved((taps - 1) * 4) if self.turned else place
        view = _View(place, features, 1, taps, (taps * 4, 0, step))
        return _pack(self.state, view, BLOCK, size, 1, f"{self.name} packed")

    def matrix(self, blocks: int, size: int) -> Packed | Place:
        """A dense layer's weights, [outputs, inputs]."""
        if self.steady:
            return self._kept("weight", f"pack.matrix({self.text}, {blocks})", size)
        return self._packed(BLOCK * blocks, size)

    def transformed(self, blocks: int, size: int) -> Packed | Place:
        """For Winograd's kernel."""
        if self.steady:
            return self._kept("winograd", f"pack.transformed({self.text}, {blocks})", size)
        view, goal = self._view(), self.state.room(size)
        words: dict[str, Any] = {
            "x": view.place, "y": goal, "output_step": view.steps[0],
            "input_step": view.steps[1], "tap_step": view.steps[2], "outputs": view.outputs,
            "inputs": view.inputs, "shares": -(-view.inputs // packs.SHARE),
            "share": packs.SHARE, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
        }  # fmt: skip
        kernel = packs.WinogradPackKernel(blocks, self.state.target.lanes)
        panels = -(-view.outputs // (BLOCK * blocks))
        tasks = packs.winograd_tasks(panels, view.inputs)
        self.state.emit(kernel, tasks, packs.WINOGRAD_WORDS, words, f"{self.name} packed",
                        packs.winograd_scratch(blocks))  # fmt: skip
        return goal

    # ------------------------------------------------------------ helpers

    def _kept(self, kind: str, text: str, size: int) -> Packed:
        return self.state.load.pack(label(f"{self.name}.{kind}"), text, size)

    def _view(self) -> _View:
        """How a kernel reads the weights."""
        first, second, *kernel = self.state.shape(self.value)
        first, taps = first // self.groups, prod(kernel)
        place = self.state.flat(self.value).place
        if not self.turned:
            return _View(place, first, second, taps, (second * taps * 4, taps * 4, 4))
        last = place.moved((taps - 1) * 4)
        return _View(last, second, first, taps, (taps * 4, second * taps * 4, -4))

    def _packed(self, wide: int, size: int) -> Place:
        view = self._view()
        return _pack(self.state, view, wide, size, self.groups, f"{self.name} packed")


@dataclass(frozen=True)
class _View:
    """Outputs, inputs and taps of a group, and the bytes between neighbours of each."""

    place: Packed | Place
    outputs: int
    inputs: int
    taps: int
    steps: tuple[int, int, int]


def _pack(state: Lowering, view: _View, wide: int, size: int, groups: int, name: str) -> Place:
    goal = state.room(size)
    each, blocks_in = -(-view.outputs // wide), -(-view.inputs // BLOCK)
    words: dict[str, Any] = {
        "x": view.place, "y": goal, "output_step": view.steps[0], "input_step": view.steps[1],
        "tap_step": view.steps[2], "outputs": view.outputs, "inputs": view.inputs,
        "taps": view.taps, "blocks_in": blocks_in, "group_panels": each,
        "group_step": view.outputs * view.inputs * view.taps * 4,
        "panel_bytes": view.inputs * view.taps * wide * 4,
    }  # fmt: skip
    kernel = packs.PanelPackKernel(wide, state.target.lanes)
    state.emit(kernel, packs.tasks(each * groups, blocks_in), packs.WORDS, words, name)
    return goal


def pad_groups(text: str, groups: int, room: int) -> str:
    """Weights or a bias in the load phase, with zeros between the outputs of groups."""
    return f"pack.padded_groups({text}, {groups}, {room})"


def channel_vector(
    state: Lowering, value: Value | None, name: str, size: int, multiple: int,
    gaps: tuple[int, int] | None = None,
) -> Packed | Place:  # fmt: skip
    """A vector along ``size`` channels, with zeros up to a multiple; zeros when there is none.

    ``gaps`` are groups and the channels that each has room for, where a known one has fewer.
    """
    count = -(-size // multiple) * multiple
    if value is None:
        return state.load.pack(f"zeros{count}", f"np.zeros({count}, np.float32)", count * 4)
    if value.node in state.phases:
        known = state.load.text(value)
        known = known if gaps is None else pad_groups(known, *gaps)
        text = f"pack.vector({known}, {multiple})"
        return state.load.pack(label(name), text, count * 4)
    # Panels of no outputs at the end hold the zeros.
    goal = state.room(count * 4)
    words: dict[str, Any] = {
        "x": state.flat(value).place, "y": goal, "output_step": 4, "outputs": size, "inputs": 1,
        "taps": 1, "blocks_in": 1, "group_panels": count // BLOCK, "panel_bytes": BLOCK * 4,
    }  # fmt: skip
    kernel = packs.PanelPackKernel(BLOCK, state.target.lanes)
    state.emit(kernel, packs.tasks(count // BLOCK, 1), packs.WORDS, words, name)
    return goal

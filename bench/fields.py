"""Dense random fields against pydensecrf: the same picture, unaries and kernels, turn by turn.

Before anything is timed both are compared with the exact sums over all pairs, on the picture taken
thin, and with each other on the whole one. A call is all that a new picture needs: lattices too.
"""

# The package is no dependency; whoever measures installs it.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..compiled import CompiledProgram, lowered_graph, plan_of
from ..compiler.inference.expand import expand
from ..compiler.interpret import interpret
from ..compiler.options import Options
from ..program import Program
from ..runtime.faults import RuntimeFault
from ..runtime.module import Module
from .kind import Request

EXTRA = "pip install pydensecrf2 scikit-learn"
HEIGHT, WIDTH = 480, 640
THIN = 8
"""Every how many pixels the small picture has one."""

SURE = 0.6
"""The probability that the noisy labelling gives to its label."""


@dataclass(frozen=True)
class FieldRow:
    """Median milliseconds side by side, and how far each is from the exact answer.

    ``error`` is the mean absolute difference of probabilities on the small picture, ``wrong`` the
    share of its pixels whose label is another one; ``same`` is the share of the whole picture's
    pixels that both label alike.
    """

    model: str
    height: int
    width: int
    labels: int
    steps: int
    threads: int
    ms: float
    pydensecrf_ms: float
    ratio: float
    error: float
    pydensecrf_error: float
    wrong: float
    pydensecrf_wrong: float
    same: float
    rounds: int
    agrees: bool

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    as_record = as_json

    def __str__(self) -> str:
        """A line for people."""
        return (
            f"{self.model}, {self.threads} threads: {self.ms:.1f} ms, pydensecrf"
            f" {self.pydensecrf_ms:.1f} ms, {self.ratio:.2f} times faster; from the exact answer"
            f" {self.error:.1e} and {self.pydensecrf_error:.1e}"
        )


def is_field(program: Program) -> bool:
    """Whether a program is the zoo's dense random field, whose parameters are known here."""
    return program.name == "dense_crf"


def measure(program: Program, request: Request) -> Iterator[list[FieldRow]]:
    """Rows of a field, a list for each number of threads."""
    for threads in request.threads:
        yield [compare_fields(program, request.rounds, threads)]


def compare_fields(program: Program, rounds: int, threads: int) -> FieldRow:
    """Measure a dense random field."""
    try:
        import pydensecrf.densecrf as peer
        from sklearn.datasets import load_sample_image
    except ImportError as missing:
        message = f"`{missing.name}` is not installed"
        raise RuntimeFault("E804", message, EXTRA) from missing
    options: Any = program.model.options
    picture = np.asarray(load_sample_image("china.jpg"))
    picture = np.pad(picture, ((0, HEIGHT - len(picture)), (0, 0), (0, 0)), "reflect")
    unary = noisy_unary(picture, options["L"])
    weights = program.initial_weights()
    w = weights["w"]

    def theirs(image: np.ndarray, energy: np.ndarray) -> np.ndarray:
        return _peer(peer, options, w, image, energy)

    small, few = np.ascontiguousarray(picture[::THIN, ::THIN]), unary[:, ::THIN, ::THIN].copy()
    exact = _exact(program, small, few, weights)
    near = _by_lattice(program, small, few, weights, threads)
    far = theirs(small, few)
    module = CompiledProgram(program, weights, threads)
    arrays = {"unary": unary, "image": np.ascontiguousarray(_channels(picture))}
    mine, other = module.run(arrays)["q"], theirs(picture, unary)
    times = []
    for turn in range(rounds):
        calls = [lambda: module.run(arrays), lambda: theirs(picture, unary)]
        order = (0, 1) if turn % 2 else (1, 0)
        seconds = {place: _seconds(calls[place]) for place in order}
        times.append((seconds[0], seconds[1]))
    here, there = (median(column) * 1e3 for column in zip(*times, strict=True))
    errors = [float(np.abs(q - exact).mean()) for q in (near, far)]
    wrong = [float((q.argmax(-1) != exact.argmax(-1)).mean()) for q in (near, far)]
    return FieldRow(
        model=program.variant or program.name,
        height=HEIGHT,
        width=WIDTH,
        labels=options["L"],
        steps=options["steps"],
        threads=threads,
        ms=here,
        pydensecrf_ms=there,
        ratio=median(b / a for a, b in times),
        error=errors[0],
        pydensecrf_error=errors[1],
        wrong=wrong[0],
        pydensecrf_wrong=wrong[1],
        same=float((mine.argmax(-1) == other.argmax(-1)).mean()),
        rounds=rounds,
        agrees=errors[0] <= errors[1] and wrong[0] <= wrong[1],
    )


def noisy_unary(picture: np.ndarray, labels: int) -> np.ndarray:
    """Energies ``f32[labels, H, W]`` of a labelling by brightness, four tenths of it drawn anew."""
    rng = np.random.default_rng(0)
    bright = picture.astype(np.float64).mean(axis=2)
    edges = np.quantile(bright, np.linspace(0, 1, labels + 1)[1:-1])
    label = np.searchsorted(edges, bright)
    anew = rng.random(label.shape) < 0.4
    label = np.where(anew, rng.integers(0, labels, label.shape), label)
    chance = np.full((labels, *label.shape), (1 - SURE) / (labels - 1), np.float32)
    np.put_along_axis(chance, label[None], SURE, 0)
    return -np.log(chance)


def _channels(picture: np.ndarray) -> np.ndarray:
    return picture.transpose(2, 0, 1).astype(np.float32)


def _peer(peer: Any, options: Any, w: Any, image: np.ndarray, unary: np.ndarray) -> np.ndarray:
    labels, height, width = unary.shape
    field = peer.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary.reshape(labels, -1))
    how = peer.NORMALIZE_SYMMETRIC if options["normalise"] else peer.NO_NORMALIZATION
    alpha, beta, gamma = (options[f"theta_{name}"] for name in ("alpha", "beta", "gamma"))
    field.addPairwiseGaussian(sxy=gamma, compat=float(w[1]), normalization=how)
    field.addPairwiseBilateral(
        sxy=alpha, srgb=beta, rgbim=image, compat=float(w[0]), normalization=how
    )
    found = np.array(field.inference(options["steps"]))
    return found.reshape(labels, height, width).transpose(1, 2, 0)


def _exact(program: Program, image: np.ndarray, unary: np.ndarray, weights: Any) -> np.ndarray:
    """All pairs summed, in float64."""
    graph = expand(_bound(program, image), engine="exact")
    arrays = {"unary": unary, "image": _channels(image)}
    return interpret(graph, arrays, dict(weights), precision="f64")["q"]


def _by_lattice(
    program: Program, image: np.ndarray, unary: np.ndarray, weights: Any, threads: int
) -> np.ndarray:
    """The filters of large pictures on a small one."""
    from ..compiler.lower.source import module_text

    graph = expand(_bound(program, image), engine="lattice")
    text = module_text(lowered_graph(graph, threads, Options())[0], program.name)
    module = Module(plan_of(text, program.name), weights, threads)
    return module.run({"unary": unary, "image": _channels(image)})["q"]


def _bound(program: Program, image: np.ndarray) -> Any:
    return program.graph.bind({"H": image.shape[0], "W": image.shape[1]})


def _seconds(call: Any) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started

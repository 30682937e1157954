"""The changes that a chain of augmentation may hold, by the names that specs call them by.

Each is made from the shape of an example, the training examples and its settings, and is then a
function of a batch. Pictures are ``[N, C, H, W]``; what leaves their edges is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import philox
from ..faults import RuntimeFault
from .dataset import CLASS_WEIGHT
from .loader import Batch

Shape = tuple[int, ...]
Examples = Callable[[], Iterable[np.ndarray]]
GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Luminance of RGB (ITU-R BT.601)."""

WHITENED = 4096
"""The most numbers of an example for which principal axes are worked out."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of the examples of a batch: by seed, epoch, example and place."""

    seed: int
    epoch: int
    examples: np.ndarray
    place: str

    def uniform(self, number: int = 0) -> np.ndarray:
        """The ``number``-th draw of each example, uniform in [0, 1), float64."""
        source = philox.Stream(self.seed, self.epoch, self.place, number)
        return philox.uniform_at(source, self.examples)

    def between(self, low: float, high: float, number: int = 0) -> np.ndarray:
        """Uniform in [low, high)."""
        return low + (high - low) * self.uniform(number)

    def below(self, limit: int, number: int = 0) -> np.ndarray:
        """Whole numbers from 0 to ``limit - 1``."""
        return np.minimum((self.uniform(number) * limit).astype(np.int64), limit - 1)

    def normal(self, number: int) -> np.ndarray:
        """Standard normal, by Box and Muller; it takes the draws ``number`` and the next."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(number)))
        return radius * np.cos(2 * np.pi * self.uniform(number + 1))


class Fitted(Protocol):
    """One change, ready."""

    def shape(self, shape: Shape) -> Shape:
        """The shape of an example after it."""
        ...

    def __call__(self, batch: Batch, subject: str, draws: Draws | None) -> Batch:
        """The fields that change; without ``draws`` what evaluation does."""
        ...


@dataclass(frozen=True)
class Change:
    """A change of the subject alone; ``evaluate`` is done without draws."""

    train: Callable[[np.ndarray, Draws], np.ndarray]
    evaluate: Callable[[np.ndarray], np.ndarray] = lambda x: x
    becomes: Callable[[Shape], Shape] = lambda shape: shape

    def shape(self, shape: Shape) -> Shape:
        """The shape of an example after it."""
        return self.becomes(shape)

    def __call__(self, batch: Batch, subject: str, draws: Draws | None) -> Batch:
        """The changed subject, float32."""
        given = batch[subject]
        made = self.evaluate(given) if draws is None else self.train(given, draws)
        return {subject: np.ascontiguousarray(made, given.dtype)}


def always(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change without chance, the same while training and evaluating."""
    return Change(lambda x, draws: change(x), change)


# ---------------------------------------------------------------- statistics


def mean_image(shape: Shape, examples: Examples) -> Change:
    """Subtract the mean example."""
    mean = _mean(examples()).astype(np.float32)
    return always(lambda x: x - mean)


def zscore(shape: Shape, examples: Examples) -> Change:
    """Zero mean and unit variance by channel (by element, where there are only those)."""
    axes = (0, *range(2, len(shape) + 1))
    total, square, count = np.zeros(()), np.zeros(()), 0.0
    for chunk in examples():
        total, square = total + chunk.sum(axes), square + np.square(chunk).sum(axes)
        count += chunk.size / chunk.shape[1]
    mean = total / count
    # A channel that is constant stays what it is, less its mean.
    deviation = np.sqrt(np.maximum(square / count - np.square(mean), 0))
    scale = np.divide(1, deviation, out=np.ones_like(deviation), where=deviation > 1e-8)
    wide = (slice(None), *[None] * (len(shape) - 1))
    shift, factor = mean.astype(np.float32)[wide], scale.astype(np.float32)[wide]
    return always(lambda x: (x - shift) * factor)


def whiten(shape: Shape, examples: Examples, eps: float) -> Change:
    """PCA whitening: rotate to the principal axes, divide by each one's deviation.

    ``(x - mean) E diag(1 / sqrt(eigenvalue + eps))``; the components stand in the places of the
    elements, the largest first.
    """
    size = int(np.prod(shape))
    if size > WHITENED:
        message = f"`whiten` works out {size} principal axes, and {WHITENED} is the most"
        raise RuntimeFault("E807", message, "scale the pictures down first")
    mean, covariance = _covariance(chunk.reshape(len(chunk), -1) for chunk in examples())
    values, axes = np.linalg.eigh(covariance)
    order = np.argsort(-values, kind="stable")
    matrix = axes[:, order] / np.sqrt(np.maximum(values[order], 0) + eps)
    turn, shift = matrix.astype(np.float32), mean.astype(np.float32)
    return always(lambda x: ((x.reshape(len(x), -1) - shift) @ turn).reshape(x.shape))


def colour_noise(shape: Shape, examples: Examples, sd: float) -> Change:
    """Add to all pixels a random step along the principal axes of the colours.

    ``sum over axes of a_i s_i p_i`` with a_i normal of deviation ``sd``, s_i the deviation of the
    data along the axis p_i (Krizhevsky, Sutskever, Hinton 2012, section 4.1).
    """
    _require_picture("colour_noise", shape)
    _, covariance = _covariance(_colours(chunk) for chunk in examples())
    values, axes = np.linalg.eigh(covariance)
    steps = axes * np.sqrt(np.maximum(values, 0))

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        amounts = np.stack([sd * draws.normal(2 * i) for i in range(len(values))], 1)
        return x + (amounts @ steps.T).astype(np.float32)[:, :, None, None]

    return Change(train)


# ---------------------------------------------------------------- geometry


def hflip(shape: Shape, examples: Examples, p: float) -> Change:
    """Mirror left and right with probability ``p``."""
    _require_picture("hflip", shape)
    return Change(lambda x, draws: _where(draws.uniform() < p, x[..., ::-1], x))


def vflip(shape: Shape, examples: Examples, p: float) -> Change:
    """Mirror up and down with probability ``p``."""
    _require_picture("vflip", shape)
    return Change(lambda x, draws: _where(draws.uniform() < p, x[..., ::-1, :], x))


def crop(shape: Shape, examples: Examples, size: int, pad: int) -> Change:
    """A random square of ``size``, after ``pad`` zeros on each side; else the central one."""
    _require_picture("crop", shape)
    height, width = shape[1] + 2 * pad, shape[2] + 2 * pad
    if size > min(height, width):
        message = f"`crop({size}, pad={pad})` is larger than the padded picture, {height} x {width}"
        raise RuntimeFault("E807", message)

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        top, left = draws.below(height - size + 1), draws.below(width - size + 1, 1)
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
        return windows[np.arange(len(x)), :, top, left]

    def evaluate(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        top, left = (height - size) // 2, (width - size) // 2
        return padded[..., top : top + size, left : left + size]

    return Change(train, evaluate, lambda shape: (shape[0], size, size))


def scale(shape: Shape, examples: Examples, low: float, high: float) -> Change:
    """Enlarge about the centre by a random factor; the picture keeps its size."""
    _require_picture("scale", shape)

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        factor = draws.between(low, high)
        zero = np.zeros_like(factor)
        return warped(x, np.stack([1 / factor, zero, zero, 1 / factor], 1).reshape(-1, 2, 2))

    return Change(train)


def rotate(shape: Shape, examples: Examples, degrees: float) -> Change:
    """Turn about the centre by an angle of up to ``degrees`` either way."""
    _require_picture("rotate", shape)

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        angle = np.deg2rad(draws.between(-degrees, degrees))
        c, s = np.cos(angle), np.sin(angle)
        return warped(x, np.stack([c, s, -s, c], 1).reshape(-1, 2, 2))

    return Change(train)


def cutout(shape: Shape, examples: Examples, size: int) -> Change:
    """Zeros in a square about a random pixel, which may stand over the edge.

    DeVries and Taylor 2017.
    """
    _require_picture("cutout", shape)
    rows, columns = np.arange(shape[1]), np.arange(shape[2])

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        top = draws.below(shape[1])[:, None] - size // 2
        left = draws.below(shape[2], 1)[:, None] - size // 2
        tall = (rows >= top) & (rows < top + size)
        wide = (columns >= left) & (columns < left + size)
        return np.where(tall[:, None, :, None] & wide[:, None, None, :], np.float32(0), x)

    return Change(train)


# ---------------------------------------------------------------- colour and mixing


def colour_jitter(
    shape: Shape, examples: Examples, brightness: float, contrast: float, saturation: float
) -> Change:
    """Brightness, contrast and saturation, in this order, each by a factor from 1 - v to 1 + v.

    Contrast is the distance from the picture's mean grey, saturation that from each pixel's grey;
    nothing is cut off at 0 or 1.
    """
    _require_picture("colour_jitter", shape)

    def train(x: np.ndarray, draws: Draws) -> np.ndarray:
        amounts = (brightness, contrast, saturation)
        factors = [draws.between(1 - v, 1 + v, i) for i, v in enumerate(amounts)]
        b, c, s = (factor.astype(np.float32)[:, None, None, None] for factor in factors)
        x = x * b
        mean = _grey(x).mean((2, 3), keepdims=True)
        x = mean + (x - mean) * c
        grey = _grey(x)
        return grey + (x - grey) * s

    return Change(train)


@dataclass(frozen=True)
class Mixup:
    """Mix each example with the next one of its batch, labels too.

    ``x_i = l x_i + (1 - l) x_j`` with l from Beta(alpha, alpha) for each example, and so the labels
    (Zhang, Cisse, Dauphin, Lopez-Paz 2018, who mix inside a batch as well).
    """

    alpha: float

    def shape(self, shape: Shape) -> Shape:
        """The shape of an example after it."""
        return shape

    def __call__(self, batch: Batch, subject: str, draws: Draws | None) -> Batch:
        """The mixed subject and labels."""
        if draws is None:
            return {}
        mixed = {name: array for name, array in batch.items() if name != CLASS_WEIGHT}
        whole = [name for name, array in mixed.items() if array.dtype.kind != "f"]
        if whole:
            message = f"`mixup` mixes labels, and `{whole[0]}` holds whole numbers"
            hint = f"declare it as shares of the classes: `input {whole[0]} : f32[N, CLASSES]`"
            raise RuntimeFault("E807", message, hint)
        share = symmetric_beta(self.alpha, draws)
        return {name: _mixed(array, share) for name, array in mixed.items()}


def mixup(shape: Shape, examples: Examples, alpha: float) -> Mixup:
    """Mix pairs of examples; see :class:`Mixup`."""
    return Mixup(alpha)


def symmetric_beta(alpha: float, draws: Draws) -> np.ndarray:
    """Draws from Beta(alpha, alpha), without rejection.

    ``1/2 + c / (2 sqrt(c^2 + 1 / (u^(-1/alpha) - 1)))`` with c the cosine of a random angle: a
    Student's t by Bailey's polar method, carried over (Devroye 1996, "Random variate generation in
    one line of code").
    """
    u = 1 - draws.uniform()
    cosine = np.cos(2 * np.pi * draws.uniform(1))
    # u^(-1/alpha) - 1, and what it becomes when it overflows: the extremes 0 and 1.
    with np.errstate(over="ignore"):
        spread = np.expm1(-np.log(u) / alpha)
    with np.errstate(divide="ignore"):
        return 0.5 + cosine / (2 * np.sqrt(np.square(cosine) + 1 / spread))


CHANGES: dict[str, Callable[..., Fitted]] = {
    change.__name__: change
    for change in (
        mean_image,
        zscore,
        whiten,
        hflip,
        vflip,
        crop,
        scale,
        rotate,
        colour_noise,
        colour_jitter,
        cutout,
        mixup,
    )
}
"""By name; settings are keywords."""


def warped(pictures: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Pictures read at ``matrix @ (row, column)`` about the centre, bilinear, 0 outside.

    ``pictures`` is ``[N, C, H, W]``, ``matrices`` ``[N, 2, 2]``.
    """
    count, _, height, width = pictures.shape
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).reshape(2, -1)
    centre = np.array([[(height - 1) / 2], [(width - 1) / 2]])
    places = matrices @ (grid - centre) + centre
    corner = np.floor(places)
    rest = (places - corner).astype(np.float32)
    rows, columns = corner.astype(np.int64).transpose(1, 0, 2)
    each = np.arange(count)[:, None]
    made = np.zeros((count, height * width, pictures.shape[1]), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            row, column = rows + down, columns + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = np.abs(1 - down - rest[:, 0]) * np.abs(1 - right - rest[:, 1]) * inside
            read = pictures[each, :, row.clip(0, height - 1), column.clip(0, width - 1)]
            made += read * share[..., None]
    return made.transpose(0, 2, 1).reshape(pictures.shape)


# ---------------------------------------------------------------- helpers


def _where(chosen: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(chosen[:, None, None, None], yes, no)


def _mixed(array: np.ndarray, share: np.ndarray) -> np.ndarray:
    part = share.astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1))
    return part * array + (1 - part) * np.roll(array, -1, 0)


def _grey(x: np.ndarray) -> np.ndarray:
    if x.shape[1] != 3:
        return x.mean(1, keepdims=True)
    return np.tensordot(GREY, x, (0, 1))[:, None]


def _colours(chunk: np.ndarray) -> np.ndarray:
    return chunk.transpose(0, 2, 3, 1).reshape(-1, chunk.shape[1])


def _mean(chunks: Iterable[np.ndarray]) -> np.ndarray:
    total, count = np.zeros(()), 0
    for chunk in chunks:
        total, count = total + chunk.sum(0), count + len(chunk)
    return total / count


def _covariance(chunks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``[d]`` and covariance ``[d, d]`` of rows."""
    total, square, count = np.zeros(()), np.zeros(()), 0
    for chunk in chunks:
        total, square = total + chunk.sum(0), square + chunk.T @ chunk
        count += len(chunk)
    mean = total / count
    return mean, square / count - np.outer(mean, mean)


def _require_picture(name: str, shape: Any) -> None:
    if len(shape) != 3:
        raise RuntimeFault("E807", f"`{name}` changes pictures, and an example is {list(shape)}")

"""Values that depend on the unknown value function: sums over outcomes, and nothing else.

A :class:`Mixture` stands for ``base + sum_k chance[k] * (reward[k] + weight[k] * V[state[k]])``,
element by element, where V is the unknown vector. Sums, products with known numbers, choices by
known conditions, lookups and expectations of mixtures are mixtures; so Bellman's equation is one.
Arrays are kept with axes of size 1 wherever they do not vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .picking import FEW, picked

Shape = tuple[int, ...]
SUM_TOLERANCE = 1e-9
"""How far probabilities may be from 1 in sum."""


@dataclass(frozen=True)
class Mixture:
    """A tensor of sums over outcomes.

    ``base`` broadcasts to ``shape``; the others to ``shape`` and one last axis, the outcomes.
    ``whole`` says that chances sum to 1, so that a known number may join every outcome's reward.
    """

    shape: Shape
    base: np.ndarray
    chance: np.ndarray
    reward: np.ndarray
    weight: np.ndarray
    state: np.ndarray
    whole: bool = True

    @property
    def outcomes(self) -> int:
        """Outcomes of one element."""
        return max(a.shape[-1] for a in (self.chance, self.reward, self.weight, self.state))

    @property
    def terms(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Chances, rewards, weights and states."""
        return self.chance, self.reward, self.weight, self.state

    def values(self, unknown: np.ndarray) -> np.ndarray:
        """The tensor, once the unknown vector is known."""
        inner = self.chance * (self.reward + self.weight * unknown[self.state])
        return np.broadcast_to(self.base + inner.sum(axis=-1), self.shape)


def lookup(state: np.ndarray) -> Mixture:
    """``V[state]``."""
    ones, zeros = np.ones((1,) * (state.ndim + 1)), np.zeros((1,) * (state.ndim + 1))
    return Mixture(state.shape, zeros[..., 0], ones, zeros, ones, state[..., None])


def constant(known: np.ndarray) -> Mixture:
    """A known number as a mixture of one outcome that ends."""
    zeros = np.zeros((1,) * (known.ndim + 1))
    state = np.zeros(zeros.shape, np.int32)
    return Mixture(known.shape, known.astype(np.float64), zeros + 1, zeros, zeros, state)


# ---------------------------------------------------------------- arithmetic


def add(mixture: Mixture, known: np.ndarray, sign: float = 1.0) -> Mixture:
    """``mixture + sign * known``."""
    shape = np.broadcast_shapes(mixture.shape, known.shape)
    lifted = lift(mixture, shape)
    return replace(lifted, base=lifted.base + sign * rank_of(known, len(shape)))


def scale(mixture: Mixture, known: np.ndarray) -> Mixture:
    """``mixture * known``."""
    shape = np.broadcast_shapes(mixture.shape, known.shape)
    factor = rank_of(known, len(shape))
    lifted, each = lift(mixture, shape), factor[..., None]
    return replace(
        lifted, base=lifted.base * factor, reward=lifted.reward * each, weight=lifted.weight * each
    )


def join(a: Mixture, b: Mixture) -> Mixture:
    """``a + b``, outcomes of both side by side."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = lift(a, shape), lift(b, shape)
    return replace(_side_by_side([a, b]), base=a.base + b.base, whole=False)


def choose(condition: np.ndarray, a: Mixture | np.ndarray, b: Mixture | np.ndarray) -> Mixture:
    """``a`` where the condition holds, else ``b``; at least one is a mixture."""
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    asked = rank_of(condition, len(shape))
    if isinstance(a, Mixture) and isinstance(b, Mixture):
        parts = [_masked(lift(a, shape), asked, True), _masked(lift(b, shape), ~asked, True)]
        base = np.where(asked, lift(a, shape).base, lift(b, shape).base)
        return replace(_side_by_side(parts), base=base, whole=a.whole and b.whole)
    if isinstance(a, Mixture):
        kept, other = _masked(lift(a, shape), asked), rank_of(np.asarray(b), len(shape))
        return replace(kept, base=_either(asked, kept.base, other))
    assert isinstance(b, Mixture)
    kept, other = _masked(lift(b, shape), ~asked), rank_of(np.asarray(a), len(shape))
    return replace(kept, base=_either(asked, other, kept.base))


def _either(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``np.where``, which stays small where both are the same number."""
    if a.size == b.size == 1 and a.flat[0] == b.flat[0]:
        return a
    return np.where(condition, a, b)


def _masked(mixture: Mixture, keep: np.ndarray, chances: bool = False) -> Mixture:
    """Outcomes count only where ``keep`` holds; their chances stay, unless they are to vanish."""
    if chances:
        return replace(mixture, chance=np.where(keep[..., None], mixture.chance, 0.0))
    each, nothing = keep[..., None], np.zeros((1,) * (keep.ndim + 1))
    return replace(
        mixture,
        reward=_either(each, mixture.reward, nothing),
        weight=_either(each, mixture.weight, nothing),
    )


def _side_by_side(parts: Sequence[Mixture]) -> Mixture:
    """Outcomes of mixtures of one shape, one after the other (bases are the caller's)."""
    counts = [part.outcomes for part in parts]
    terms = []
    for place in range(4):
        arrays = [part.terms[place] for part in parts]
        lead = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        pairs = zip(arrays, counts, strict=True)
        terms.append(np.concatenate([np.broadcast_to(a, (*lead, k)) for a, k in pairs], axis=-1))
    return Mixture(parts[0].shape, parts[0].base, *terms)


# ---------------------------------------------------------------- expectations


def expect(mixture: Mixture, chances: np.ndarray, reduced: int, weighs: bool) -> Mixture:
    """The sum over the last ``reduced`` axes, weighted by ``chances`` of the mixture's rank.

    With ``weighs`` the weights sum to 1, so a known number joins the reward of each outcome.
    """
    rank = len(mixture.shape) - reduced
    gone = mixture.shape[rank:]
    kept = mixture.shape[:rank]
    folded = mixture.base
    inner = mixture
    if mixture.whole:
        inner = replace(mixture, reward=mixture.reward + folded[..., None])
        base = np.zeros((1,) * rank)
    else:
        weighted = folded * chances
        full = np.broadcast_to(weighted, (*weighted.shape[:rank], *gone))
        base = full.sum(axis=tuple(range(rank, rank + reduced)))
    terms = [inner.chance * chances[..., None], inner.reward, inner.weight, inner.state]
    merged = [_merge(a, rank, (*gone, mixture.outcomes)) for a in terms]
    return Mixture(kept, base, *merged, whole=mixture.whole and weighs)


def _merge(array: np.ndarray, rank: int, tail: Shape) -> np.ndarray:
    """The axes behind ``rank`` as one; it stays of size 1 where nothing varies."""
    if all(size == 1 for size in array.shape[rank:]):
        return array.reshape(*array.shape[:rank], 1)
    full = np.broadcast_to(array, (*array.shape[:rank], *tail))
    return full.reshape(*array.shape[:rank], prod(tail))


# ---------------------------------------------------------------- movement


def lift(mixture: Mixture, shape: Shape) -> Mixture:
    """The mixture broadcast to a shape."""
    if mixture.shape == shape:
        return mixture
    rank = len(shape)
    terms = [rank_of(a, rank + 1) for a in mixture.terms]
    return Mixture(shape, rank_of(mixture.base, rank), *terms, whole=mixture.whole)


def rank_of(array: np.ndarray, rank: int) -> np.ndarray:
    """Leading axes of size 1 up to a rank."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def transpose(mixture: Mixture, perm: Sequence[int]) -> Mixture:
    """Axes in another order."""
    rank = len(mixture.shape)
    terms = [a.transpose([*perm, rank]) for a in mixture.terms]
    shape = tuple(mixture.shape[axis] for axis in perm)
    return Mixture(shape, mixture.base.transpose(perm), *terms, whole=mixture.whole)


def reshape(mixture: Mixture, shape: Shape) -> Mixture:
    """The same elements in another shape."""
    groups = _groups(mixture.shape, shape)
    base = _reshaped(mixture.base[..., None], mixture.shape, groups)[..., 0]
    terms = [_reshaped(a, mixture.shape, groups) for a in mixture.terms]
    return Mixture(shape, base, *terms, whole=mixture.whole)


def _groups(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of ``source`` (by place) and sizes of ``target`` with as many elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        axes: list[int] = []
        sizes: list[int] = []
        have = want = 1
        while True:
            if have <= want and i < len(source):
                have *= source[i]
                axes.append(i)
                i += 1
            elif j < len(target):
                want *= target[j]
                sizes.append(target[j])
                j += 1
            if have == want and (axes or sizes):
                break
        groups.append((axes, sizes))
    return groups


def _reshaped(
    array: np.ndarray, source: Shape, groups: Sequence[tuple[list[int], list[int]]]
) -> np.ndarray:
    """Reshape all but the last axis; a group that does not vary stays of size 1."""
    full, shape = list(array.shape), []
    for axes, sizes in groups:
        if all(array.shape[axis] == 1 for axis in axes):
            shape += [1] * len(sizes)
            continue
        for axis in axes:
            full[axis] = source[axis]
        shape += sizes
    return np.broadcast_to(array, full).reshape(*shape, array.shape[-1])


def take_part(mixture: Mixture, slices: tuple[slice, ...], shape: Shape) -> Mixture:
    """A slice of each axis."""

    def part(array: np.ndarray) -> np.ndarray:
        return array[
            tuple(
                slice(None) if size == 1 else cut
                for cut, size in zip(slices, array.shape, strict=False)
            )
        ]

    terms = [part(a) for a in mixture.terms]
    return Mixture(shape, part(mixture.base), *terms, whole=mixture.whole)


def concatenate(parts: Sequence[Mixture], axis: int) -> Mixture:
    """Mixtures side by side along an axis."""
    outcomes = max(part.outcomes for part in parts)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)

    def spread(array: np.ndarray, part: Mixture, last: bool, fill: float) -> np.ndarray:
        full = np.broadcast_to(array, (*part.shape, part.outcomes) if last else part.shape)
        if last and part.outcomes < outcomes:
            widths = [(0, 0)] * len(part.shape) + [(0, outcomes - part.outcomes)]
            full = np.pad(full, widths, constant_values=fill)
        return full

    terms = [
        np.concatenate([spread(part.terms[place], part, True, 0) for part in parts], axis=axis)
        for place in range(4)
    ]
    base = np.concatenate([spread(part.base, part, False, 0) for part in parts], axis=axis)
    return Mixture(tuple(shape), base, *terms, whole=all(part.whole for part in parts))


def gather(mixture: Mixture, indices: Sequence[np.ndarray], axes: Sequence[int]) -> Mixture:
    """``mixture`` at known indices along axes; the indices' axes come first."""
    rank = len(mixture.shape)
    joined = np.broadcast_shapes(*(i.shape for i in indices))
    rest = [axis for axis in range(rank) if axis not in axes]
    shape = (*joined, *(mixture.shape[axis] for axis in rest))
    unvarying = (1,) * len(joined)
    indices = [rank_of(index, len(joined)) for index in indices]

    def pick(array: np.ndarray) -> np.ndarray:
        moved = array.transpose([*axes, *rest, *range(rank, array.ndim)])
        varies = [moved.shape[place] != 1 for place in range(len(axes))]
        if not any(varies):
            tail = moved.shape[len(axes) :]
            return moved.reshape(*unvarying, *tail)
        if all(varies) and moved.flags.c_contiguous and prod(moved.shape[len(axes) :]) <= FEW:
            return picked(moved, indices, moved.ndim - len(axes))
        places = tuple(i if v else 0 for i, v in zip(indices, varies, strict=True))
        return moved[places]

    return Mixture(shape, pick(mixture.base), *map(pick, mixture.terms), whole=mixture.whole)


def aligned(array: np.ndarray, letters: str, order: str) -> np.ndarray:
    """An array with one axis a letter of ``order``, of size 1 where it has no such letter."""
    held = sorted(letters, key=order.index)
    array = array.transpose([letters.index(c) for c in held])
    return array[tuple(slice(None) if c in held else None for c in order)]


def spread(body: Mixture, held: Sequence[bool]) -> Mixture:
    """Axes of size 1 where a letter is not the body's."""
    items = tuple(slice(None) if h else None for h in held)
    shape: list[int] = []
    sizes = iter(body.shape)
    for h in held:
        shape.append(next(sizes) if h else 1)
    terms = [a[(*items, slice(None))] for a in body.terms]
    return Mixture(tuple(shape), body.base[items], *terms, whole=body.whole)

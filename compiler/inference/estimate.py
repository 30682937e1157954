"""The M-step: parameters that maximise the expected log density, in closed form.

Every occurrence of a parameter's element pools its statistics, so elements may be tied in any way.
Where the mean's update needs the current scale (means tied across scales, normal priors), mean and
scale are updated one after the other, which never lowers the objective
(Meng, Rubin: Maximum likelihood estimation via the ECM algorithm, Biometrika 80, 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .sources import Source
from .statements import ModelFault, Statement
from .statistics import Cells

CLOSED = (
    *("categorical", "multinomial", "bernoulli", "normal", "mvnormal", "poisson", "exponential"),
    "geometric",
)
"""Distributions whose parameters have a closed form."""

PRIORS = {
    ("categorical", "p"): "dirichlet", ("multinomial", "p"): "dirichlet",
    ("bernoulli", "p"): "beta", ("geometric", "p"): "beta",
    ("poisson", "rate"): "gamma", ("exponential", "rate"): "gamma", ("normal", "mu"): "normal",
}  # fmt: skip
"""The conjugate prior of a parameter."""


@dataclass(frozen=True)
class Prior:
    """A parameter's prior: its parameters spread over the flat elements they are about."""

    dist: str
    index: np.ndarray
    params: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Role:
    """One statement's part in the M-step: its operands, by the distribution's parameter names.

    ``values`` are the current operands, aligned to the cells (then the axes of one observation).
    """

    statement: Statement
    names: tuple[str, ...]
    sources: tuple[Source, ...]
    values: tuple[np.ndarray, ...]
    cells: Cells


@dataclass
class Step:
    """New parameters by path, from the old ones; ``fixed`` elements keep their values."""

    params: dict[str, np.ndarray]
    fixed: Mapping[str, np.ndarray]
    priors: Mapping[str, Sequence[Prior]]
    floor: float = 0.0
    done: dict[str, np.ndarray] = field(default_factory=dict)

    def run(self, roles: Sequence[Role]) -> dict[str, np.ndarray]:
        """All parameters after one M-step."""
        for path in self._paths(roles):
            users = [(r, place) for r in roles for place, s in enumerate(r.sources)
                     if s.path == path]  # fmt: skip
            role, place = users[0]
            kind = role.statement.dist, role.names[place]
            new = _UPDATES[kind](self, path, users)
            self._keep_fixed(path, new, simplex=_UPDATES[kind] is _shares)
        return {**self.params, **self.done}

    def _paths(self, roles: Sequence[Role]) -> list[str]:
        """Paths to update; means before scales, which are taken around the new means."""
        found = []
        for names in ({"p", "mu", "rate"}, {"sd", "cov"}):
            for role in roles:
                for name, source in zip(role.names, role.sources, strict=True):
                    if name in names and source.path is not None and not self._held(source.path):
                        found.append(source.path)
        return list(dict.fromkeys(found))

    def _held(self, path: str) -> bool:
        return path in self.fixed and bool(np.all(self.fixed[path]))

    def current(self, role: Role, place: int) -> np.ndarray:
        """An operand's values after the updates so far."""
        source = role.sources[place]
        if source.path in self.done and source.index is not None:
            return self.done[source.path].ravel()[source.index].reshape(role.values[place].shape)
        return role.values[place]

    def pooled(self, path: str, index: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        """Amounts summed over all occurrences of each element."""
        shape = np.broadcast_shapes(index.shape, amounts.shape)
        flat = np.broadcast_to(index, shape).ravel()
        size = self.params[path].size
        total = np.bincount(flat, np.broadcast_to(amounts, shape).ravel(), minlength=size)
        return total.reshape(self.params[path].shape)

    def _keep_fixed(self, path: str, new: np.ndarray, simplex: bool) -> None:
        fixed = self.fixed.get(path)
        old = self.params[path]
        if fixed is not None and np.any(fixed):
            if simplex:
                room = 1 - np.where(fixed, old, 0).sum(-1, keepdims=True)
                free = np.where(fixed, 0, new)
                total = free.sum(-1, keepdims=True)
                share = np.divide(free, total, out=np.zeros_like(free), where=total > 0)
                new = np.where(fixed, old, np.where(total > 0, share * room, old))
            else:
                new = np.where(fixed, old, new)
        self.done[path] = new.astype(old.dtype)


def _index(role: Role, place: int) -> np.ndarray:
    source = role.sources[place]
    assert source.index is not None
    return source.index.reshape(role.values[place].shape)


# ---------------------------------------------------------------- counts


def _shares(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    """Rows of expected counts, scaled to 1; a row that never occurs stays as it is."""
    counts = np.zeros(step.params[path].shape)
    for role, place in users:
        # A vector of counts is a sum of values, a single outcome a count of its own.
        own = role.cells.count if role.cells.first is None else role.cells.first
        counts += step.pooled(path, _index(role, place), own)
    for prior in step.priors.get(path, ()):
        extra = np.zeros(counts.size)
        np.add.at(extra, prior.index.ravel(), (prior.params[0] - 1).ravel())
        counts = np.maximum(counts + extra.reshape(counts.shape), 0)
    total = counts.sum(axis=-1, keepdims=True)
    old = step.params[path]
    return np.divide(counts, total, out=np.array(old, np.float64), where=total > 0)


def _ratio(above: np.ndarray, below: np.ndarray, old: np.ndarray) -> np.ndarray:
    """A quotient; where nothing occurred, the old value."""
    return np.divide(above, below, out=np.array(old, np.float64), where=below > 0)


def _sums(
    step: Step, path: str, users: Sequence[tuple[Role, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences and sums of values of each element."""
    count, total = np.zeros(step.params[path].shape), np.zeros(step.params[path].shape)
    for role, place in users:
        index, cells = _index(role, place), role.cells
        assert cells.first is not None
        count += step.pooled(path, index, cells.count)
        total += step.pooled(path, index, cells.first)
    return count, total


def _pseudo(step: Step, path: str, place: int, shift: float) -> np.ndarray:
    """What priors add to each element: their parameter less a shift."""
    extra = np.zeros(step.params[path].size)
    for prior in step.priors.get(path, ()):
        np.add.at(extra, prior.index.ravel(), (prior.params[place] - shift).ravel())
    return extra.reshape(step.params[path].shape)


def _bernoulli(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    count, ones = _sums(step, path, users)
    ones = ones + _pseudo(step, path, 0, 1)
    zeros = count - (ones - _pseudo(step, path, 0, 1)) + _pseudo(step, path, 1, 1)
    return _ratio(ones, ones + zeros, step.params[path])


def _geometric(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    count, failures = _sums(step, path, users)
    wins = count + _pseudo(step, path, 0, 1)
    return _ratio(wins, wins + failures + _pseudo(step, path, 1, 1), step.params[path])


def _poisson(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    count, total = _sums(step, path, users)
    above = total + _pseudo(step, path, 0, 1)
    return _positive(_ratio(above, count + _pseudo(step, path, 1, 0), step.params[path]), step)


def _exponential(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    count, total = _sums(step, path, users)
    above = count + _pseudo(step, path, 0, 1)
    return _positive(_ratio(above, total + _pseudo(step, path, 1, 0), step.params[path]), step)


def _positive(values: np.ndarray, step: Step) -> np.ndarray:
    return np.maximum(values, max(step.floor, np.finfo(np.float64).tiny))


# ---------------------------------------------------------------- gaussians


def _mean(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    """Precision-weighted means; precisions cancel where an element has one scale only."""
    above, below = (np.zeros(step.params[path].shape) for _ in range(2))
    weigh = bool(step.priors.get(path)) or not all(_one_scale(r, place) for r, place in users)
    for role, place in users:
        index, cells = _index(role, place), role.cells
        assert cells.first is not None and cells.centre is not None
        vector = role.statement.dist == "mvnormal"
        scale = np.ones(())
        if weigh:
            if vector:
                raise ModelFault("E612", f"`{path}` is tied across covariances or has a prior",
                                 role.statement.span, hint=f"keep it: `--fix {path}`")  # fmt: skip
            scale = 1 / step.current(role, role.names.index("sd")) ** 2
        count = cells.count[..., None] if vector else cells.count
        # What the centre is off the element's own current value is 0: they are the same.
        above += step.pooled(path, index, cells.first * scale)
        below += step.pooled(path, index, np.broadcast_to(count, cells.first.shape) * scale)
    old = step.params[path].astype(np.float64)
    for prior in step.priors.get(path, ()):
        mean, sd = prior.params
        flat = np.zeros((2, old.size))
        np.add.at(flat[0], prior.index.ravel(), ((mean - old.ravel()[prior.index]) / sd**2).ravel())
        np.add.at(flat[1], prior.index.ravel(), (1 / sd**2).ravel())
        above, below = above + flat[0].reshape(old.shape), below + flat[1].reshape(old.shape)
    return old + np.divide(above, below, out=np.zeros_like(old), where=below > 0)


def _one_scale(role: Role, place: int) -> bool:
    """Whether every element of the mean goes with one element of the scale."""
    other = 1 - place
    mean, scale = role.sources[place].index, role.sources[other].index
    assert mean is not None
    if scale is None:
        if role.statement.dist != "mvnormal":
            return role.sources[other].path is None and role.values[other].size == 1
        # A known covariance: one for each cell, or one for all.
        rows = _index(role, place)[..., 0].ravel()
        return role.values[other].ndim == 2 or len(set(rows.tolist())) == rows.size
    if role.statement.dist == "mvnormal":
        first = np.broadcast_to(role.values[other][..., 0, 0], role.values[place].shape[:-1]).shape
        names = np.broadcast_to(_index(role, other)[..., 0, 0], first).ravel()
        rows = np.broadcast_to(_index(role, place)[..., 0], first).ravel()
    else:
        shape = role.cells.first.shape if role.cells.first is not None else mean.shape
        names = np.broadcast_to(_index(role, other), shape).ravel()
        rows = np.broadcast_to(_index(role, place), shape).ravel()
    pairs = len({*zip(rows.tolist(), names.tolist(), strict=True)})
    return pairs == len(set(rows.tolist()))


def _deviation(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    """Root mean squares around the new means, not below the floor."""
    count, total = (np.zeros(step.params[path].shape) for _ in range(2))
    for role, place in users:
        index, cells = _index(role, place), role.cells
        assert cells.first is not None and cells.second is not None and cells.centre is not None
        gap = step.current(role, role.names.index("mu")) - cells.centre
        square = cells.second - 2 * gap * cells.first + cells.count * gap**2
        total += step.pooled(path, index, np.maximum(square, 0))
        count += step.pooled(path, index, np.broadcast_to(cells.count, square.shape))
    new = np.sqrt(_ratio(total, count, step.params[path] ** 2))
    new = np.maximum(new, step.floor)
    if np.any(new <= 0):
        _collapsed(path, new, users[0][0].statement)
    return new


def _covariance(step: Step, path: str, users: Sequence[tuple[Role, int]]) -> np.ndarray:
    """Weighted covariances around the new means, with no eigenvalue below the floor."""
    count, total = (np.zeros(step.params[path].shape) for _ in range(2))
    for role, place in users:
        index, cells = _index(role, place), role.cells
        assert cells.first is not None and cells.second is not None and cells.centre is not None
        gap = step.current(role, role.names.index("mu")) - cells.centre
        cross = gap[..., :, None] * cells.first[..., None, :]
        square = cells.second - cross - np.swapaxes(cross, -1, -2)
        square = square + cells.count[..., None, None] * gap[..., :, None] * gap[..., None, :]
        total += step.pooled(path, index, square)
        weights = np.broadcast_to(cells.count[..., None, None], square.shape)
        count += step.pooled(path, index, weights)
    new = _ratio(total, count, step.params[path])
    new = (new + np.swapaxes(new, -1, -2)) / 2
    least = np.linalg.eigvalsh(new)[..., 0]
    if step.floor and np.any(least < step.floor**2):
        values, vectors = np.linalg.eigh(new)
        values = np.maximum(values, step.floor**2)
        new = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    elif np.any(least <= 0):
        _collapsed(path, least, users[0][0].statement)
    return new


def _collapsed(path: str, values: np.ndarray, statement: Statement) -> None:
    spot = np.unravel_index(int(np.argmin(values)), values.shape)
    raise ModelFault(
        "E612", f"`{path}` collapsed onto too few observations", statement.span,
        f"at {[int(k) for k in spot]}",
        "give spreads a least value, `--floor 1e-3`, or start elsewhere with `--seed`",
    )  # fmt: skip


_UPDATES = {
    ("categorical", "p"): _shares,
    ("multinomial", "p"): _shares,
    ("bernoulli", "p"): _bernoulli,
    ("geometric", "p"): _geometric,
    ("poisson", "rate"): _poisson,
    ("exponential", "rate"): _exponential,
    ("normal", "mu"): _mean,
    ("mvnormal", "mu"): _mean,
    ("normal", "sd"): _deviation,
    ("mvnormal", "cov"): _covariance,
}

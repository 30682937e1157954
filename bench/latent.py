"""Latent-variable models against hmmlearn and scikit-learn: same data, same parameters, in turns.

Data are drawn from the model itself. Both sides compute in float64; what they answer is compared
before anything is timed.
"""

# The packages are extras, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..program import Program
from ..runtime import machine
from ..runtime.faults import RuntimeFault
from .kind import Request

PEERS = {"hmmlearn": "pip install hmmlearn", "sklearn": "pip install scikit-learn"}
"""Peers, and how to get one that is missing."""

COUNT = 200_000
"""Steps or points, unless the size is given."""

SIZE = {"hmmlearn": "T", "sklearn": "N"}

PARAMETERS = {"hmmlearn": {"pi", "A", "mu", "sigma"}, "sklearn": {"alpha", "mu", "cov"}}
"""What the model of each peer has, ours under the same names."""

Call = Callable[[], Any]


@dataclass(frozen=True)
class LatentRow:
    """One question side by side: median milliseconds, how many times faster ours is, the check.

    ``difference`` is the largest of ``|a - b| / max|b|`` over the answers; ``setting`` is the
    peer's: hmmlearn's ``log`` space, its default, or ``scaling``, which is no longer exact where
    numbers underflow.
    """

    model: str
    question: str
    peer: str
    peer_version: str
    setting: str
    states: int
    dims: int
    count: int
    threads: int
    ms: float
    peer_ms: float
    ratio: float
    difference: float
    agrees: bool

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    as_record = as_json

    def __str__(self) -> str:
        """A line for people."""
        return (
            f"{self.model}, {self.question}, {self.threads} threads: {self.ms:.1f} ms,"
            f" {self.peer} {self.setting} {self.peer_ms:.1f} ms, {self.ratio:.1f} times faster,"
            f" difference {self.difference:.1e}"
        )


@dataclass(frozen=True)
class _Question:
    """What both sides are asked; answers are tuples of arrays."""

    name: str
    ours: Call
    theirs: Mapping[str, Call]
    tolerance: float


def is_latent(program: Program) -> bool:
    """Whether a peer has the model."""
    return set(program.parameters()) in PARAMETERS.values()


def measure(program: Program, request: Request) -> Iterator[list[LatentRow]]:
    """Rows of a model, a row a question; raises :class:`RuntimeFault` as ``compare_latent``."""
    if request.threads != (machine.cores(),):
        message = f"these models are measured with all {machine.cores()} processors"
        raise RuntimeFault("E408", message, "leave out `--threads`")
    found = set(program.parameters())
    fitting = tuple(peer for peer, wanted in PARAMETERS.items() if wanted == found)
    for peer in fitting if request.peers is None else request.peers:
        yield compare_latent(program, peer, request.sizes.get(SIZE[peer], COUNT), request.rounds)


def compare_latent(program: Program, peer: str, count: int, rounds: int) -> list[LatentRow]:
    """Measure every question; a row a question.

    Raises :class:`RuntimeFault` for a peer that is not installed or does not have the model.
    """
    shapes = {path: kind.shape for path, kind in program.parameters().items()}
    wanted = PARAMETERS[peer]
    if set(shapes) != wanted:
        message = f"{peer} is measured on a model with the parameters {', '.join(sorted(wanted))}"
        raise RuntimeFault("E408", message, "measure `hmm` against hmmlearn, `gmm` against sklearn")
    size: Any = shapes["mu"]
    make: Any = _chain if peer == "hmmlearn" else _mixture
    try:
        questions = make(program, *size, count)
    except ImportError as missing:
        raise RuntimeFault("E804", f"`{peer}` is not installed", PEERS[peer]) from missing
    name = program.variant or program.name
    return [
        _row(name, peer, size, count, question, setting, rounds)
        for question in questions for setting in question.theirs
    ]  # fmt: skip


def _row(
    name: str, peer: str, size: tuple[int, int], count: int, question: _Question, setting: str,
    rounds: int,
) -> LatentRow:  # fmt: skip
    theirs = question.theirs[setting]
    gap = max(_gap(a, b) for a, b in zip(question.ours(), theirs(), strict=True))
    pairs = [(_seconds(question.ours), _seconds(theirs)) for _ in range(rounds)]
    here, there = (median(column) * 1e3 for column in zip(*pairs, strict=True))
    version = metadata.version("scikit-learn" if peer == "sklearn" else peer)
    return LatentRow(
        name, question.name, peer, version, setting, *size, count, machine.cores(), here, there,
        median(b / a for a, b in pairs), gap, gap <= question.tolerance,
    )  # fmt: skip


def _gap(a: Any, b: Any) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def _seconds(call: Call) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


# ---------------------------------------------------------------- models


def _chain(program: Program, states: int, dims: int, count: int) -> list[_Question]:
    from hmmlearn.hmm import GaussianHMM

    rng = np.random.default_rng(0)
    change = rng.dirichlet(np.full(states, 0.5), states) / 2 + np.eye(states) / 2
    w = {"pi": np.full(states, 1 / states), "A": change, "mu": 2 * rng.normal(size=(states, dims)),
         "sigma": rng.uniform(0.5, 1.5, (states, dims))}  # fmt: skip
    y = program.simulate({"T": count}, w, seed=1)["y"]
    data = {"y": y}

    def peer(kind: str) -> Any:
        model = GaussianHMM(states, "diag", min_covar=0, covars_prior=0, covars_weight=0, n_iter=1,
                            tol=-np.inf, init_params="", implementation=kind)  # fmt: skip
        model.startprob_, model.transmat_, model.means_ = w["pi"], w["A"], w["mu"]
        model.n_features = dims
        model.covars_ = w["sigma"] ** 2
        return model

    def theirs(call: Callable[[Any], Any]) -> dict[str, Call]:
        return {kind: lambda kind=kind: call(peer(kind)) for kind in ("log", "scaling")}

    def fitted(model: Any) -> tuple[Any, ...]:
        model.fit(y)
        spread = np.sqrt(np.array([np.diag(c) for c in model.covars_]))
        return model.startprob_, model.transmat_, model.means_, spread

    def learn() -> tuple[Any, ...]:
        found = program.fit(data, w, iterations=1, tol=-np.inf, engine="cpu").params
        return tuple(found[path] for path in ("pi", "A", "mu", "sigma"))

    def ask(question: str) -> Call:
        return lambda: tuple(program.query(data, [question], w, engine="cpu").values())

    return [
        _Question("score", ask("loglik"), theirs(lambda m: (m.score(y),)), 1e-10),
        _Question("posteriors", ask("marginals"), theirs(lambda m: (m.predict_proba(y),)), 1e-8),
        _Question("viterbi", ask("map"), {"log": lambda: (peer("log").decode(y)[1],)}, 0.0),
        _Question("em", learn, theirs(fitted), 1e-7),
    ]


def _mixture(program: Program, states: int, dims: int, count: int) -> list[_Question]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    root = rng.normal(size=(states, dims, dims)) / np.sqrt(dims)
    w = {"alpha": rng.dirichlet(np.full(states, 5.0)), "mu": 2 * rng.normal(size=(states, dims)),
         "cov": root @ root.transpose(0, 2, 1) + 0.2 * np.eye(dims)}  # fmt: skip
    z = rng.choice(states, count, p=w["alpha"])
    noise = np.linalg.cholesky(w["cov"])[z] @ rng.normal(size=(count, dims, 1))
    x = w["mu"][z] + noise[..., 0]
    data, start = {"x": x}, {**w, "mu": w["mu"] + 0.3 * rng.normal(size=(states, dims))}

    def learn() -> tuple[Any, ...]:
        found = program.fit(data, start, iterations=3, tol=-np.inf, engine="cpu").params
        return tuple(found[path] for path in ("alpha", "mu", "cov"))

    def theirs() -> tuple[Any, ...]:
        # Rounds alone: its own start, by k-means or at random, would be measured with them.
        model = GaussianMixture(states, reg_covar=0.0)
        model.weights_, model.means_, model.covariances_ = (
            start[k] for k in ("alpha", "mu", "cov")
        )
        chol = np.linalg.cholesky(start["cov"])
        model.precisions_cholesky_ = np.linalg.inv(chol).transpose(0, 2, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for _ in range(3):
                _, responsibilities = model._e_step(x)
                model._m_step(x, responsibilities)
        return model.weights_, model.means_, model.covariances_

    return [_Question("em, 3 rounds", learn, {"": theirs}, 1e-7)]

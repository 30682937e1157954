"""scikit-learn estimators around probabilistic specs: mixtures, hidden Markov models, naive Bayes.

They need the extra ``sklearn``. Each loads a spec of the zoo at the size of the data, learns its
parameters by :meth:`Program.fit` and answers by :meth:`Program.query`; ``params_`` are the spec's
weights by path, ``program_`` is the program.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np

from .program import Program, load
from .runtime.faults import RuntimeFault

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, DensityMixin
    from sklearn.cluster import KMeans
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    message = "estimators need the extra `sklearn`"
    raise RuntimeFault("E804", message, "pip install 'tilth[sklearn]'") from missing

__all__ = [
    "BernoulliNB", "CategoricalHMM", "GaussianHMM", "GaussianMixture", "GaussianNB",
    "MultinomialNB",
]  # fmt: skip

SCALES = {"full": "cov", "tied": "shared", "diag": "sd", "spherical": "radius"}
"""What the mixture's spec calls its scale, by the type of the covariances."""


@lru_cache(maxsize=64)
def _loaded(name: str, options: tuple[tuple[str, Any], ...]) -> Program:
    return load(name, set=dict(options))


def _program(name: str, **options: Any) -> Program:
    return _loaded(name, tuple(sorted(options.items())))


def _valid(estimator: Any, X: Any, *y: Any, **how: Any) -> Any:
    """What scikit-learn makes of ``X`` (and ``y``), in float64."""
    return validate_data(estimator, X, *y, dtype=np.float64, **how)


def _clusters(count: int, X: np.ndarray, random_state: Any) -> Any:
    """The k-means clusters that EM starts from."""
    settings: dict[str, Any] = {"n_init": 1, "random_state": check_random_state(random_state)}
    return KMeans(count, **settings).fit(X)


class _Learnt(BaseEstimator):
    """What all of them share: how they learn, and how they ask."""

    def _learn(self, program: Program, data: Any, start: Any, rounds: int | None = None) -> None:
        """Parameters by EM; the attributes say how it went."""
        own: Any = self
        found = program.fit(
            data, start, iterations=own.max_iter if rounds is None else rounds, tol=self._tol(data),
            floor=own.floor, engine=own.engine,
        )  # fmt: skip
        self.program_ = program
        self.params_ = found.params
        self.history_ = np.array(found.history)
        self.converged_ = found.converged
        self.n_iter_ = max(1, len(found.history) - 1)

    def _tol(self, data: Any) -> float:
        own: Any = self
        return own.tol

    def _ask(self, data: Any, *questions: str) -> Any:
        own: Any = self
        return self.program_.query(data, questions, self.params_, engine=own.engine)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return _valid(self, X, reset=False)


# ---------------------------------------------------------------- mixtures


class GaussianMixture(DensityMixin, _Learnt):
    """A mixture of Gaussians, learnt by EM (the spec ``gmm``).

    Parameters
    ----------
    n_components
        How many Gaussians.
    covariance_type
        ``full``, ``tied``, ``diag`` or ``spherical``.
    tol, max_iter
        The least gain of a round in nats an observation, and how many rounds at most.
    floor
        The least standard deviation (and root of a covariance's eigenvalue).
    random_state
        Of the k-means clusters that EM starts from.
    engine
        As of :meth:`Program.fit`.
    """

    def __init__(self, n_components=1, *, covariance_type="full", tol=1e-3, max_iter=100,
                 floor=1e-3, random_state=None, engine="reference"):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.floor = floor
        self.random_state = random_state
        self.engine = engine

    def fit(self, X, y=None):
        """Learn from ``X [n, features]``; ``y`` is not used."""
        X = _valid(self, X, ensure_min_samples=2)
        if len(X) < self.n_components:
            raise ValueError(
                f"n_samples={len(X)} should be at least n_components={self.n_components}"
            )
        if self.covariance_type not in SCALES:
            raise ValueError(f"covariance_type is one of {', '.join(SCALES)}")
        name = "gmm" if self.covariance_type == "full" else f"gmm_{self.covariance_type}"
        program = _program(name, K=self.n_components, D=X.shape[1])
        labels = _clusters(self.n_components, X, self.random_state).labels_
        # Known clusters give the parameters of the first round.
        start = program.fit(
            {"x": X, "z": labels}, _spread(program, X, SCALES[self.covariance_type]), iterations=1,
            tol=-np.inf, floor=self.floor,
        ).params  # fmt: skip
        self._learn(program, {"x": X}, start)
        self.weights_, self.means_ = self.params_["alpha"], self.params_["mu"]
        scale = self.params_[SCALES[self.covariance_type]]
        self.covariances_ = scale if self.covariance_type in ("full", "tied") else scale**2
        self.lower_bound_ = self.history_[-1] / len(X)
        return self

    def _tol(self, data):
        return self.tol * len(data["x"])

    def predict(self, X):
        """The component that each observation most likely came from."""
        return self._ask({"x": self._checked(X)}, "map(z)")["map(z)"]

    def predict_proba(self, X):
        """The posterior probability of each component, ``[n, n_components]``."""
        return self._ask({"x": self._checked(X)}, "marginals(z)")["marginals(z)"]

    def score_samples(self, X):
        """The log-likelihood of each observation, in nats."""
        return self._ask({"x": self._checked(X)}, "loglik(n)")["loglik(n)"]

    def score(self, X, y=None):
        """The mean log-likelihood of an observation, in nats."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples=1, seed=0):
        """New observations ``[n_samples, features]`` and the components they came from."""
        check_is_fitted(self)
        found = self.program_.simulate({"N": n_samples}, self.params_, seed)
        return found["x"], found["z"]


def _spread(program: Program, X: np.ndarray, scale: str) -> dict[str, np.ndarray]:
    """Parameters to begin with: scales of all data, so that an empty component has one."""
    start = dict(program.initial_weights(0))
    shape, sd = start[scale].shape, np.maximum(X.std(0), 1e-6)
    if scale in ("cov", "shared"):
        start[scale] = np.broadcast_to(np.diag(sd**2), shape).copy()
    else:
        start[scale] = np.broadcast_to(sd if len(shape) == 2 else sd.mean(), shape).copy()
    return start


# ---------------------------------------------------------------- hidden Markov models


class _HiddenMarkov(_Learnt):
    """Sequences one after the other in ``X``; ``lengths`` says where each ends."""

    _observed: str
    """The spec's name of what is observed."""

    def predict(self, X, lengths=None):
        """The most probable joint path of states."""
        return self._joined(X, lengths, "map(z)")

    def predict_proba(self, X, lengths=None):
        """The posterior of the state at each step, ``[n, n_components]``."""
        return self._joined(X, lengths, "marginals(z)")

    def score(self, X, y=None, lengths=None):
        """The log-likelihood of all sequences, in nats."""
        found = self._ask(self._rows(self._sequences(X), lengths), "loglik")
        return float(sum(row["loglik"] for row in found))

    def score_samples(self, X, lengths=None):
        """The log-likelihood and the posteriors, as in hmmlearn."""
        return self.score(X, lengths=lengths), self.predict_proba(X, lengths)

    def sample(self, n_samples=1, seed=0):
        """A sequence that the model draws, and its states."""
        check_is_fitted(self)
        found = self.program_.simulate({"T": n_samples}, self.params_, seed)
        return found[self._observed], found["z"]

    def _joined(self, X, lengths, question):
        rows = self._rows(self._sequences(X), lengths)
        return np.concatenate([row[question] for row in self._ask(rows, question)])

    def _sequences(self, X):
        return self._checked(X)

    def _rows(self, X, lengths):
        ends = [len(X)] if lengths is None else list(np.cumsum(lengths))
        if ends[-1] != len(X):
            raise ValueError(f"lengths sum to {ends[-1]}, and X has {len(X)} rows")
        return [{self._observed: X[a:b]} for a, b in zip([0, *ends[:-1]], ends, strict=True)]


class GaussianHMM(_HiddenMarkov):
    """A hidden Markov model with Gaussian emissions, learnt by EM (the spec ``hmm``).

    Parameters
    ----------
    n_components
        How many states.
    covariance_type
        ``diag``, ``full``, ``tied`` or ``spherical``.
    tol, max_iter
        The least gain of a round in nats, and how many rounds at most.
    floor
        The least standard deviation (and root of a covariance's eigenvalue).
    random_state
        Of the k-means clusters that EM starts from.
    engine
        As of :meth:`Program.fit`.
    """

    _observed = "y"

    def __init__(self, n_components=1, *, covariance_type="diag", tol=1e-2, max_iter=50,
                 floor=1e-3, random_state=None, engine="reference"):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.floor = floor
        self.random_state = random_state
        self.engine = engine

    def fit(self, X, y=None, lengths=None):
        """Learn from ``X [n, features]``; ``y`` is not used."""
        X = _valid(self, X, ensure_min_samples=2)
        if self.covariance_type not in SCALES:
            raise ValueError(f"covariance_type is one of {', '.join(SCALES)}")
        name = "hmm" if self.covariance_type == "diag" else f"hmm_{self.covariance_type}"
        program = _program(name, K=self.n_components, D=X.shape[1])
        scale = "sigma" if self.covariance_type == "diag" else SCALES[self.covariance_type]
        count = min(self.n_components, len(X))
        means = _clusters(count, X, self.random_state).cluster_centers_
        start = _spread(program, X, scale)
        start["mu"] = np.resize(means, start["mu"].shape)
        for path in ("pi", "A"):
            start[path] = np.full_like(start[path], 1 / self.n_components)
        self._learn(program, self._rows(X, lengths), start)
        self.startprob_, self.transmat_ = self.params_["pi"], self.params_["A"]
        self.means_ = self.params_["mu"]
        found = self.params_[scale]
        self.covars_ = found if self.covariance_type in ("full", "tied") else found**2
        return self


class CategoricalHMM(_HiddenMarkov):
    """A hidden Markov model that emits symbols 0, 1, ..., learnt by EM (``hmm_categorical``).

    Parameters
    ----------
    n_components
        How many states.
    tol, max_iter
        The least gain of a round in nats, and how many rounds at most.
    n_init
        How many times EM starts anew; the best is kept.
    random_state
        Of the parameters that EM starts from.
    engine
        As of :meth:`Program.fit`.
    """

    _observed = "o"
    floor = 0.0

    def __init__(self, n_components=1, *, tol=1e-2, max_iter=100, n_init=1, random_state=None,
                 engine="reference"):  # fmt: skip
        self.n_components = n_components
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.engine = engine

    def fit(self, X, y=None, lengths=None):
        """Learn from symbols ``X [n, 1]``; ``y`` is not used."""
        X = _symbols(_valid(self, X))
        program = _program("hmm_categorical", K=self.n_components, M=max(2, int(X.max()) + 1))
        random = check_random_state(self.random_state)
        shapes = {path: array.shape for path, array in program.initial_weights(0).items()}
        best = None
        for _ in range(self.n_init):
            start = {p: random.dirichlet(np.full(s[-1], 10.0), s[:-1]) for p, s in shapes.items()}
            self._learn(program, self._rows(X, lengths), start)
            if best is None or self.history_[-1] > best["history_"][-1]:
                best = dict(vars(self))
        vars(self).update(best or {})
        self.startprob_, self.transmat_ = self.params_["pi"], self.params_["A"]
        self.emissionprob_ = self.params_["B"]
        return self

    def _sequences(self, X):
        X = _symbols(self._checked(X))
        if X.max() >= self.emissionprob_.shape[1]:
            raise ValueError(f"a symbol is {X.max()}, and fit saw none above"
                             f" {self.emissionprob_.shape[1] - 1}")  # fmt: skip
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        # The checks give several columns of real numbers; a sequence of symbols is one of whole
        # numbers.
        tags._skip_test = True
        return tags


def _symbols(X: np.ndarray) -> np.ndarray:
    if X.shape[1] != 1 or np.any(X < 0) or np.any(np.floor(X) != X):
        raise ValueError("symbols are whole numbers from 0 in one column")
    return X[:, 0].astype(np.int32)


# ---------------------------------------------------------------- naive Bayes


class _NaiveBayes(ClassifierMixin, _Learnt, ABC):
    """Features that are independent given the class; ``fit`` is EM with known classes."""

    tol, max_iter, floor = 0.0, 1, 0.0

    @abstractmethod
    def _spec(self, classes: int, features: int) -> Program:
        """The spec at the sizes of the data."""

    @abstractmethod
    def _name(self) -> None:
        """What was learnt, by the names that scikit-learn has for it."""

    def fit(self, X, y):
        """Learn from ``X [n, features]`` and the class of each row."""
        X, y = _valid(self, X, y)
        check_classification_targets(y)
        X = self._features(X)
        self.classes_, c = np.unique(y, return_inverse=True)
        program = self._spec(len(self.classes_), X.shape[1])
        self._learn(program, {"x": X, "c": c}, None, 1)
        self.class_prior_ = self.params_["prior"]
        self._name()
        return self

    def predict(self, X):
        """The most probable class of each row."""
        shares = self.predict_proba(X)
        return self.classes_[np.argmax(shares, axis=1)]

    def predict_proba(self, X):
        """The posterior probability of each class, ``[n, classes]``."""
        X = self._features(self._checked(X))
        return self._ask({"x": X}, "marginals(c)")["marginals(c)"]

    def predict_log_proba(self, X):
        """The logarithm of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def score_samples(self, X):
        """The log-likelihood of each row, its class summed out, in nats."""
        return self._ask({"x": self._features(self._checked(X))}, "loglik(n)")["loglik(n)"]

    def _features(self, X):
        return X


class GaussianNB(_NaiveBayes):
    """Naive Bayes with Gaussian features (the spec ``naive_bayes``).

    ``var_smoothing`` of the largest variance is added to all.
    """

    def __init__(self, *, var_smoothing=1e-9, engine="reference"):
        self.var_smoothing = var_smoothing
        self.engine = engine

    def fit(self, X, y):
        """Learn from ``X [n, features]`` and the class of each row."""
        X, y = _valid(self, X, y)
        self.epsilon_ = self.var_smoothing * np.var(X, axis=0).max()
        return super().fit(X, y)

    @property
    def floor(self):
        """A spread that is nothing is met before smoothing."""
        return 1e-150

    def _spec(self, classes, features):
        return _program("naive_bayes", C=classes, D=features)

    def _name(self):
        self.params_["sigma"] = np.sqrt(self.params_["sigma"] ** 2 + self.epsilon_)
        self.theta_, self.var_ = self.params_["mu"], self.params_["sigma"] ** 2


class _OfWords(_NaiveBayes):
    _path = "p"

    def __init__(self, *, alpha=1.0, engine="reference"):
        self.alpha = alpha
        self.engine = engine

    def _name(self):
        self.feature_log_prob_ = np.log(self.params_[self._path])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Counts of words are no blobs, which is what the checks' classes are.
        tags.classifier_tags.poor_score = True
        return tags


class BernoulliNB(_OfWords):
    """Naive Bayes with features that are there or not (``naive_bayes_bernoulli``).

    A feature counts as there above ``binarize``; ``alpha`` is added to both counts.
    """

    def __init__(self, *, alpha=1.0, binarize=0.0, engine="reference"):
        super().__init__(alpha=alpha, engine=engine)
        self.binarize = binarize

    def _spec(self, classes, features):
        return _program("naive_bayes_bernoulli", C=classes, D=features, alpha=self.alpha)

    def _features(self, X):
        return (self.binarize < X).astype(np.float64)


class MultinomialNB(_OfWords):
    """Naive Bayes of counts (``naive_bayes_multinomial``); ``alpha`` is added to every count."""

    _path = "theta"

    def _spec(self, classes, features):
        return _program("naive_bayes_multinomial", C=classes, D=features, alpha=self.alpha)

    def _features(self, X):
        if np.any(X < 0):
            raise ValueError("Negative values in data passed to MultinomialNB: it takes counts")
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

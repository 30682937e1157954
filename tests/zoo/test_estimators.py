"""scikit-learn estimators: scikit-learn's own checks, its answers, and recovered parameters."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import mixture, naive_bayes
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from tilth import estimators as e

IN_ORDER = "the rows of a sequence are in order, and each depends on the others"
NOT_APPLICABLE = {
    "GaussianHMM": {
        "check_methods_sample_order_invariance": IN_ORDER,
        "check_methods_subset_invariance": IN_ORDER,
    }
}


@pytest.mark.parametrize(
    "estimator",
    [
        e.GaussianNB(),
        pytest.param(e.GaussianMixture(), marks=pytest.mark.slow),
        pytest.param(e.BernoulliNB(), marks=pytest.mark.slow),
        pytest.param(e.MultinomialNB(), marks=pytest.mark.slow),
        pytest.param(e.GaussianHMM(max_iter=2), marks=pytest.mark.slow),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator):
    spared = NOT_APPLICABLE.get(type(estimator).__name__, {})
    rows = check_estimator(estimator, expected_failed_checks=spared, on_skip=None, on_fail=None)
    failed = {row["check_name"]: row["exception"] for row in rows if row["status"] == "failed"}
    assert not failed
    assert sum(row["status"] == "passed" for row in rows) > 35
    assert {row["check_name"] for row in rows if row["status"] == "xfail"} == set(spared)


def blobs(seed=0, count=120):
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 3, count)
    means = np.array([[0.0, 0], [4, 1], [-2, 5]])
    return means[z] + rng.normal(size=(count, 2)) * [1, 0.5], z


@pytest.mark.parametrize("kind", e.SCALES)
def test_a_mixture_scores_as_scikit_learns_does(kind):
    X, _ = blobs()
    ours = e.GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    theirs = mixture.GaussianMixture(3, covariance_type=kind).fit(X)
    theirs.weights_, theirs.means_ = ours.weights_, ours.means_
    square = ours.covariances_
    if kind in ("full", "tied"):
        root = np.linalg.inv(np.linalg.cholesky(square))
        theirs.precisions_cholesky_ = np.swapaxes(root, -1, -2)
    else:
        theirs.precisions_cholesky_ = 1 / np.sqrt(square)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), atol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.converged_ and ours.score(X) == pytest.approx(ours.lower_bound_)
    drawn, parts = ours.sample(500, seed=1)
    assert drawn.shape == (500, 2) and set(parts) == {0, 1, 2}


@pytest.mark.parametrize("name", ["GaussianNB", "BernoulliNB", "MultinomialNB"])
def test_naive_bayes_is_that_of_scikit_learn(name):
    X, y = blobs(1)
    X = np.round(np.abs(X) * 2) if name == "MultinomialNB" else X
    labels = np.array(["a", "b", "c"])[y]
    ours = getattr(e, name)().fit(X[:80], labels[:80])
    theirs = getattr(naive_bayes, name)().fit(X[:80], labels[:80])
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X[80:]), theirs.predict(X[80:]))
    assert ours.score(X[80:], labels[80:]) == theirs.score(X[80:], labels[80:])
    assert np.all(np.isfinite(ours.score_samples(X)))


def walk(rng, A, count):
    states = [0]
    for _ in range(count - 1):
        states.append(rng.choice(len(A), p=A[states[-1]]))
    return np.array(states)


def test_hidden_markov_models_find_their_states():
    rng, A = np.random.default_rng(0), np.array([[0.95, 0.05], [0.1, 0.9]])
    z = walk(rng, A, 300)
    X = np.array([[-2.0], [2.0]])[z] + rng.normal(size=(300, 1))
    found = e.GaussianHMM(2, random_state=0).fit(X, lengths=[200, 100])
    order = np.argsort(found.means_[:, 0])
    path = np.argsort(order)[found.predict(X, lengths=[200, 100])]
    assert np.mean(path == z) > 0.95
    np.testing.assert_allclose(found.transmat_[order][:, order], A, atol=0.06)
    score, posteriors = found.score_samples(X, lengths=[200, 100])
    assert score == pytest.approx(found.history_[-1], abs=1e-6)
    np.testing.assert_allclose(posteriors.sum(1), 1)
    with pytest.raises(ValueError, match="lengths sum to 299"):
        found.predict(X, lengths=[200, 99])
    B = np.array([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    symbols = np.array([rng.choice(3, p=B[k]) for k in z])[:, None]
    found = e.CategoricalHMM(2, random_state=0, n_init=2, max_iter=30).fit(symbols[:200])
    order = np.argsort(-found.emissionprob_[:, 0])
    assert np.mean(np.argsort(order)[found.predict(symbols)] == z) > 0.9
    with pytest.raises(ValueError, match="a symbol is 3"):
        found.predict([[3]])


def test_they_stand_in_pipelines():
    X, y = blobs(2)
    scores = cross_val_score(make_pipeline(StandardScaler(), e.GaussianNB()), X, y, cv=3)
    assert scores.min() > 0.9


def test_without_scikit_learn_the_extra_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from tilth.runtime.faults import RuntimeFault\n"
        "try: import tilth.estimators\n"
        "except RuntimeFault as fault: print(fault.message, '|', fault.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.stdout.strip() == "estimators need the extra `sklearn` | pip install 'tilth[sklearn]'"
    )

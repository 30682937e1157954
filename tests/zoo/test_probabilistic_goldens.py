"""Probabilistic specs against hmmlearn, scikit-learn and enumeration, in float64."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from tilth.derivatives import value_and_grad
from tilth.program import load

GOLDEN = Path(__file__).parents[1] / "golden"
EMISSIONS = {
    "gaussian_diag": ("hmm", "sigma"), "gaussian_spherical": ("hmm_spherical", "radius"),
    "gaussian_full": ("hmm_full", "cov"), "gaussian_tied": ("hmm_tied", "shared"),
}  # fmt: skip
"""The zoo's variant of each golden, and what it calls its scale."""


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def spec_of(tmp_path, text):
    path = tmp_path / "model.yaml"
    body = "".join(f"  {line}\n" for line in text.strip().splitlines())
    path.write_text(f"tilth: 1\nname: model\nmodel: |\n{body}", encoding="utf-8")
    return load(path)


def sequences(z):
    starts = np.concatenate([[0], np.cumsum(z["lengths"])])
    return [z["X"][a:b] for a, b in itertools.pairwise(starts)]


def start_of(case, z):
    scale = z["covars0"] if case in ("gaussian_full", "gaussian_tied") else np.sqrt(z["covars0"])
    return {
        "pi": z["startprob0"], "A": z["transmat0"], "mu": z["means0"], EMISSIONS[case][1]: scale,
    }  # fmt: skip


def mixture_start(z):
    return {
        "pi": z["startprob0"], "A": z["transmat0"], "w": z["weights0"], "mu": z["means0"],
        "sigma": np.sqrt(z["covars0"]),
    }  # fmt: skip


def compare(program, name, weights, z, place=0.0):
    posteriors, paths = [], []
    for number, y in enumerate(sequences(z)):
        found = program.query({name: y}, weights=weights)
        if "score_per_seq" in z:
            assert abs(found["loglik"] - z["score_per_seq"][number]) < 1e-9
        place += float(found["loglik"])
        posteriors.append(found["marginals(z)"])
        paths.append(found["map(z)"])
    assert abs(place - float(z["score"])) < 1e-8
    np.testing.assert_allclose(np.concatenate(posteriors), z["posteriors"], atol=1e-10)
    np.testing.assert_array_equal(np.concatenate(paths), z["viterbi_path"])


@pytest.mark.parametrize("case", EMISSIONS)
def test_gaussian_hmm_is_hmmlearns(case):
    z = golden(f"hmm/{case}")
    compare(load(EMISSIONS[case][0]), "y", start_of(case, z), z)


def test_categorical_hmm_is_hmmlearns():
    z = golden("hmm/categorical")
    z["X"] = z["X"][:, 0]
    weights = {"pi": z["startprob0"], "A": z["transmat0"], "B": z["emission0"]}
    compare(load("hmm_categorical"), "o", weights, z)


def test_hmm_with_mixture_emissions_is_hmmlearns():
    z = golden("hmm/gmm_diag")
    program, weights = load("hmm_mixture"), mixture_start(z)
    posteriors = []
    total = 0.0
    for y in sequences(z):
        found = program.query({"y": y}, ["loglik", "marginals(z)"], weights)
        total += float(found["loglik"])
        posteriors.append(found["marginals(z)"])
    assert abs(total - float(z["score"])) < 1e-8
    np.testing.assert_allclose(np.concatenate(posteriors), z["posteriors"], atol=1e-10)


def test_full_covariances_of_mixture_emissions():
    z = golden("hmm/gmm_diag")
    program, weights = load("hmm_mixture_full"), mixture_start(z)
    square = weights.pop("sigma") ** 2
    weights["cov"] = square[..., None] * np.eye(square.shape[-1])
    rows = [{"y": y} for y in sequences(z)]
    found = program.query(rows, ["loglik", "marginals(z)"], weights)
    assert abs(sum(row["loglik"] for row in found) - float(z["score"])) < 1e-8
    posteriors = np.concatenate([row["marginals(z)"] for row in found])
    np.testing.assert_allclose(posteriors, z["posteriors"], atol=1e-10)
    # One round of EM: moments weighted by the share of each state and part.
    y = np.concatenate(sequences(z))
    share = weights["w"] * np.exp(
        -0.5 * np.sum((y[:, None, None] - weights["mu"]) ** 2 / square, -1)
    ) / np.sqrt(np.prod(square, -1))  # fmt: skip
    share *= posteriors[:, :, None] / share.sum(-1, keepdims=True)
    mass = share.sum(0)
    mu = np.einsum("tkm,td->kmd", share, y) / mass[..., None]
    apart = y[:, None, None] - mu
    cov = np.einsum("tkm,tkmd,tkme->kmde", share, apart, apart) / mass[..., None, None]
    fitted = program.fit(rows, weights, iterations=1, tol=-np.inf).params
    np.testing.assert_allclose(fitted["mu"], mu, atol=1e-10)
    np.testing.assert_allclose(fitted["cov"], cov, atol=1e-10)
    np.testing.assert_allclose(fitted["w"], mass / mass.sum(-1, keepdims=True), atol=1e-10)
    history = program.fit(rows, weights, iterations=8, tol=-np.inf).history
    assert np.all(np.diff(history) > -1e-9) and history[-1] > history[0] + 1


@pytest.mark.parametrize("case", ["linear_chain_tiny_bruteforce", "linear_chain_long_forward"])
def test_linear_chain_crf(tmp_path, case):
    z = golden(f"crf/{case}")
    _, labels = z["unary"].shape
    program = spec_of(tmp_path, f"""
input u : f64[T, {labels}]
input label : i32[T]
param A : real[{labels}, {labels}]
y[t] ~ labels({labels}) for t in 0..T
factor u[t, y[t]] for t in 0..T
factor A[y[t-1], y[t]] for t in 1..T
output p = marginals(y), path = map(y), z = loglik(), nll = -logp(y = label)
""")  # fmt: skip
    inputs = {"u": z["unary"], "label": z["labels"].astype(np.int32)}
    found = program.run(inputs, {"A": z["transition"]})
    assert abs(found["z"] - z["logZ"]) < 1e-10
    assert abs(found["nll"] - z["nll"]) < 1e-10
    np.testing.assert_allclose(found["p"], z["unary_marginals"], atol=1e-12)
    np.testing.assert_array_equal(found["path"], z["viterbi_path"])
    step = value_and_grad(program, "nll", ["A", "u"])
    _, slopes, _ = step(inputs, {"A": z["transition"]})
    np.testing.assert_allclose(slopes["A"], z["grad_nll_transition"], atol=1e-12)
    np.testing.assert_allclose(slopes["u"], z["grad_nll_unary"], atol=1e-12)


@pytest.mark.parametrize("case", ["bp_chain6", "bp_tree8", "bp_grid3x4"])
def test_pairwise_models_by_elimination(tmp_path, case):
    z = golden(f"graphical/{case}")
    count, states = z["unary"].shape
    rows = "\n".join(
        f"factor w[{e}, x[{i}], x[{j}]]" for e, (i, j) in enumerate(z["edges"].tolist())
    )
    program = spec_of(tmp_path, f"""
input u : f64[{count}, {states}]
input w : f64[{len(z["edges"])}, {states}, {states}]
x[i] ~ labels({states}) for i in 0..{count}
factor u[i, x[i]] for i in 0..{count}
{rows}
""")  # fmt: skip
    found = program.query({"u": z["unary"], "w": z["pairwise"]})
    assert abs(found["loglik"] - z["exact_logZ"]) < 1e-10
    np.testing.assert_allclose(found["marginals(x)"], z["exact_marginals"], atol=1e-12)
    np.testing.assert_array_equal(found["map(x)"], z["map_assignment"])


def test_categorical_hmm_by_enumeration():
    z = golden("hmm/categorical_enumeration")
    weights = {"pi": z["startprob"], "A": z["transmat"], "B": z["emission"]}
    program = load("hmm_categorical")
    ask = ["loglik", "marginals", "map", "statistics"]
    found = program.query({"o": z["x"]}, ask, weights)
    assert abs(found["loglik"] - z["loglik"]) < 1e-10
    np.testing.assert_allclose(found["marginals(z)"], z["posterior"], atol=1e-12)
    np.testing.assert_allclose(found["statistics(z[t])"], z["xi"].sum(0), atol=1e-12)
    np.testing.assert_array_equal(found["map(z)"], z["viterbi_path"])
    best = program.query({"o": z["x"], "z": found["map(z)"]}, ["loglik"], weights)["loglik"]
    assert abs(best - z["viterbi_logprob"]) < 1e-10


def same_classes(found, z):
    np.testing.assert_allclose(found["marginals(c)"], z["proba_test"], atol=1e-10)
    joint = z["joint_loglik_test"]
    top = joint.max(axis=1, keepdims=True)
    return np.sum(np.log(np.exp(joint - top).sum(axis=1)) + top[:, 0])


def test_naive_bayes_is_scikit_learns():
    z = golden("naive_bayes/gaussian")
    program = load("naive_bayes", set={"D": 3})
    train = {"x": z["X"][:45], "c": z["y"][:45]}
    weights = program.fit(train, iterations=3).params
    np.testing.assert_allclose(weights["prior"], z["class_prior"], atol=1e-12)
    np.testing.assert_allclose(weights["mu"], z["theta"], atol=1e-12)
    # scikit-learn adds 1e-9 of the largest variance.
    weights["sigma"] = np.sqrt(weights["sigma"] ** 2 + 1e-9 * z["X"][:45].var(0).max())
    np.testing.assert_allclose(weights["sigma"] ** 2, z["var"], rtol=1e-10)
    found = program.query({"x": z["X"][45:]}, weights=weights)
    assert abs(found["loglik"] - same_classes(found, z)) < 1e-8


@pytest.mark.parametrize("kind", ["bernoulli", "multinomial"])
def test_naive_bayes_of_words_is_scikit_learns(kind):
    z = golden(f"naive_bayes/{kind}")
    program, x = load(f"naive_bayes_{kind}"), z["X"]
    found = program.fit({"x": x[:45], "c": z["y"][:45]}, iterations=5)
    assert found.converged
    path = "p" if kind == "bernoulli" else "theta"
    np.testing.assert_allclose(found.params["prior"], z["class_prior"], atol=1e-12)
    np.testing.assert_allclose(np.log(found.params[path]), z["feature_log_prob"], atol=1e-12)
    asked = program.query({"x": x[45:]}, weights=found.params)
    total = same_classes(asked, z)
    if kind == "multinomial":  # scikit-learn leaves out in how many orders words may come
        total += sum(
            math.lgamma(row.sum() + 1) - sum(math.lgamma(n + 1) for n in row) for row in x[45:]
        )
    assert abs(asked["loglik"] - total) < 1e-8


def test_dense_crf_by_mean_field():
    z = golden("crf/dense_unnormalised")
    inputs = {
        "unary": z["unary"].transpose(2, 0, 1), "image": z["image"].transpose(2, 0, 1),
    }  # fmt: skip
    options = {"L": 4, "theta_alpha": 12, "theta_beta": 15, "theta_gamma": 3}
    for steps in (1, 5):
        program = load("dense_crf", set={**options, "steps": steps})
        found = program.run(inputs, {"w": np.array([0.05, 0.05])})["q"]
        assert np.abs(found - z["Q"][steps]).max() < 1e-5

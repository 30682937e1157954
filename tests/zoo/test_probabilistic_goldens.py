"""Probabilistic specs against hmmlearn, scikit-learn and enumeration, in float64."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from tilth.derivatives import value_and_grad
from tilth.program import load

GOLDEN = Path(__file__).parents[1] / "golden"
EMISSIONS = {
    "gaussian_diag": ("y[t] ~ normal(mu[z[t]], sigma[z[t]])", "sigma : positive[3, 2]"),
    "gaussian_spherical": ("y[t] ~ normal(mu[z[t]], sigma[z[t]])", "sigma : positive[3]"),
    "gaussian_full": ("y[t] ~ mvnormal(mu[z[t]], sigma[z[t]])", "sigma : posdef[3, 2, 2]"),
    "gaussian_tied": ("y[t] ~ mvnormal(mu[z[t]], sigma)", "sigma : posdef[2, 2]"),
}


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def spec_of(tmp_path, text):
    path = tmp_path / "model.yaml"
    body = "".join(f"  {line}\n" for line in text.strip().splitlines())
    path.write_text(f"tilth: 1\nname: model\nmodel: |\n{body}", encoding="utf-8")
    return load(path)


def hmm_spec(tmp_path, case):
    emission, parameter = EMISSIONS[case]
    return spec_of(tmp_path, f"""
input y : f64[T, 2]
param pi : simplex[3]
param A : simplex[3, 3]
param mu : real[3, 2]
param {parameter}
z[0] ~ categorical(pi)
z[t] ~ categorical(A[z[t-1]]) for t in 1..T
{emission} for t in 0..T
""")  # fmt: skip


def sequences(z):
    starts = np.concatenate([[0], np.cumsum(z["lengths"])])
    return [z["X"][a:b] for a, b in itertools.pairwise(starts)]


def start_of(case, z):
    scale = z["covars0"] if case in ("gaussian_full", "gaussian_tied") else np.sqrt(z["covars0"])
    return {"pi": z["startprob0"], "A": z["transmat0"], "mu": z["means0"], "sigma": scale}


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
def test_gaussian_hmm_is_hmmlearns(tmp_path, case):
    z = golden(f"hmm/{case}")
    compare(hmm_spec(tmp_path, case), "y", start_of(case, z), z)


def test_categorical_hmm_is_hmmlearns():
    z = golden("hmm/categorical")
    z["X"] = z["X"][:, 0]
    weights = {"pi": z["startprob0"], "A": z["transmat0"], "B": z["emission0"]}
    compare(load("hmm_categorical"), "o", weights, z)


def test_hmm_with_mixture_emissions_is_hmmlearns(tmp_path):
    z = golden("hmm/gmm_diag")
    program = spec_of(tmp_path, """
input y : f64[T, 2]
param pi : simplex[3]
param A : simplex[3, 3]
param w : simplex[3, 2]
param mu : real[3, 2, 2]
param sigma : positive[3, 2, 2]
z[0] ~ categorical(pi)
z[t] ~ categorical(A[z[t-1]]) for t in 1..T
m[t] ~ categorical(w[z[t]]) for t in 0..T
y[t] ~ normal(mu[z[t], m[t]], sigma[z[t], m[t]]) for t in 0..T
""")  # fmt: skip
    weights = {
        "pi": z["startprob0"], "A": z["transmat0"], "w": z["weights0"], "mu": z["means0"],
        "sigma": np.sqrt(z["covars0"]),
    }  # fmt: skip
    posteriors = []
    total = 0.0
    for y in sequences(z):
        found = program.query({"y": y}, ["loglik", "marginals(z)"], weights)
        total += float(found["loglik"])
        posteriors.append(found["marginals(z)"])
    assert abs(total - float(z["score"])) < 1e-8
    np.testing.assert_allclose(np.concatenate(posteriors), z["posteriors"], atol=1e-10)


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


def test_naive_bayes_is_scikit_learns():
    z = golden("naive_bayes/gaussian")
    weights = {"prior": z["class_prior"], "mu": z["theta"], "sigma": np.sqrt(z["var"])}
    found = load("naive_bayes", set={"D": 3}).query({"x": z["X"][45:]}, weights=weights)
    np.testing.assert_allclose(found["marginals(c)"], z["proba_test"], atol=1e-10)
    joint = z["joint_loglik_test"]
    top = joint.max(axis=1, keepdims=True)
    total = np.sum(np.log(np.exp(joint - top).sum(axis=1)) + top[:, 0])
    assert abs(found["loglik"] - total) < 1e-8


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

"""EM, iterate by iterate, against hmmlearn, scikit-learn and an exact recursion."""

import numpy as np
import pytest
from test_probabilistic_goldens import EMISSIONS, golden, hmm_spec, sequences, spec_of, start_of
from tilth.program import load

MIXTURE = {
    "em_full": ("cov : posdef[3, 2, 2]", "mvnormal(mu[z[n]], cov[z[n]])"),
    "em_tied": ("cov : posdef[2, 2]", "mvnormal(mu[z[n]], cov)"),
    "em_diag": ("cov : positive[3, 2]", "normal(mu[z[n]], cov[z[n]])"),
    "em_spherical": ("cov : positive[3]", "normal(mu[z[n]], cov[z[n]])"),
}


@pytest.mark.parametrize("case", EMISSIONS)
def test_baum_welch_of_gaussians(tmp_path, case):
    z = golden(f"hmm/{case}")
    data = [{"y": y} for y in sequences(z)]
    found = hmm_spec(tmp_path, case).fit(data, start_of(case, z), iterations=10, tol=-np.inf)
    np.testing.assert_allclose(found.history[:10], z["bw_loglik"], atol=1e-8)
    assert abs(found.history[10] - z["bw_final_score"]) < 1e-8
    square = (
        found.params["sigma"] if case.endswith(("full", "tied")) else found.params["sigma"] ** 2
    )
    for ours, name in (
        (found.params["pi"], "bw_startprob"), (found.params["A"], "bw_transmat"),
        (found.params["mu"], "bw_means"), (square, "bw_covars"),
    ):  # fmt: skip
        np.testing.assert_allclose(ours, z[name].reshape(ours.shape), atol=1e-8)


def test_baum_welch_of_symbols():
    z = golden("hmm/categorical")
    z["X"] = z["X"][:, 0]
    weights = {"pi": z["startprob0"], "A": z["transmat0"], "B": z["emission0"]}
    data = [{"o": o} for o in sequences(z)]
    found = load("hmm_categorical").fit(data, weights, iterations=10, tol=-np.inf)
    np.testing.assert_allclose(found.history[:10], z["bw_loglik"], atol=1e-8)
    np.testing.assert_allclose(found.params["B"], z["bw_emission"], atol=1e-8)
    np.testing.assert_allclose(found.params["A"], z["bw_transmat"], atol=1e-8)


def test_baum_welch_of_mixtures(tmp_path):
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
    found = program.fit([{"y": y} for y in sequences(z)], weights, iterations=10, tol=-np.inf)
    np.testing.assert_allclose(found.history[:10], z["bw_loglik"], atol=1e-7)
    np.testing.assert_allclose(found.params["w"], z["bw_weights"], atol=1e-8)
    np.testing.assert_allclose(found.params["mu"], z["bw_means"], atol=1e-8)
    np.testing.assert_allclose(found.params["sigma"] ** 2, z["bw_covars"], atol=1e-8)


@pytest.mark.parametrize("case", MIXTURE)
def test_gaussian_mixtures(tmp_path, case):
    z = golden(f"gmm/{case}")
    parameter, emission = MIXTURE[case]
    program = spec_of(tmp_path, f"""
input x : f64[M, 2]
param alpha : simplex[3]
param mu : real[3, 2]
param {parameter}
z[n] ~ categorical(alpha) for n in 0..M
x[n] ~ {emission} for n in 0..M
""")  # fmt: skip
    vectors = "mvnormal" in emission
    start = np.linalg.inv(z["precisions0"]) if vectors else z["precisions0"] ** -0.5
    weights = {"alpha": z["weights0"], "mu": z["means0"], "cov": start}
    now = weights
    for k in range(3):
        now = program.fit({"x": z["X"]}, now, iterations=1, tol=-np.inf).params
        np.testing.assert_allclose(now["alpha"], z["weights"][k], atol=1e-8)
        np.testing.assert_allclose(now["mu"], z["means"][k], atol=1e-8)
        square = now["cov"] if vectors else now["cov"] ** 2
        np.testing.assert_allclose(square, z["covariances"][k], atol=1e-8)
    found = program.fit({"x": z["X"]}, weights, iterations=10, tol=-np.inf)
    count = len(z["X"])
    np.testing.assert_allclose(
        np.array(found.history[:10]) / count, z["mean_loglik_before"], atol=1e-9
    )
    np.testing.assert_allclose(
        np.array(found.history[1:]) / count, z["mean_loglik_after"], atol=1e-9
    )


def test_naive_bayes_with_a_prior_is_counted_once(tmp_path):
    z = golden("naive_bayes/bernoulli")
    program = spec_of(tmp_path, """
input x : f64[M, 4]
input c : i32[M]
param prior : simplex[3]
param p : unit[3, 4]
p[k, d] ~ beta(2, 2) for k in 0..3, d in 0..4
c[n] ~ categorical(prior) for n in 0..M
x[n, d] ~ bernoulli(p[c[n], d]) for n in 0..M, d in 0..4
""")  # fmt: skip
    binary = (z["X"][:45] > 0).astype(float)
    data = {"x": binary, "c": z["y"][:45].astype(np.int32)}
    found = program.fit(data, iterations=5)
    assert found.converged
    np.testing.assert_allclose(found.params["prior"], z["class_prior"], atol=1e-10)
    np.testing.assert_allclose(np.log(found.params["p"]), z["feature_log_prob"], atol=1e-10)

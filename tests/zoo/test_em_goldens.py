"""EM, iterate by iterate, against hmmlearn, scikit-learn and an exact recursion."""

import numpy as np
import pytest
from test_probabilistic_goldens import EMISSIONS, golden, mixture_start, sequences, start_of
from tilth.program import load

MIXTURE = {
    "em_full": ("gmm", "cov"), "em_tied": ("gmm_tied", "shared"), "em_diag": ("gmm_diag", "sd"),
    "em_spherical": ("gmm_spherical", "radius"),
}  # fmt: skip


@pytest.mark.parametrize("case", EMISSIONS)
def test_baum_welch_of_gaussians(case):
    z = golden(f"hmm/{case}")
    (name, scale), data = EMISSIONS[case], [{"y": y} for y in sequences(z)]
    found = load(name).fit(data, start_of(case, z), iterations=10, tol=-np.inf)
    np.testing.assert_allclose(found.history[:10], z["bw_loglik"], atol=1e-8)
    assert abs(found.history[10] - z["bw_final_score"]) < 1e-8
    square = found.params[scale] ** (1 if case.endswith(("full", "tied")) else 2)
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


def test_baum_welch_of_mixtures():
    z = golden("hmm/gmm_diag")
    program, weights = load("hmm_mixture"), mixture_start(z)
    found = program.fit([{"y": y} for y in sequences(z)], weights, iterations=10, tol=-np.inf)
    np.testing.assert_allclose(found.history[:10], z["bw_loglik"], atol=1e-7)
    np.testing.assert_allclose(found.params["w"], z["bw_weights"], atol=1e-8)
    np.testing.assert_allclose(found.params["mu"], z["bw_means"], atol=1e-8)
    np.testing.assert_allclose(found.params["sigma"] ** 2, z["bw_covars"], atol=1e-8)


@pytest.mark.parametrize("case", MIXTURE)
def test_gaussian_mixtures(case):
    z = golden(f"gmm/{case}")
    name, scale = MIXTURE[case]
    program, vectors = load(name), case in ("em_full", "em_tied")
    start = np.linalg.inv(z["precisions0"]) if vectors else z["precisions0"] ** -0.5
    weights = {"alpha": z["weights0"], "mu": z["means0"], scale: start}
    now = weights
    for k in range(3):
        now = program.fit({"x": z["X"]}, now, iterations=1, tol=-np.inf).params
        np.testing.assert_allclose(now["alpha"], z["weights"][k], atol=1e-8)
        np.testing.assert_allclose(now["mu"], z["means"][k], atol=1e-8)
        square = now[scale] ** (1 if vectors else 2)
        np.testing.assert_allclose(square, z["covariances"][k], atol=1e-8)
    found = program.fit({"x": z["X"]}, weights, iterations=10, tol=-np.inf)
    count = len(z["X"])
    np.testing.assert_allclose(
        np.array(found.history[:10]) / count, z["mean_loglik_before"], atol=1e-9
    )
    np.testing.assert_allclose(
        np.array(found.history[1:]) / count, z["mean_loglik_after"], atol=1e-9
    )

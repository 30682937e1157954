"""Distributions against SciPy, stored references, and their own densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, infer
from tilth.compiler.ops.distributions import DISTRIBUTIONS
from tilth.compiler.ops.divergences import ENTROPY, KL

RNG = np.random.default_rng(6)
KEY = np.array([2, 9], np.uint64)

STORED = {
    "gaussian_mu0.7_s1.3": ("normal", 0.7, 1.3),
    "laplace_mu0.5_b1.2": ("laplace", 0.5, 1.2),
    "student_t_nu3.5_mu0.2_s0.9": ("student_t", 3.5, 0.2, 0.9),
    "cauchy_x0-0.3_g0.8": ("cauchy", -0.3, 0.8),
    "beta_a2.5_b0.7": ("beta", 2.5, 0.7),
    "gamma_shape2.3_rate1.7": ("gamma", 2.3, 1.7),
    "gig_p0.6_a1.5_b2.5": ("generalised_inverse_gaussian", 0.6, 1.5, 2.5),
    "gig_p-1.2_a0.8_b3": ("generalised_inverse_gaussian", -1.2, 0.8, 3.0),
    "inverse_gaussian_mu1.4_lam2": ("inverse_gaussian", 1.4, 2.0),
    "invgamma_a2.5_b1.3": ("inverse_gamma", 2.5, 1.3),
    "bernoulli_p0.3": ("bernoulli", 0.3),
    "poisson_lam3.2": ("poisson", 3.2),
    "negbin_r2.5_p0.4": ("negative_binomial", 2.5, 0.4),
    "geometric_failures_p0.35": ("geometric", 0.35),
    "binomial_n14_p0.3": ("binomial", 14.0, 0.3),
    "exponential_rate0.7": ("exponential", 0.7),
}
EXAMPLES: dict[str, tuple] = {name: params for name, *params in STORED.values()} | {
    "mvnormal": ([0.3, -0.2], [[1.2, 0.4], [0.4, 0.7]]),
    "uniform": (-1.0, 2.5),
    "dirichlet": ([1.5, 2.5, 0.8],),
    "categorical": ([0.2, 0.5, 0.3],),
    "labels": (5.0,),
    "multinomial": (6.0, [0.2, 0.5, 0.3]),
    "dpp": ([[1.0, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.2, 2.0]],),
}


def arrays(*params, dtype=np.float64) -> list[np.ndarray]:
    return [np.asarray(p, dtype) for p in params]


@pytest.fixture
def log_prob(run_op):
    return lambda name, x, *params, form="": run_op(
        "log_prob", np.asarray(x), *arrays(*params), dist=name, form=form
    )


@pytest.fixture
def sample(run_op):
    return lambda name, shape, *params, dtype=np.float64, form="": run_op(
        "sample", *arrays(*params, dtype=dtype), KEY, dist=name, form=form, path="z", shape=shape
    )


@pytest.mark.parametrize("case", STORED)
def test_stored_densities_and_moments(log_prob, golden, agree, case) -> None:
    stored = golden("prob/distributions")
    name, *params = STORED[case]
    agree(log_prob(name, stored[f"{case}_x"], *params), stored[f"{case}_log"], 1e-12)
    row = DISTRIBUTIONS[name]
    assert row.mean is not None and row.variance is not None
    moments = [row.mean(*arrays(*params)), row.variance(*arrays(*params))]
    np.testing.assert_allclose(moments, stored[f"{case}_mean_var"], rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", STORED)
def test_samples_follow_the_stored_cdf(sample, golden, case, dtype) -> None:
    stored = golden("prob/distributions")
    name, *params = STORED[case]
    drawn = sample(name, (20_000,), *params, dtype=dtype)
    points = stored[f"{case}_x"].astype(float)
    shares = np.searchsorted(np.sort(drawn), points, side="right") / drawn.size
    # 1.95 / sqrt(n): one in a thousand for a right sampler.
    assert np.abs(shares - stored[f"{case}_cdf"]).max() < 1.95 / math.sqrt(drawn.size)


def test_stored_vectors(log_prob, golden, agree) -> None:
    stored = golden("prob/distributions")
    agree(log_prob("mvnormal", stored["mvn_x"], *EXAMPLES["mvnormal"]), stored["mvn_log"], 1e-12)
    agree(
        log_prob("dirichlet", stored["dirichlet_x"], *EXAMPLES["dirichlet"]),
        stored["dirichlet_log"],
        1e-12,
    )


def test_stored_factorials(run_op, golden, agree) -> None:
    stored = golden("prob/distributions")
    agree(run_op("lgamma", stored["stirling_n"] + 1.0), stored["lnfact"], 1e-14)


def test_stored_determinantal_process(log_prob, sample, golden, agree) -> None:
    stored = golden("dpp/l_ensemble_n8")
    members = (stored["subset_bits"][:, None] >> np.arange(8)) & 1 == 1
    agree(np.exp(log_prob("dpp", members, stored["L"])), stored["subset_prob"], 1e-12)
    drawn = sample("dpp", (20_000,), stored["L"])
    assert drawn.dtype == bool
    error = np.abs(drawn.mean(0) - stored["marginal_single"]).max()
    assert error < 4 * 0.5 / math.sqrt(20_000)
    pairs = (drawn[:, :, None] & drawn[:, None, :]).mean(0)
    off = ~np.eye(8, dtype=bool)
    assert np.abs(pairs - stored["marginal_pair"])[off].max() < 4 * 0.5 / math.sqrt(20_000)


OUTSIDE = {
    "beta": [-0.1, 1.1],
    "gamma": [-1.0],
    "inverse_gamma": [-1.0, 0.0],
    "inverse_gaussian": [-1.0, 0.0],
    "generalised_inverse_gaussian": [-1.0, 0.0],
    "exponential": [-1e-3],
    "uniform": [-1.1, 2.6],
    "bernoulli": [-1.0, 2.0],
    "categorical": [-1.0, 3.0, 0.5],
    "labels": [-1.0, 5.0, 0.5],
    "poisson": [-1.0, 0.5],
    "negative_binomial": [-1.0, 0.5],
    "geometric": [-1.0, 0.5],
    "binomial": [-1.0, 15.0, 0.5],
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_the_support(log_prob, recwarn, name) -> None:
    assert np.isneginf(log_prob(name, OUTSIDE[name], *EXAMPLES[name])).all()
    assert not recwarn.list


def test_outside_the_support_of_vectors(log_prob) -> None:
    assert np.isneginf(
        log_prob("dirichlet", [[0.5, 0.6, -0.1], [0.2, 0.2, 0.2]], [1.0, 1, 1])
    ).all()
    assert np.isneginf(
        log_prob("multinomial", [[1, 2, 2], [7, -1, 0]], *EXAMPLES["multinomial"])
    ).all()


def test_edges_of_the_support(log_prob) -> None:
    assert log_prob("beta", [0.0, 1.0], 1.0, 1.0).tolist() == [0, 0]
    assert log_prob("beta", [0.0, 1.0], 2.0, 0.5).tolist() == [-np.inf, np.inf]
    assert log_prob("gamma", 0.0, 1.0, 2.0) == pytest.approx(math.log(2))
    assert log_prob("bernoulli", [0.0, 1.0], 0.0).tolist() == [0, -np.inf]
    assert log_prob("bernoulli", [0.0, 1.0], 1.0).tolist() == [-np.inf, 0]
    assert log_prob("categorical", [0, 1], [1.0, 0.0]).tolist() == [0, -np.inf]
    assert log_prob("poisson", [0, 1], 0.0).tolist() == [0, -np.inf]
    assert log_prob("binomial", [0, 14], 14.0, 0.0).tolist() == [0, -np.inf]
    assert log_prob("labels", [0, 4], 5.0).tolist() == [0, 0]
    assert log_prob("normal", [np.inf], 0.0, 1.0) == -np.inf


FAR = [
    ("student_t", 0.7, (1e12, 0.0, 1.0), stats.norm.logpdf(0.7)),
    ("student_t", 0.7, (2000.1, 0.0, 1.0), stats.t.logpdf(0.7, 2000.1)),
    ("student_t", 1e10, (3.0, 0.0, 1.0), stats.t.logpdf(1e10, 3)),
    ("gamma", 1e6, (1e6, 1.0), stats.gamma.logpdf(1e6, 1e6)),
    ("gamma", 1e-300, (0.5, 1.0), stats.gamma.logpdf(1e-300, 0.5)),
    ("beta", 1e-12, (1e-3, 1e-3), stats.beta.logpdf(1e-12, 1e-3, 1e-3)),
    ("poisson", 10**9, (1e9,), stats.poisson.logpmf(10**9, 1e9)),
    (
        "generalised_inverse_gaussian",
        1.0,
        (0.5, 1e-6, 1e-6),
        stats.geninvgauss.logpdf(1, 0.5, 1e-6),
    ),
    ("generalised_inverse_gaussian", 1.0, (50.0, 2e3, 2e3), stats.geninvgauss.logpdf(1, 50, 2e3)),
    ("normal", 1e8 + 1, (1e8, 1.0), stats.norm.logpdf(1)),
    ("laplace", 1e5, (0.0, 1e-3), -1e8 - math.log(2e-3)),
]


@pytest.mark.parametrize(("name", "x", "params", "want"), FAR)
def test_far_out_nothing_cancels(log_prob, name, x, params, want) -> None:
    assert float(log_prob(name, x, *params)) == pytest.approx(want, rel=1e-11)


def test_low_precision_traps_of_gaussians(run_op, log_prob) -> None:
    # Far from zero in float32: the difference is taken first, then squared.
    x = np.float32([40000.25, 39999.5])
    got = run_op("log_prob", x, np.float32(40000), np.float32(0.5), dist="normal", form="")
    np.testing.assert_allclose(got, stats.norm.logpdf([0.25, -0.5], 0, 0.5), rtol=1e-6)
    # Axes whose spreads differ by a million; the covariance itself holds the least to 1e-4.
    spreads = 10.0 ** np.array([-3, -1, 1, 3])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    z = np.array([[0.3, -1.2, 0.5, 2.0], [-2.0, 0.1, 1.0, -0.4]])
    cov = turn @ np.diag(spreads**2) @ turn.T
    points = z * spreads @ turn.T
    want = stats.norm.logpdf(z).sum(-1) - np.log(spreads).sum()
    got = log_prob("mvnormal", points, np.zeros(4), (cov + cov.T) / 2)
    np.testing.assert_allclose(got, want, rtol=1e-3)
    # Full and diagonal are one where the covariance is diagonal.
    full = log_prob("mvnormal", z, np.zeros(4), np.diag(spreads**2))
    diagonal = log_prob("normal", z, 0.0, spreads).sum(-1)
    np.testing.assert_allclose(full, diagonal, rtol=1e-12)


def test_logits_do_not_overflow(log_prob) -> None:
    got = log_prob("bernoulli", [0.0, 1.0, 0.25], [[800.0], [-800.0]], form="logits")
    np.testing.assert_allclose(got, [[-800, 0, -600], [0, -800, -200]])
    logits = RNG.standard_normal((4, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    x = np.array([0, 1, 2, 1], np.int32)
    np.testing.assert_allclose(
        log_prob("categorical", x, logits, form="logits"), log_prob("categorical", x, p)
    )


def test_batches_broadcast_and_events_are_summed(log_prob) -> None:
    mu, sd = RNG.standard_normal((3, 1)), RNG.uniform(0.5, 2, 4)
    x = RNG.standard_normal((2, 1, 1))
    np.testing.assert_allclose(log_prob("normal", x, mu, sd), stats.norm.logpdf(x, mu, sd))
    means, covs = RNG.standard_normal((4, 1, 2)), np.stack([np.eye(2), 2 * np.eye(2) + 0.5])
    y = RNG.standard_normal(2)
    got = log_prob("mvnormal", y, means, covs)
    for i, j in np.ndindex(4, 2):
        truth = stats.multivariate_normal.logpdf(y, means[i, 0], covs[j])
        assert got[i, j] == pytest.approx(truth, rel=1e-12)
    p = RNG.dirichlet([1, 1, 1], 5)
    np.testing.assert_allclose(
        log_prob("categorical", np.arange(3, dtype=np.int32)[:, None], p), np.log(p.T)
    )
    counts = np.array([[1, 2, 3], [6, 0, 0]])
    np.testing.assert_allclose(
        log_prob("multinomial", counts, 6.0, p[:, None]),
        [[stats.multinomial.logpmf(c, 6, row) for c in counts] for row in p],
    )


def test_dtype_is_that_of_the_parameters(run_op) -> None:
    got = run_op("log_prob", np.array([2], np.int32), np.float32([[3.2]]), dist="poisson", form="")
    assert got.dtype == np.float32 and got.shape == (1, 1)
    labels = run_op(
        "log_prob", np.array([2], np.int32), np.array(3, np.int32), dist="labels", form=""
    )
    assert labels.dtype == np.float64


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_samples_are_in_the_support_and_repeatable(log_prob, sample, name) -> None:
    drawn = sample(name, (50, 3), *EXAMPLES[name])
    assert drawn.shape[:2] == (50, 3)
    assert np.isfinite(log_prob(name, drawn, *EXAMPLES[name])).all()
    np.testing.assert_array_equal(drawn, sample(name, (50, 3), *EXAMPLES[name]))
    part = sample(name, (7,), *EXAMPLES[name])
    if DISTRIBUTIONS[name].rank == 0:
        np.testing.assert_array_equal(part, drawn.reshape(-1)[:7])


@pytest.mark.parametrize("name", ["mvnormal", "dirichlet", "multinomial", "uniform", "categorical"])
def test_sample_moments(sample, name) -> None:
    row, params = DISTRIBUTIONS[name], arrays(*EXAMPLES[name])
    assert row.mean is not None and row.variance is not None
    drawn = sample(name, (20_000,), *EXAMPLES[name]).astype(float)
    error = 5 * np.sqrt(row.variance(*params) / 20_000)
    assert (np.abs(drawn.mean(0) - row.mean(*params)) < error).all()
    np.testing.assert_allclose(drawn.var(0), row.variance(*params), rtol=0.1)


@pytest.mark.parametrize(
    ("name", "params", "truth"),
    [
        ("poisson", (1700.0,), stats.poisson(1700)),
        ("binomial", (1200.0, 0.83), stats.binom(1200, 0.83)),
        ("gamma", (0.05, 2.0), stats.gamma(0.05, scale=0.5)),
        ("generalised_inverse_gaussian", (0.1, 0.01, 0.02), None),
        ("generalised_inverse_gaussian", (30.0, 5.0, 2.0), None),
    ],
)
def test_far_parameters(sample, name, params, truth) -> None:
    if truth is None:
        p, a, b = params
        truth = stats.geninvgauss(p, math.sqrt(a * b), scale=math.sqrt(b / a))
    drawn = sample(name, (5_000,), *params).astype(float)
    points = truth.ppf(np.linspace(0.02, 0.98, 25))
    shares = np.searchsorted(np.sort(drawn), points, side="right") / drawn.size
    assert np.abs(shares - truth.cdf(points)).max() < 1.95 / math.sqrt(drawn.size)


def test_reparameterised_samples_move_with_their_parameters(sample) -> None:
    z = sample("normal", (5,), 0.0, 1.0)
    np.testing.assert_allclose(sample("normal", (5,), 2.0, 3.0), 2 + 3 * z)
    np.testing.assert_allclose(
        sample("normal", (2, 3), [0.0, 10, 20], 1.0),
        sample("normal", (2, 3), 0.0, 1.0) + np.array([0, 10, 20]),
    )


def expectation(name: str, params: tuple, function) -> float:
    """The expected value of a function of the value, by quadrature or summation."""
    density = OPS["log_prob"].reference
    assert density is not None

    def weight(x: float) -> float:
        log = float(density(np.asarray(x), *arrays(*params), dist=name, form=""))
        return 0.0 if log == -math.inf else math.exp(log) * function(x)

    row = DISTRIBUTIONS[name]
    if row.support in ("count", "finite", "bool"):
        return math.fsum(weight(float(k)) for k in range(400))
    low, high = {"unit": (0, 1), "positive": (0, np.inf), "real": (-np.inf, np.inf)}[row.support]
    if name == "uniform":
        low, high = params
    return integrate.quad(weight, low, high, limit=200)[0]


SCALAR = [n for n in ENTROPY if DISTRIBUTIONS[n].rank == 0 and n != "labels"]


@pytest.mark.parametrize("name", SCALAR)
def test_entropy_is_the_expected_surprise(run_op, log_prob, name) -> None:
    params = EXAMPLES[name]
    got = run_op("entropy", *arrays(*params), dist=name, form="")
    expected = expectation(name, params, lambda x: -float(log_prob(name, x, *params)))
    assert float(got) == pytest.approx(expected, rel=1e-6)


OTHER: dict[str, tuple] = {
    "normal": (-0.2, 0.6),
    "laplace": (1.1, 0.4),
    "gamma": (1.2, 0.6),
    "beta": (1.3, 2.0),
    "uniform": (-2.0, 3.0),
    "exponential": (1.9,),
    "bernoulli": (0.8,),
    "categorical": ([0.6, 0.1, 0.3],),
    "geometric": (0.6,),
    "poisson": (5.0,),
}


@pytest.mark.parametrize("name", OTHER)
def test_kl_is_the_expected_log_ratio(run_op, log_prob, name) -> None:
    p, q = EXAMPLES[name], OTHER[name]
    attrs = {"p": name, "q": name, "p_form": "", "q_form": ""}
    got = float(run_op("kl", *arrays(*p), *arrays(*q), **attrs))

    def ratio(x: float) -> float:
        return float(log_prob(name, x, *p)) - float(log_prob(name, x, *q))

    assert got == pytest.approx(expectation(name, p, ratio), rel=1e-6)
    assert float(run_op("kl", *arrays(*p), *arrays(*p), **attrs)) == pytest.approx(0, abs=1e-12)


def test_vector_closed_forms(run_op, log_prob) -> None:
    covers = {name for name, _ in KL} - set(OTHER)
    assert covers == {"mvnormal", "dirichlet"}
    mean, cov = arrays(*EXAMPLES["mvnormal"])
    entropy = run_op("entropy", mean, cov, dist="mvnormal", form="")
    assert float(entropy) == pytest.approx(stats.multivariate_normal(mean, cov).entropy())
    alpha = np.array(EXAMPLES["dirichlet"][0])
    entropy = run_op("entropy", alpha, dist="dirichlet", form="")
    assert float(entropy) == pytest.approx(stats.dirichlet(alpha).entropy())
    for name, p, q in (
        ("mvnormal", (mean, cov), (np.zeros(2), np.array([[0.9, -0.1], [-0.1, 1.5]]))),
        ("dirichlet", (alpha,), (np.array([2.0, 1.0, 3.0]),)),
    ):
        drawn = run_op("sample", *p, KEY, dist=name, form="", path="kl", shape=(40_000,))
        ratio = log_prob(name, drawn, *p) - log_prob(name, drawn, *q)
        got = float(run_op("kl", *p, *q, p=name, q=name, p_form="", q_form=""))
        assert abs(ratio.mean() - got) < 5 * ratio.std() / 200


def test_kl_takes_forms_and_broadcasts(run_op) -> None:
    logits = RNG.standard_normal((4, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    q = np.array([0.2, 0.3, 0.5])
    got = run_op("kl", logits, q, p="categorical", q="categorical", p_form="logits", q_form="")
    np.testing.assert_allclose(got, (p * np.log(p / q)).sum(-1))
    zero = run_op(
        "kl",
        np.array([1.0, 0.0]),
        np.array([0.5, 0.5]),
        p="categorical",
        q="categorical",
        p_form="",
        q_form="",
    )
    assert float(zero) == pytest.approx(math.log(2))


def test_pmf_is_truncated_and_scaled(run_op) -> None:
    got = run_op("pmf", np.array([3.0, 30.0]), dist="poisson", form="", lo=0, hi=21)
    table = stats.poisson.pmf(np.arange(21), [[3.0], [30.0]])
    np.testing.assert_allclose(got, table / table.sum(-1, keepdims=True), rtol=1e-12)
    rows = RNG.dirichlet([1, 1, 1, 1], 2)
    got = run_op("pmf", rows, dist="categorical", form="", lo=1, hi=3)
    np.testing.assert_allclose(got, rows[:, 1:3] / rows[:, 1:3].sum(-1, keepdims=True))


N = symbol("N")


@pytest.mark.parametrize(
    ("op", "types", "attrs", "code"),
    [
        ("log_prob", [("f32", (N,))], {"dist": "normale", "form": ""}, "E601"),
        ("log_prob", [("f32", (N,)), ("f32", ())], {"dist": "normal", "form": ""}, "E407"),
        (
            "log_prob",
            [("f32", ()), ("f64", ()), ("f64", ())],
            {"dist": "normal", "form": ""},
            "E104",
        ),
        (
            "log_prob",
            [("f32", ()), ("i32", ()), ("f32", ())],
            {"dist": "normal", "form": ""},
            "E104",
        ),
        (
            "log_prob",
            [("f32", (2,)), ("f32", (3,)), ("f32", ())],
            {"dist": "normal", "form": ""},
            "E103",
        ),
        (
            "log_prob",
            [("f32", (3,)), ("f32", (2,)), ("f32", (2, 2))],
            {"dist": "mvnormal", "form": ""},
            "E103",
        ),
        (
            "log_prob",
            [("f32", (2,)), ("f32", (2,)), ("f32", (2, 3))],
            {"dist": "mvnormal", "form": ""},
            "E103",
        ),
        ("log_prob", [("i32", ()), ("f32", ())], {"dist": "categorical", "form": ""}, "E101"),
        ("log_prob", [("i32", ()), ("f32", ())], {"dist": "poisson", "form": "logits"}, "E601"),
        (
            "sample",
            [("f32", ())] * 3,
            {"dist": "normal", "form": "", "path": "", "shape": ()},
            "E104",
        ),
        (
            "sample",
            [("f32", (3,)), ("f32", ()), ("u64", (2,))],
            {"dist": "normal", "form": "", "path": "", "shape": (2,)},
            "E103",
        ),
        (
            "kl",
            [("f32", ())] * 4,
            {"p": "normal", "q": "laplace", "p_form": "", "q_form": ""},
            "E601",
        ),
        ("entropy", [("f32", ())] * 2, {"dist": "binomial", "form": ""}, "E601"),
        ("pmf", [("f32", ())] * 2, {"dist": "normal", "form": "", "lo": 0, "hi": 3}, "E601"),
        ("pmf", [("f32", ())], {"dist": "poisson", "form": "", "lo": 3, "hi": 3}, "E408"),
    ],
)
def test_faults(op, types, attrs, code) -> None:
    with pytest.raises(OpError) as caught:
        infer(op, [TensorType(dtype, shape) for dtype, shape in types], attrs)
    assert caught.value.code == code


def test_covariance_that_is_not_positive_definite(log_prob) -> None:
    with pytest.raises(OpError) as caught:
        log_prob("mvnormal", [0.0, 0.0], [0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
    assert caught.value.code == "E408"

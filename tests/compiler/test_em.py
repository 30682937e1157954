"""EM never falls, and keeps ties, fixed elements, priors and missing observations."""

import numpy as np
import pytest
import tilth
from tilth.program import load

HMM = """
input y : f64[T]
param pi : simplex[3]
param A : simplex[3, 3]
param mu : real[3]
param sigma : positive[3]
z[0] ~ categorical(pi)
z[t] ~ categorical(A[z[t-1]]) for t in 1..T
y[t] ~ normal(mu[z[t]], sigma[z[t]]) for t in 0..T
"""
TIED = HMM.replace("positive[3]", "positive").replace("sigma[z[t]]", "sigma")
MODELS = {
    "hmm": (HMM, (40,), float),
    "tied_scale": (TIED, (40,), float),
    "tied_mean": (HMM.replace("mu : real[3]", "mu : real").replace("mu[z[t]]", "mu"), (40,), float),
    "priors": (HMM + """
A[k] ~ dirichlet([2, 2, 3]) for k in 0..3
mu[k] ~ normal(1, 0.5) for k in 0..3
""", (40,), float),
    "counts": ("""
input y : i32[M]
param w : simplex[3]
param rate : positive[3]
rate[k] ~ gamma(2, 0.5) for k in 0..3
c[n] ~ categorical(w) for n in 0..M
y[n] ~ poisson(rate[c[n]]) for n in 0..M
""", (40,), int),
    "waits": ("""
input y : f64[M]
param w : unit
param rate : positive[2] = [0.5, 3]
c[n] ~ bernoulli(w) for n in 0..M
y[n] ~ exponential(rate[c[n]]) for n in 0..M
""", (40,), abs),
    "topics": ("""
input y : i32[M, 7]
param theta : simplex[2, 3]
param phi : simplex[3, 5]
c[d] ~ categorical([0.4, 0.6]) for d in 0..M
k[d, n] ~ categorical(theta[c[d]]) for d in 0..M, n in 0..7
y[d, n] ~ categorical(phi[k[d, n]]) for d in 0..M, n in 0..7
""", (6, 7), int),
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    def make(text):
        path = tmp_path / "m.yaml"
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        path.write_text(f"tilth: 1\nname: m\nmodel: |\n{body}")
        return load(path)

    return make


def draw(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    if kind is int:
        return rng.integers(0, 5, shape)
    values = np.where(rng.random(shape) < 0.5, 3.0, -1.0) + rng.normal(size=shape)
    return np.abs(values) if kind is abs else values


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_objective_never_falls(model, name, seed):
    text, shape, kind = MODELS[name]
    found = model(text).fit(
        {"y": draw(shape, kind, seed)}, seed=seed, iterations=15, tol=-np.inf, floor=1e-3
    )
    steps = np.diff(found.history)
    assert np.all(steps >= -1e-9 * np.abs(found.history[0]))
    assert found.history[-1] > found.history[0] + 1e-3


def test_an_m_step_is_a_stationary_point_of_what_it_maximises(model):
    # At a maximum of EM no small change of any parameter is better.
    program = model(MODELS["priors"][0])
    data = {"y": draw((40,), float)}
    found = program.fit(data, iterations=3000, tol=1e-12)
    best = found.history[-1]
    value = lambda w: sum(map(float, program.query(data, ["loglik", "logprior"], w).values()))  # noqa: E731
    assert value(found.params) == pytest.approx(best, abs=1e-9)
    rng = np.random.default_rng(1)
    for path in ("mu", "sigma"):
        moved = {**found.params, path: found.params[path] + rng.normal(size=3) * 1e-4}
        assert value(moved) <= best + 1e-9
    rows = found.params["A"] + rng.normal(size=(3, 3)) * 1e-4
    assert (
        value({**found.params, "A": np.abs(rows) / np.abs(rows).sum(1, keepdims=True)})
        <= best + 1e-9
    )


def test_sequences_count_together(model):
    program = model(HMM)
    a, b = draw((20,), float, 1), draw((31,), float, 2)
    start = program.initial_weights(0)
    both = program.fit([{"y": a}, {"y": b}], start, iterations=1, tol=-np.inf)
    parts = [program.query({"y": y}, ["loglik", "marginals(z)"], start) for y in (a, b)]
    assert both.history[0] == pytest.approx(sum(float(p["loglik"]) for p in parts))
    gamma = np.concatenate([p["marginals(z)"] for p in parts])
    want = gamma.T @ np.concatenate([a, b]) / gamma.sum(0)
    np.testing.assert_allclose(both.params["mu"], want, atol=1e-12)
    first = sum(p["marginals(z)"][0] for p in parts)
    np.testing.assert_allclose(both.params["pi"], first / 2, atol=1e-12)


def test_what_is_fixed_stays(model):
    program = model(HMM)
    data, start = {"y": draw((40,), float)}, program.initial_weights(0)
    mask = np.zeros((3, 3), bool)
    mask[0, 1] = True
    found = program.fit(data, start, iterations=5, tol=-np.inf, fixed={"A": mask, "mu": True})
    assert found.params["A"][0, 1] == start["A"][0, 1]
    np.testing.assert_array_equal(found.params["mu"], start["mu"])
    np.testing.assert_allclose(found.params["A"].sum(1), 1)
    assert np.all(np.diff(found.history) >= -1e-9)
    zero = {**start, "A": np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]])}
    found = program.fit(data, zero, iterations=5, tol=-np.inf, floor=1e-3)
    np.testing.assert_array_equal(found.params["A"][zero["A"] == 0], 0)


def test_missing_observations_add_nothing(model):
    program = model("""
input x : f64[M, 2]
param w : simplex[2]
param mu : real[2, 2]
param sd : positive[2, 2]
c[n] ~ categorical(w) for n in 0..M
x[n] ~ normal(mu[c[n]], sd[c[n]]) for n in 0..M
""")  # fmt: skip
    x = draw((30, 2), float)
    more = np.concatenate([x, np.full((4, 2), np.nan)])
    start = program.initial_weights(0)
    a = program.fit({"x": x}, start, iterations=1, tol=-np.inf)
    b = program.fit({"x": more}, start, iterations=1, tol=-np.inf)
    np.testing.assert_allclose(a.params["mu"], b.params["mu"], atol=1e-12)
    np.testing.assert_allclose(a.params["sd"], b.params["sd"], atol=1e-12)
    x[3, 1] = np.nan
    found = program.fit({"x": x}, start, iterations=10, tol=-np.inf)
    assert np.all(np.isfinite(found.history)) and np.all(np.diff(found.history) >= -1e-9)


def test_far_from_zero_nothing_cancels(model):
    program = model(HMM)
    y, start = draw((40,), float), program.initial_weights(0)
    far = {**start, "mu": start["mu"] + 1e8}
    near = program.fit({"y": y}, start, iterations=3, tol=-np.inf)
    moved = program.fit({"y": y + 1e8}, far, iterations=3, tol=-np.inf)
    np.testing.assert_allclose(moved.params["sigma"], near.params["sigma"], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HMM.replace("normal(mu[z[t]]", "laplace(mu[z[t]]"), "laplace has no closed form for `mu`"),
        (HMM.replace("A[z[t-1]])", "softmax(A[z[t-1]]))"), "`A` is learnt by gradient"),
        (HMM + "mu[k] ~ laplace(0, 1) for k in 0..3", "laplace is no conjugate prior of `mu`"),
    ],
)
def test_what_has_no_closed_form_is_refused(model, text, said):
    with pytest.raises(tilth.SpecError) as caught:
        model(text).fit({"y": draw((9,), float)})
    assert "error[E612]" in str(caught.value) and said in str(caught.value)


def test_a_spread_that_collapses_is_refused(model):
    y = np.array([0.0, 0.0, 5.0, 5.0, 5.0])
    program = model(HMM)
    weights = program.initial_weights(0)
    weights["mu"], weights["sigma"] = np.array([0.0, 5.0, 2.0]), np.full(3, 0.01)
    with pytest.raises(tilth.SpecError) as caught:
        program.fit({"y": y}, weights, iterations=50, tol=-np.inf)
    assert "error[E612]: `sigma` collapsed" in str(caught.value)
    found = program.fit({"y": y}, weights, iterations=50, tol=-np.inf, floor=0.01)
    assert found.params["sigma"].min() >= 0.01

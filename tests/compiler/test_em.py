"""EM never falls, and keeps ties, fixed elements, priors and missing observations."""

import numpy as np
import pytest
import tilth
from tilth.execution import Execution
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


@pytest.mark.parametrize(("tol", "rounds"), [(-np.inf, 12), (1e-2, 400)])
def test_the_last_objective_is_that_of_the_parameters(model, tol, rounds):
    # Whether the rounds ran out or the objective came to rest; kernels and reference alike.
    program = model(MODELS["priors"][0])
    data = {"y": draw((40,), float)}
    for engine in ("reference", "cpu"):
        found = program.fit(data, iterations=rounds, tol=tol, engine=engine)
        asked = program.query(data, ["loglik", "logprior"], found.params)
        assert found.history[-1] == pytest.approx(sum(map(float, asked.values())), abs=1e-10)
        assert found.converged == (tol > 0) == (len(found.history) <= rounds)


def test_n_rounds_are_n_expectations(model, monkeypatch):
    program, taken = model(HMM), []
    ran = Execution.run

    def run(self, *arrays, **more):
        found = ran(self, *arrays, **more)
        taken.append("e" if len(found) > 2 else "objective")
        return found

    monkeypatch.setattr(Execution, "run", run)
    assert len(program.fit({"y": draw((40,), float)}, iterations=3, tol=-np.inf).history) == 4
    assert taken == ["e", "e", "e", "objective"]


def test_what_is_kept_between_fits_changes_nothing(model):
    program, other = model(HMM), draw((40,), float, 5)
    labelled = model("""
input c : i32[M]
input y : f64[M]
param mu : real[2]
y[n] ~ normal(mu[c[n]], 1) for n in 0..M
""")  # fmt: skip
    program.fit({"y": draw((40,), float)}, iterations=2, fixed={"mu": True})
    again = program.fit({"y": other}, iterations=2, tol=-np.inf)
    fresh = model(HMM).fit({"y": other}, iterations=2, tol=-np.inf)
    assert again.history == fresh.history
    for labels in ([0, 0, 1, 1], [0, 1, 1, 1]):
        data = {"c": np.array(labels, np.int32), "y": np.array([1.0, 2, 3, 4])}
        found = labelled.fit(data, iterations=1).params["mu"]
        means = [data["y"][data["c"] == k].mean() for k in range(2)]
        np.testing.assert_allclose(found, means)


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


DRIVEN = """
input u : f64[T, 2]
input y : f64[T]
param W : real[2, 2, 2]
param mu : real[2]
param sd : positive[2]
z[0] ~ categorical([0.5, 0.5])
z[t] ~ categorical(softmax(W[z[t-1]] @ u[t])) for t in 1..T
y[t] ~ normal(mu[z[t]], sd[z[t]]) for t in 0..T
"""
REGRESSIONS = """
input x : f64[M, 2]
input y : f64[M]
param w : simplex[2]
param b : real[2, 2]
param sd : positive[2]
c[n] ~ categorical(w) for n in 0..M
y[n] ~ normal(sum{d} b[c[n], d] * x[n, d], sd[c[n]]) for n in 0..M
"""


def of_scalars(distribution, params, kind="f64"):
    lines = "".join(f"param {line}\n" for line in params)
    return f"""
input y : {kind}[M]
param w : simplex[2]
{lines}c[n] ~ categorical(w) for n in 0..M
y[n] ~ {distribution} for n in 0..M
"""


CLIMBED = {
    "laplace": of_scalars("laplace(mu[c[n]], b[c[n]])",
                          ["mu : real[2] = [-1.3, 2.2]", "b : positive[2]"]),
    "student_t": of_scalars("student_t(nu, mu[c[n]], sd)",
                            ["nu : positive", "mu : real[2]", "sd : positive"]),
    "cauchy": of_scalars("cauchy(mu[c[n]], b)", ["mu : real[2]", "b : positive"]),
    "gamma": of_scalars("gamma(a[c[n]], r[c[n]])",
                        ["a : positive[2] = [1, 3]", "r : positive[2]"]),
    "negative_binomial": of_scalars("negative_binomial(r[c[n]], p[c[n]])",
                                    ["r : positive[2] = [1, 3]", "p : unit[2]"], "i32"),
    "beta": of_scalars("beta(a[c[n]], b[c[n]])",
                       ["a : positive[2] = [1, 3]", "b : positive[2]"]),
    "gig": of_scalars("generalised_inverse_gaussian(0.7, a[c[n]], b)",
                      ["a : positive[2] = [1, 3]", "b : positive"]),
    "logits": of_scalars("categorical(logits=v[c[n]])", ["v : real[2, 5]"], "i32"),
    "log_scale": of_scalars("normal(mu[c[n]], exp(s[c[n]]))", ["mu : real[2]", "s : real[2]"]),
    "no_conjugate_prior": HMM + "mu[k] ~ laplace(0, 1) for k in 0..3",
    "prior_with_parameters": HMM.replace("param mu", "param m : real\nparam mu")
    + "mu[k] ~ normal(m, 1) for k in 0..3",
    "driven": DRIVEN,
    "regressions": REGRESSIONS,
    "tied_mean_of_vectors": """
input x : f64[M, 2]
param w : simplex[2]
param mu : real[2]
param cov : posdef[2, 2, 2]
c[n] ~ categorical(w) for n in 0..M
x[n] ~ mvnormal(mu, cov[c[n]]) for n in 0..M
""",
    "scaled_covariance": """
input x : f64[M, 2]
param w : simplex[2]
param mu : real[2, 2]
param cov : posdef[2, 2]
param s : positive[2]
c[n] ~ categorical(w) for n in 0..M
x[n] ~ mvnormal(mu[c[n]], s[c[n]] * cov) for n in 0..M
""",
}  # fmt: skip


def data_of(name, seed, count=20):
    rng = np.random.default_rng(seed)
    y = draw((count,), float, seed)
    if name in ("gamma", "gig"):
        return {"y": np.abs(y) + 0.1}
    if name in ("negative_binomial", "logits"):
        return {"y": rng.integers(0, 5, count)}
    if name == "beta":
        return {"y": 1 / (1 + np.exp(-y))}
    if name == "driven":
        return {"y": y, "u": rng.normal(size=(count, 2))}
    if name == "regressions":
        x = rng.normal(size=(count, 2))
        slopes = np.array([[2.0, 1.0], [-1.0, 3.0]])[rng.integers(0, 2, count)]
        return {"x": x, "y": np.sum(x * slopes, 1) + 0.1 * rng.normal(size=count)}
    if name in ("tied_mean_of_vectors", "scaled_covariance"):
        return {"x": rng.normal(size=(count, 2)) * rng.choice([0.3, 2], (count, 1))}
    return {"y": y}


LONG = ("beta", "gig", "negative_binomial", "student_t")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in CLIMBED]
)
def test_what_has_no_closed_form_is_raised_by_gradient(model, name):
    program = model(CLIMBED[name])
    data = [data_of(name, 0), data_of(name, 1, 13)]
    found = program.fit(data, iterations=5, tol=-np.inf, floor=1e-3)
    assert np.all(np.diff(found.history) >= -1e-9 * np.abs(found.history[0]))
    assert found.history[-1] > found.history[0] + 1e-3
    start = program.initial_weights(0)
    moved = [path for path, array in found.params.items() if np.any(array != start[path])]
    assert set(moved) == set(start)


@pytest.mark.parametrize("name", ["driven", "scaled_covariance"])
def test_an_ascent_comes_to_a_stationary_point(model, name):
    program = model(CLIMBED[name])
    data = data_of(name, 0)
    found = program.fit(data, iterations=600, tol=1e-10, floor=1e-3)
    value = lambda w: float(program.query(data, ["loglik"], w)["loglik"])  # noqa: E731
    best, rng = value(found.params), np.random.default_rng(1)
    for path, array in found.params.items():
        step = 1e-4 * rng.normal(size=array.shape)
        if path in ("w", "cov"):
            step = step * 0
        assert value({**found.params, path: array + step}) <= best + 1e-6


def test_regressions_come_out(model):
    found = model(REGRESSIONS).fit(data_of("regressions", 0, 200), iterations=100)
    slopes = found.params["b"][np.argsort(found.params["b"][:, 0])]
    np.testing.assert_allclose(slopes, [[-1, 3], [2, 1]], atol=0.1)


def test_what_is_fixed_stays_when_it_is_raised_by_gradient(model):
    program = model(CLIMBED["driven"].replace("softmax(W[z[t-1]] @ u[t])", "A[z[t-1]]").replace(
        "param W : real[2, 2, 2]", "param A : simplex[2, 2]"
    ).replace("normal(", "laplace("))  # fmt: skip
    data, start = data_of("driven", 0), program.initial_weights(0)
    mask = np.array([True, False])
    found = program.fit(data, start, iterations=5, tol=-np.inf, fixed={"mu": mask, "A": True})
    assert found.params["mu"][0] == start["mu"][0] != found.params["mu"][1]
    np.testing.assert_array_equal(found.params["A"], start["A"])
    cov = model(CLIMBED["scaled_covariance"])
    with pytest.raises(tilth.SpecError) as caught:
        cov.fit(data_of("scaled_covariance", 0), fixed={"cov": np.eye(2)})
    assert "error[E612]: `cov` is learnt by gradient and fixed in part" in str(caught.value)


def test_classes_of_several_sequences_choose_parameters(model):
    program = model("""
input c : i32[M]
input y : f64[M]
param mu : real[3]
param sd : positive[3]
y[n] ~ normal(mu[c[n]], sd[c[n]]) for n in 0..M
""")  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [{"c": rng.integers(0, 3, n), "y": rng.normal(size=n)} for n in (9, 14, 20)]
    found = program.fit(rows, iterations=3)
    c, y = (np.concatenate([row[name] for row in rows]) for name in ("c", "y"))
    for k in range(3):
        assert found.params["mu"][k] == pytest.approx(y[c == k].mean(), abs=1e-12)
        assert found.params["sd"][k] == pytest.approx(y[c == k].std(), abs=1e-12)


def test_parameters_of_factors_are_refused(model):
    program = model("""
input y : f64[T]
param A : real[2, 2]
param mu : real[2]
z[t] ~ labels(2) for t in 0..T
factor A[z[t-1], z[t]] for t in 1..T
y[t] ~ normal(mu[z[t]], 1) for t in 0..T
""")  # fmt: skip
    with pytest.raises(tilth.SpecError) as caught:
        program.fit({"y": draw((9,), float)})
    assert "m.yaml:8:3: error[E612]: `A` is in a factor, whose normaliser EM does not know" in str(
        caught.value
    )
    found = program.fit({"y": draw((9,), float)}, iterations=3, fixed=["A"])
    assert np.all(np.diff(found.history) >= 0)


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

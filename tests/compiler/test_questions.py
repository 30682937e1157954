"""Statistics, predictive distributions, draws and divergences against enumeration."""

import itertools

import numpy as np
import pytest
import tilth
from test_exact_inference import MODELS, data_for, model  # noqa: F401
from tilth.compiler.inference.enumeration import enumerate_model
from tilth.program import load

RNG = np.random.default_rng(11)
T, K, D = 5, 3, 2


def hmm_weights(seed):
    rng = np.random.default_rng(seed)
    return {
        "pi": rng.dirichlet(np.ones(K)), "A": rng.dirichlet(np.ones(K), K),
        "mu": rng.normal(size=(K, D)), "sigma": rng.uniform(0.5, 1.5, (K, D)),
    }  # fmt: skip


def by_hand(y, w):
    """Every path of a Gaussian HMM with its posterior; nan is missing."""
    paths = np.array(list(itertools.product(range(K), repeat=len(y))))
    score = np.log(w["pi"][paths[:, 0]])
    for t in range(1, len(y)):
        score += np.log(w["A"][paths[:, t - 1], paths[:, t]])
    for t, row in enumerate(y):
        z = (row - w["mu"]) / w["sigma"]
        log = -0.5 * z * z - np.log(w["sigma"]) - 0.5 * np.log(2 * np.pi)
        score += np.where(np.isnan(row), 0, log).sum(-1)[paths[:, t]]
    p = np.exp(score - score.max())
    return paths, p / p.sum()


@pytest.fixture
def hmm():
    y = RNG.normal(size=(T, D))
    y[2, 1] = y[4] = np.nan
    return load("hmm"), y, hmm_weights(0)


def test_expected_statistics(hmm):
    program, y, w = hmm
    found = program.query({"y": y}, ["statistics"], w)
    paths, p = by_hand(y, w)
    pairs, first = np.zeros((K, K)), np.zeros(K)
    count, total, square = (np.zeros((K, D)) for _ in range(3))
    for path, share in zip(paths, p, strict=True):
        first[path[0]] += share
        for a, b in itertools.pairwise(path):
            pairs[a, b] += share
        for t, k in enumerate(path):
            seen = ~np.isnan(y[t])
            count[k] += share * seen
            total[k] += share * np.where(seen, y[t], 0)
            square[k] += share * np.where(seen, y[t] ** 2, 0)
    for name, want in (
        ("z[0]", first), ("z[t]", pairs), ("y[t]).count", count), ("y[t]).sum", total),
        ("y[t]).square", square),
    ):  # fmt: skip
        name = f"statistics({name}" + ("" if "." in name else ")")
        np.testing.assert_allclose(found[name], want, atol=1e-12)
    assert len(found) == 5


def test_predictive_moments(hmm):
    program, y, w = hmm
    found = program.query({"y": y}, ["predictive"], w)
    paths, p = by_hand(y, w)
    mean = np.einsum("p,ptd->td", p, w["mu"][paths])
    square = np.einsum("p,ptd->td", p, w["mu"][paths] ** 2 + w["sigma"][paths] ** 2)
    np.testing.assert_allclose(found["predictive(y).mean"], mean, atol=1e-12)
    np.testing.assert_allclose(found["predictive(y).variance"], square - mean**2, atol=1e-12)


def test_predictive_outcomes():
    program = load("hmm_categorical")
    rng = np.random.default_rng(2)
    w = {"pi": rng.dirichlet(np.ones(3)), "A": rng.dirichlet(np.ones(3), 3),
         "B": rng.dirichlet(np.ones(4), 3)}  # fmt: skip
    o = np.array([1.0, 3, np.nan, 0])
    found = program.query({"o": o}, ["predictive(o)", "marginals(z)"], w)
    want = found["marginals(z)"] @ w["B"]
    np.testing.assert_allclose(found["predictive(o)"], want, atol=1e-12)
    # Of a value that is missing it is its posterior: the share of the likelihood of each value.
    filled = []
    for value in range(4):
        row = o.copy()
        row[2] = value
        filled.append(np.exp(program.query({"o": row}, ["loglik"], w)["loglik"]))
    np.testing.assert_allclose(found["predictive(o)"][2], filled / np.sum(filled), atol=1e-12)


def test_statistics_of_vectors_and_factors(model):  # noqa: F811
    program = model("""
  input x : f64[M, 2]
  param mu : real[2, 2]
  param J : real[2, 2]
  z[n] ~ labels(2) for n in 0..M
  factor J[z[n-1], z[n]] for n in 1..M
  x[n] ~ mvnormal(mu[z[n]], [[1.5, 0.2], [0.2, 0.8]]) for n in 0..M
""")
    x = RNG.normal(size=(4, 2)) + 3
    w = {"mu": RNG.normal(size=(2, 2)), "J": RNG.normal(size=(2, 2))}
    found = program.query({"x": x}, ["statistics", "marginals(z)"], w)
    gamma = found["marginals(z)"]
    np.testing.assert_allclose(found["statistics(x[n]).count"], gamma.sum(0), atol=1e-12)
    np.testing.assert_allclose(found["statistics(x[n]).sum"], gamma.T @ x, atol=1e-12)
    square = np.einsum("nk,ni,nj->kij", gamma, x, x)
    np.testing.assert_allclose(found["statistics(x[n]).square"], square, atol=1e-11)
    (pairs,) = (a for name, a in found.items() if "factor" in name)
    np.testing.assert_allclose(pairs.sum(1), gamma[:-1].sum(0), atol=1e-12)
    np.testing.assert_allclose(pairs.sum(0), gamma[1:].sum(0), atol=1e-12)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_divergence_of_posteriors_is_that_of_enumeration(model, name):  # noqa: F811
    text, sizes = MODELS[name]
    program = model(text)
    inputs, params = data_for(program, sizes)
    _, others = data_for(program, sizes, seed=1)
    p = enumerate_model(program.graph, inputs, params).posterior
    q = enumerate_model(program.graph, inputs, others).posterior
    want = np.sum(p * np.log(p / q))
    assert program.kl(params, others, inputs) == pytest.approx(want, abs=1e-9)
    assert program.kl(params, params, inputs) == pytest.approx(0, abs=1e-9)


def test_divergence_of_a_whole_model():
    program, size = load("hmm_categorical"), 3
    rng = np.random.default_rng(3)
    w, v = ({"pi": rng.dirichlet(np.ones(3)), "A": rng.dirichlet(np.ones(3), 3),
             "B": rng.dirichlet(np.ones(4), 3)} for _ in range(2))  # fmt: skip
    want = 0.0
    for z in itertools.product(range(3), repeat=size):
        for o in itertools.product(range(4), repeat=size):
            logs = [
                np.log(x["pi"][z[0]] * np.prod([x["A"][a, b] for a, b in itertools.pairwise(z)])
                       * np.prod([x["B"][k, i] for k, i in zip(z, o, strict=True)]))
                for x in (w, v)
            ]  # fmt: skip
            want += np.exp(logs[0]) * (logs[0] - logs[1])
    assert program.kl(w, v, sizes={"T": size}) == pytest.approx(want, abs=1e-10)
    # An impossible transition that the other model takes: infinitely far.
    v["A"] = np.eye(3)
    assert program.kl(w, v, sizes={"T": size}) == np.inf


def test_divergence_of_two_specs(model, tmp_path):  # noqa: F811
    program = load("hmm")
    y, w = RNG.normal(size=(T, D)), hmm_weights(0)
    heavy = (tmp_path / "heavy.yaml").resolve()
    source = program.sources[next(iter(program.sources))]
    heavy.write_text(source.replace("normal(mu[k], sigma[k])", "student_t(4, mu[k], sigma[k])"))
    other = load(heavy)
    p, q = (enumerate_model(m.graph, {"y": y}, w).posterior for m in (program, other))
    found = program.kl(w, w, {"y": y}, other=other)
    assert found == pytest.approx(np.sum(p * np.log(p / q)), abs=1e-10)
    with pytest.raises(tilth.SpecError) as caught:
        program.kl(w, w, other=other, sizes={"T": 3})
    assert "error[E601]: kl: no closed form for normal and student_t" in str(caught.value)
    gmm, weights = load("gmm"), load("gmm").initial_weights(0)
    with pytest.raises(tilth.SpecError) as caught:
        program.kl(w, weights, other=gmm, sizes={"T": 3, "N": 3})
    assert "error[E613]: only one of the two models has `p(x[n] | z[n])`" in str(caught.value)


def test_several_sequences_are_asked_at_once(hmm):
    program, y, w = hmm
    rows = [{"y": y}, {"y": y[:3]}, {"y": y[1:]}]
    found = program.query(rows, ["loglik", "map"], w)
    for row, answers in zip(rows, found, strict=True):
        alone = program.query(row, ["loglik", "map"], w)
        assert answers["loglik"] == alone["loglik"]
        np.testing.assert_array_equal(answers["map(z)"], alone["map(z)"])


def test_the_likelihood_of_each_element_of_a_plate():
    program, x = load("gmm"), RNG.normal(size=(6, 2))
    w = program.initial_weights(0)
    found = program.query({"x": x}, ["loglik", "loglik(n)"], w)
    assert found["loglik(n)"].sum() == pytest.approx(found["loglik"])
    for row, log in zip(x, found["loglik(n)"], strict=True):
        assert program.query({"x": row[None]}, ["loglik"], w)["loglik"] == pytest.approx(log)
    for asked, said in (("loglik(t)", "`t` is no plate of the whole model"),
                        ("entropy(z)", "`entropy` is about the whole model")):  # fmt: skip
        with pytest.raises(tilth.SpecError) as caught:
            load("hmm").query({"y": x}, [asked])
        assert said in str(caught.value)


# ---------------------------------------------------------------- draws

BATCHED = """
  input y : f64[N, T, 2]
  param pi : simplex[3]
  param A : simplex[3, 3]
  param mu : real[3, 2]
  param sigma : positive[3, 2]
  z[0] ~ categorical(pi)
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  y[t] ~ normal(mu[z[t]], sigma[z[t]]) for t in 0..T
"""


def close(found, want, spread, count):
    """Within five standard errors of what is expected."""
    assert np.all(np.abs(np.asarray(found) - want) < 5 * spread / np.sqrt(count))


def test_joint_draws_follow_the_model(model):  # noqa: F811
    program, w, count = model(BATCHED), hmm_weights(0), 20_000
    drawn = program.simulate({"N": count, "T": 3}, w, seed=5)
    z, y = drawn["z"], drawn["y"]
    assert z.shape == (count, 3) and y.shape == (count, 3, 2)
    joint = np.zeros((K, K, K))
    np.add.at(joint, tuple(z.T), 1 / count)
    want = w["pi"][:, None, None] * w["A"][:, :, None] * w["A"]
    close(joint, want, 0.5, count)
    residual = (y - w["mu"][z]) / w["sigma"][z]
    close(residual.mean((0, 1)), 0, 1, 3 * count)
    close((residual**2).mean((0, 1)), 1, np.sqrt(2), 3 * count)
    # Noise of one element tells nothing of the next or of the path.
    close(np.mean(residual[:, 0] * residual[:, 1]), 0, 1, 2 * count)
    close([np.mean(residual[:, 1, 0] * (z[:, 2] == k)) for k in range(K)], 0, 1, count)
    again = program.simulate({"N": count, "T": 3}, w, seed=5)
    np.testing.assert_array_equal(again["y"], y)
    assert not np.array_equal(program.simulate({"N": count, "T": 3}, w, seed=6)["z"], z)


def test_posterior_samples_and_replicates(model):  # noqa: F811
    program, w, count = model(BATCHED), hmm_weights(0), 20_000
    y = RNG.normal(size=(3, 2))
    y[1] = np.nan
    paths, p = by_hand(y, w)
    many = np.broadcast_to(y, (count, 3, 2))
    found = program.query({"y": many}, ["sample", "replicate"], w, seed=1)
    z = found["sample(z)"]
    shares = [np.mean(np.all(z == path, axis=1)) for path in paths]
    close(shares, p, 0.5, count)
    residual = (found["replicate(y)"] - w["mu"][z]) / w["sigma"][z]
    close(residual.mean((0, 1)), 0, 1, 3 * count)
    close((residual**2).mean((0, 1)), 1, np.sqrt(2), 3 * count)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_simulated(model, name):  # noqa: F811
    text, sizes = MODELS[name]
    program = model(text)
    inputs, params = data_for(program, sizes)
    drawn = program.query(inputs, ["replicate"], params)
    observed = {key.partition("(")[2][:-1] for key in drawn}
    given = {key: array for key, array in inputs.items() if key not in observed}
    found = program.simulate(sizes, params, given=given)
    for key in observed:
        assert found[key].shape == inputs[key].shape
        assert found[key].dtype.kind == inputs[key].dtype.kind
    data = {key: found.get(key, array) for key, array in inputs.items()}
    if name == "two_seasons":  # some of its `y` are never drawn
        assert np.all(np.isnan(data["y"][[0, 5]]))
        data["y"][[0, 5]] = 0
    assert np.all(np.isfinite(program.query(data, ["loglik"], params)["loglik"]))


def test_what_cannot_be_drawn_at_once(model):  # noqa: F811
    program = model("""
  input y : f64[T]
  z ~ categorical([0.5, 0.5])
  y[0] ~ normal(0, 1)
  y[t] ~ normal(y[t-1] + z, 1) for t in 1..T
""")
    with pytest.raises(tilth.SpecError) as caught:
        program.simulate({"T": 4})
    assert "error[E804]: `y[t]` depends on `y`, which is drawn" in str(caught.value)
    with pytest.raises(tilth.SpecError) as caught:
        program.simulate()
    assert "error[E805]: the size `T` has no value" in str(caught.value)
    with pytest.raises(tilth.SpecError) as caught:
        program.simulate({"T": 4}, given={"y": np.zeros(4)})
    assert "error[E802]: `y` is no input that is given" in str(caught.value)


# ---------------------------------------------------------------- given values


@pytest.mark.parametrize("name", ["hmm", "tree", "all_pairs", "mixture_emissions", "nested_plates"])
def test_latent_variables_may_be_given(model, name):  # noqa: F811
    text, sizes = MODELS[name]
    program = model(text)
    inputs, params = data_for(program, sizes)
    truth = enumerate_model(program.graph, inputs, params)
    drawn = program.query(inputs, ["sample"], params, seed=4)
    given = {key[len("sample(") : -1]: array for key, array in drawn.items()}
    # All of them: the joint density, which is a term of the sum.
    joint = program.query({**inputs, **given}, ["loglik"], params)["loglik"]
    joined = [given[f].ravel() for f in truth.marginals]
    place = np.all(np.concatenate(joined) == truth.assignments.T, axis=1)
    posterior = truth.posterior[0]
    assert joint == pytest.approx(truth.loglik + np.log(posterior[place][0]), abs=1e-9)
    # One element: the share of the assignments that have it.
    key = next(iter(truth.marginals))
    some = np.full(given[key].shape, np.nan)
    spot = (0,) * some.ndim
    some[spot] = given[key][spot]
    held = posterior[truth.assignments[0] == given[key][spot]].sum()
    found = program.query({**inputs, key: some}, ["loglik", f"marginals({key})"], params)
    assert found["loglik"] == pytest.approx(truth.loglik + np.log(held), abs=1e-9)
    assert found[f"marginals({key})"][spot][given[key][spot]] == pytest.approx(1)


def test_the_log_probability_of_a_labelling_of_a_tree(model):  # noqa: F811
    text, sizes = MODELS["tree"]
    program = model(text + "\n  input label : i32[6]\n  output nll = -logp(x = label)")
    inputs, params = data_for(program, sizes)
    label = np.array([0, 2, 1, 1, 0, 2], np.int32)
    found = program.run({**inputs, "label": label}, params)["nll"]
    truth = enumerate_model(program.graph, {**inputs, "label": label}, params)
    place = np.all(label == truth.assignments.T, axis=1)
    assert found == pytest.approx(-np.log(truth.posterior[0][place][0]), abs=1e-9)


def test_given_classes_are_learnt_from():
    program = load("naive_bayes", set={"C": 2, "D": 2})
    c = RNG.integers(0, 2, 30)
    x = RNG.normal(size=(30, 2)) + 3 * c[:, None]
    found = program.fit({"x": x, "c": c}, iterations=3)
    for k in range(2):
        np.testing.assert_allclose(found.params["mu"][k], x[c == k].mean(0), atol=1e-12)
        np.testing.assert_allclose(found.params["sigma"][k], x[c == k].std(0), atol=1e-12)
    np.testing.assert_allclose(found.params["prior"][1], c.mean())
    assert found.converged and len(found.history) == 3
    with pytest.raises(tilth.SpecError) as caught:
        program.query({"x": x, "c": c + 1}, ["loglik"])
    text, spot = str(caught.value), int(np.argmax(c == 1))
    assert "naive_bayes.yaml:15:3: error[E611]: `c` has a value that it cannot take" in text
    assert f"c[{spot}] is 2; it takes 0 to 1" in text

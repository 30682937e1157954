"""Belief propagation and Gibbs sampling against goldens, exact inference and enumeration."""

from pathlib import Path

import numpy as np
import pytest
from tilth.program import load
from tilth.spec.diagnostics import SpecError

GOLDEN = Path(__file__).parents[1] / "golden" / "graphical"
HEAD = "tilth: 1\nname: m\nmodel: |\n"


@pytest.fixture
def model(tmp_path):
    def make(text):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        (tmp_path / "m.yaml").write_text(HEAD + body)
        return load(tmp_path / "m.yaml")

    return make


def pairwise(z, output):
    count, states = z["unary"].shape
    rows = "\n".join(
        f"factor w[{e}, x[{i}], x[{j}]]" for e, (i, j) in enumerate(z["edges"].tolist())
    )
    return f"""
input u : f64[{count}, {states}]
input w : f64[{len(z["edges"])}, {states}, {states}]
x[i] ~ labels({states}) for i in 0..{count}
factor u[i, x[i]] for i in 0..{count}
{rows}
output {output}
"""


def golden(case):
    with np.load(GOLDEN / f"{case}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", ["bp_chain6", "bp_tree8", "bp_grid3x4"])
def test_messages_are_those_of_the_flooding_schedule(model, case):
    z = golden(case)
    given = {"u": z["unary"], "w": z["pairwise"]}
    for place, steps in enumerate(z["iters_stored"].tolist()):
        text = f"p = bp(x, steps={steps}), m = bp(x, steps={steps}, semiring=max_sum)"
        found = model(pairwise(z, text)).run(given)
        np.testing.assert_allclose(np.log(found["p"]), z["bp_log_beliefs"][place], atol=1e-10)
        np.testing.assert_allclose(found["m"], z["maxsum_beliefs"][place], atol=1e-10)


@pytest.mark.parametrize("case", ["bp_chain6", "bp_tree8"])
def test_trees_are_exact_and_say_that_they_converged(model, case):
    z = golden(case)
    text = "p = bp(x, steps=30, tol=1e-12), m = bp(x, steps=30, semiring=max_sum)"
    found = model(pairwise(z, text)).run({"u": z["unary"], "w": z["pairwise"]})
    np.testing.assert_allclose(found["p"], z["exact_marginals"], atol=1e-12)
    np.testing.assert_array_equal(found["m"].argmax(1), z["map_assignment"])
    assert found["change of bp(x)"] < 1e-12


def test_few_steps_say_that_they_have_not_converged(model):
    z = golden("bp_grid3x4")
    found = model(pairwise(z, "p = bp(x, steps=2)")).run({"u": z["unary"], "w": z["pairwise"]})
    assert found["change of bp(x)"] > 1e-3


GRID = """
index i, j : grid(3, 4)
input b : f64[3, 4]
param J : real
x[i] ~ labels(2) for i in grid
factor b[i] * (2*x[i] - 1) for i in grid
factor J * (2*x[i] - 1) * (2*x[j] - 1) for (i, j) in neighbours(grid)
output p = {ask}{more}
"""


def fields():
    return {"b": np.random.default_rng(0).normal(size=(3, 4)) * 0.5}


def test_damped_beliefs_of_a_grid_are_near_the_exact_marginals(model):
    exact = model(GRID.format(ask="marginals(x)", more="")).run(fields(), {"J": np.array(0.3)})
    text = GRID.format(ask="bp(x, steps=200, damping=0.5, tol=1e-10)", more="")
    found = model(text).run(fields(), {"J": np.array(0.3)})
    assert found["change of bp(x)"] < 1e-10
    assert 1e-9 < np.abs(found["p"] - exact["p"]).max() < 0.02


def test_impossible_values_stay_impossible(model):
    program = model("""
input u : f64[4, 2]
x[i] ~ labels(2) for i in 0..4
factor u[i, x[i]] for i in 0..4
factor log(if x[i-1] == x[i] then 1 else 0) for i in 1..4
output p = bp(x, steps=10), q = marginals(x)
""")
    found = program.run({"u": np.random.default_rng(1).normal(size=(4, 2))})
    np.testing.assert_allclose(found["p"], found["q"], atol=1e-10)


@pytest.mark.parametrize("ask", ["meanfield(x)", "gibbs(x, steps=5)"])
def test_impossible_values_are_refused_where_they_have_no_answer(model, ask):
    program = model(f"""
input u : f64[4, 2]
x[i] ~ labels(2) for i in 0..4
factor u[i, x[i]] for i in 0..4
factor log(if x[i-1] == x[i] then 1 else 0) for i in 1..4
output p = {ask}
""")
    with pytest.raises(SpecError) as caught:
        program.run({"u": np.random.default_rng(1).normal(size=(4, 2))})
    text = str(caught.value)
    assert "m.yaml:8:" in text and f"error[E614]: `{ask.partition('(')[0]}(x)` is not" in text
    assert "its log is -inf" in text and "by `bp`" in text


def test_factors_of_three_variables(model):
    program = model("""
input u : f64[3, 3]
input t : f64[3, 3, 3]
x[i] ~ labels(3) for i in 0..3
factor u[i, x[i]] for i in 0..3
factor t[x[0], x[1], x[2]]
output p = bp(x, steps=4), q = marginals(x)
""")
    rng = np.random.default_rng(2)
    found = program.run({"u": rng.normal(size=(3, 3)), "t": rng.normal(size=(3, 3, 3))})
    np.testing.assert_allclose(found["p"], found["q"], atol=1e-12)


# ---------------------------------------------------------------- Gibbs sampling


def test_gibbs_marginals_are_within_their_sampling_error(model):
    text = GRID.format(ask="gibbs(x, steps=2000, burn=50)", more=", q = marginals(x)")
    found = model(text).run(fields(), {"J": np.array(0.25)}, seed=3)
    # Independent draws would be off by 0.011 at most (one standard deviation of a count).
    assert np.abs(found["p"] - found["q"]).max() < 0.03
    np.testing.assert_allclose(found["p"].sum(-1), 1, atol=1e-12)


def test_draws_depend_on_the_seed_alone(model):
    program = model(GRID.format(ask="gibbs(x, steps=20, burn=3, thin=2)", more=""))
    first, again, other = (
        program.run(fields(), {"J": np.array(0.2)}, seed=seed)["p"] for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize("more", ["", ", thin=2"])
def test_kernels_draw_what_the_reference_draws(model, more):
    # A draw that differs changes every later sweep, so agreement to rounding is the same draws.
    program = model(GRID.format(ask=f"gibbs(x, steps=60, burn=5{more})", more=""))
    want, found = (
        program.run(fields(), {"J": np.array(0.3)}, seed=4, engine=engine)["p"]
        for engine in ("reference", "cpu")
    )
    np.testing.assert_allclose(found, want, atol=1e-12)


def test_compiled_beliefs(model):
    program = model(GRID.format(ask="bp(x, steps=20, damping=0.3, tol=1e-7)", more=""))
    want = program.run(fields(), {"J": np.array(0.4)})
    found = program.run(fields(), {"J": np.array(0.4)}, engine="cpu")
    for name in want:
        np.testing.assert_allclose(found[name], want[name], atol=1e-9)


def test_a_grid_has_two_colours(model):
    from tilth.compiler.inference.expand import expand

    graph = expand(model(GRID.format(ask="gibbs(x, steps=2)", more="")).graph)
    (loop,) = (node for _, node in graph.of_op("iterate"))
    assert len(loop.regions[0].of_op("random_categorical")) == 2


def test_all_pairs_are_too_many_for_gibbs(model):
    program = model("""
input u : f64[80, 2]
x[i] ~ labels(2) for i in 0..80
factor u[i, x[i]] for i in 0..80
factor 0.1 * x[i] * x[j] for i in 0..80, j in 0..80 if i < j
output p = gibbs(x, steps=5)
""")
    with pytest.raises(SpecError, match="80 groups of elements one after another"):
        program.run({"u": np.zeros((80, 2))})

"""``tilth explain`` of mean field, belief propagation and Gibbs sampling: formulas and proofs."""

import numpy as np
import pytest
from tilth.compiler.inference import gibbs
from tilth.compiler.inference.local import Local
from tilth.program import load

GRID = """
index i, j : grid(2, 3)
input b : f64[2, 3]
param J : real = 0.6
x[i] ~ labels(2) for i in grid
factor b[i] * (2*x[i] - 1) for i in grid
factor J * (2*x[i] - 1) * (2*x[j] - 1) for (i, j) in neighbours(grid)
output p = {ask}
"""
CHAIN = """
input u : f64[T, 3]
param A : real[3, 3]
x[t] ~ labels(3) for t in 0..T
factor u[t, x[t]] for t in 0..T
factor A[x[t-1], x[t]] for t in 1..T
output p = {ask}
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(text, options=""):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        head = f"tilth: 1\nname: m\n{options}model: |\n"
        (tmp_path / "m.yaml").write_text(head + body)
        return load(tmp_path / "m.yaml")

    return make


def explained(program, methods=()):
    """The one approximation of a model, and its findings by their first words."""
    found = program.explain(methods=methods)
    (row,) = found.approximations
    assert row.agrees == found.agrees
    return row, {f.what: f for f in row.findings}


def one(findings, words):
    (found,) = [f for what, f in findings.items() if words in what]
    return found


def test_mean_field(model):
    row, findings = explained(model(GRID.format(ask="meanfield(x, steps=7, damping=0.2)")))
    text = "\n".join(row.steps)
    assert "q_x[i](v) <- softmax_v( log phi0(x[i]=v) + E_q[log phi1(x[i]=v, x[j])]" in text
    assert "+ H(q) <= log Z" in text and "7 times, 0.2 of the old q stays" in text
    assert one(findings, "7 updates by expectations").exact
    bound = one(findings, "is below log Z")
    assert bound.exact and bound.worst < 1e-12
    # Not exact: the grid has circles.
    assert one(findings, "marginals").worst > 1e-3
    # Seven tables of 2 x 2 values, two ways each; six elements of two values.
    assert row.cost == 7 * (7 * 4 * 4 + 12)
    assert row.agrees


def test_messages_around_a_circle(model):
    row, findings = explained(model(GRID.format(ask="bp(x, steps=60, damping=0.5, tol=1e-9)")))
    text = "\n".join(row.steps)
    assert "log sum_{x[j]} exp( log phi1(x[i]=v, x[j]) + b_x[j] - m_{phi1->x[j]} )" in text
    assert "or until none changes by 1e-09, 0.5 of the old log-message stays" in text
    assert one(findings, "60 rounds").exact and row.agrees
    assert one(findings, "marginals").worst > 1e-4
    assert one(findings, "Bethe").worst > 1e-4
    assert not any("tree" in what for what in findings)


def test_messages_of_a_chain_are_exact(model):
    for ask in ("bp(x, steps=9)", "bp(x, steps=9, semiring=max_sum)"):
        row, findings = explained(model(CHAIN.format(ask=ask)))
        assert one(findings, "exact on a tree").exact
        assert one(findings, "marginals").worst < 1e-12 and row.agrees
    assert any("max_{x[t]} ( log phi1" in step for step in row.steps)


def test_a_grid_is_proven_on_a_thin_one(model):
    text = GRID.replace("grid(2, 3)", "grid(H, W)").replace("f64[2, 3]", "f64[H, W]")
    program = model(text.format(ask="bp(x)"), "options: {H: 4, W: 5}\n")
    row, findings = explained(program)
    assert row.checked_at == "H=3, W=3"
    assert one(findings, "exact on a tree, at H=1, W=3").worst < 1e-12


@pytest.mark.parametrize("text", [GRID, CHAIN])
def test_gibbs_keeps_the_posterior(model, text):
    row, findings = explained(model(text.format(ask="gibbs(x, steps=200, burn=20, thin=2)")))
    steps = "\n".join(row.steps)
    assert "= v | all others) = softmax_v( log phi0(x[" in steps
    assert "in a sweep 2 groups of" in steps and "200 sweeps, one of 2, after 20" in steps
    assert one(findings, "keeps the posterior").worst < 1e-12
    assert 0 < one(findings, "eigenvalue").worst < 1
    assert 0 < one(findings, "marginals of 200 sweeps").worst < 0.15 and row.agrees


def test_methods_that_a_model_does_not_ask_for(model, tilth):
    model(CHAIN.format(ask="gibbs(x, steps=20, burn=5)"))
    done = tilth("explain", "m.yaml", "--by", "gibbs,meanfield")
    assert done.code == 0
    assert "\ngibbs(x, steps=20, burn=5), at T=3\n" in done.out and "\nmeanfield(x)\n" in done.out
    assert done.out.count("proven  ") == 3
    rows = tilth("explain", "m.yaml", "--by", "bp", "--json").json["approximations"]
    assert [row["asked"] for row in rows] == ["gibbs(x, steps=20, burn=5)", "bp(x)"]
    assert all(f["holds"] for row in rows for f in row["check"]["findings"])
    done = tilth("explain", "m.yaml", "--by", "em")
    assert done.code == 2 and "`em` is none of meanfield, bp, gibbs" in done.err


@pytest.mark.parametrize("method", ["meanfield", "bp", "gibbs"])
def test_a_wrong_formula_is_found(model, method, monkeypatch, tilth):
    short = {"gibbs": "gibbs(x, steps=5, burn=0)"}
    program = model(GRID.format(ask=short.get(method, "marginals(x)")))
    fields, said = Local.fields, Local.contracted

    def twice(local, family, rows, q):
        value = fields(local, family, rows, q)
        return local.emit.emit("mul", [value, local.number(1.1)]) if rows == local.joint else value

    def louder(local, statement, operands, reference, semiring):
        table = said(local, statement, operands, reference, semiring)
        value = local.emit.emit("mul", [table.value, local.number(1.1)])
        return type(table)(value, table.axes)

    if method == "bp":
        monkeypatch.setattr(Local, "contracted", louder)
    else:
        monkeypatch.setattr(Local, "fields", twice)
    found = program.explain(methods=[method])
    assert found.check.agrees and not found.agrees
    done = tilth("explain", "m.yaml", "--by", method)
    assert done.code == 1 and "DISPROVEN" in done.out


def test_groups_that_are_joined_do_not_keep_the_posterior(model, monkeypatch):
    program = model(GRID.format(ask="gibbs(x, steps=50)"))
    whole = {"x": np.ones((2, 3), bool).reshape(-1)}
    monkeypatch.setattr(gibbs, "colouring", lambda *_: [whole])
    row, findings = explained(program)
    assert one(findings, "keeps the posterior").worst > 1e-3 and not row.agrees

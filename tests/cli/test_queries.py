"""``tilth query`` and ``tilth explain``, and what they say of bad models, weights and data."""

import json

import numpy as np
import pytest
import tilth
from tilth.program import load

HEAD = "tilth: 1\nname: m\nmodel: |\n"
HMM = """
input y : f64[T]
param pi : simplex[2]
param A : simplex[2, 2]
param mu : real[2]
z[0] ~ categorical(pi)
z[t] ~ categorical(A[z[t-1]]) for t in 1..T
y[t] ~ normal(mu[z[t]], 1) for t in 0..T
"""
COUNTS = """
input n : i32[M]
param rate : positive[2]
c[i] ~ categorical([0.5, 0.5]) for i in 0..M
n[i] ~ poisson(rate[c[i]]) for i in 0..M
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(text):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        (tmp_path / "m.yaml").write_text(HEAD + body)
        return load("m.yaml")

    return make


def refusal(run):
    with pytest.raises(tilth.SpecError) as caught:
        run()
    assert len(caught.value.diagnostics) == 1
    return str(caught.value)


def test_query_prints_and_saves(model, tilth, tmp_path):
    program = model(HMM)
    y = np.array([0.1, np.nan, 2.0])
    np.save(tmp_path / "y.npy", y)
    done = tilth("query", "m.yaml", "--data", "y=y.npy", "--output", "o.npz")
    assert done.code == 0 and done.out.startswith("loglik")
    with np.load(tmp_path / "o.npz") as saved:
        assert saved["marginals(z)"].shape == (3, 2)
    done = tilth("query", "m.yaml", "--data", "y=y.npy", "--ask", "map(z)", "--json")
    assert len(json.loads(done.out)["answers"]["map(z)"]) == 3
    assert list(program.query({"y": y}, ["entropy"])) == ["entropy"]


def test_a_missing_observation_is_as_if_it_were_not_there(model):
    program = model(HMM)
    weights = {"pi": [0.3, 0.7], "A": [[0.9, 0.1], [0.2, 0.8]], "mu": [0.0, 2.0]}
    y = np.array([0.1, np.nan, 2.0])
    found = program.query({"y": y}, ["loglik"], weights)["loglik"]
    a, pi = np.array(weights["A"]), np.array(weights["pi"])
    density = lambda v: np.exp(-0.5 * (v - np.array([0.0, 2.0])) ** 2) / np.sqrt(2 * np.pi)  # noqa: E731
    assert found == pytest.approx(np.log((pi * density(0.1)) @ a @ a @ density(2.0)), abs=1e-12)
    rate = {"rate": [1.0, 3.0]}
    counts = model(COUNTS)
    some = counts.query({"n": [2, np.nan, 4]}, ["loglik"], rate)["loglik"]
    assert some == pytest.approx(counts.query({"n": [2, 4]}, ["loglik"], rate)["loglik"])


def test_rows_that_do_not_sum_to_1(model):
    weights = {"pi": [0.5, 0.5], "A": [[0.5, 0.5], [0.5, 0.4]], "mu": [0.0, 1.0]}
    text = refusal(lambda: model(HMM).query({"y": [0.0]}, weights=weights))
    assert "m.yaml:6:3: error[E603]: weight `A` is not a simplex" in text
    assert "row 1 sums to 0.9, 0.1 too little" in text


def test_weights_outside_of_their_domain(model):
    text = refusal(lambda: model(COUNTS).query({"n": [0]}, weights={"rate": [1.0, -2.0]}))
    assert "error[E607]: weight `rate` is not a positive" in text
    assert "[1] is -2, not above 0" in text


def test_an_observation_outside_of_the_support(model):
    text = refusal(lambda: model(COUNTS).query({"n": [3, 0, -2]}))
    assert "m.yaml:7:3: error[E611]: `n` has a value that poisson cannot give" in text
    assert "n[2] is -2; it takes whole numbers from 0" in text


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("input x : f64[M]\nz[n] ~ categorical([0.5, 0.5]) for n in 0..M\n"
         "y[n] ~ normal(z[n], 1) for n in 0..M", "E608", "`y` is a leaf that nothing observes"),
        ("input y : f64[T]\nparam A : simplex[2, 2]\nz[0] ~ categorical([0.5, 0.5])\n"
         "z[t] ~ categorical(A[z[t-1]]) for t in 2..T\ny[t] ~ normal(z[t], 1) for t in 2..T",
         "E609", "`z[1]` has no prior"),
        ("index i, j : grid(27, 27)\nx[i] ~ labels(2) for i in grid\n"
         "factor (2*x[i] - 1) * (2*x[j] - 1) for (i, j) in neighbours(grid)",
         "E610", "exact inference would need a table of"),
        ("input w : f64[M, L]\nx[i] ~ labels(2) for i in 0..M\ny[j] ~ labels(2) for j in 0..L\n"
         "factor w[i, j] * x[i] * y[j] for i in 0..M, j in 0..L",
         "E610", "`x` and `y` meet in every pair"),
        ("input y : f64[T]\nm ~ normal(0, 1)\ny[t] ~ normal(m, 1) for t in 0..T",
         "E605", "`m` is a continuous latent variable"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_answered(model, text, code, said):
    program = model(text)
    sizes = {"M": 3, "L": 3, "T": 3}
    data = {
        name: np.zeros([sizes[str(d)] for d in kind.shape]) for name, kind in program.inputs.items()
    }
    message = refusal(lambda: program.query(data, ["loglik"]))
    assert f"error[{code}]" in message and said in message
    assert "m.yaml:" in message


def test_a_part_that_is_missing(model):
    program = model("""
input x : f64[M, 2]
param mu : real[2, 2]
c[n] ~ categorical([0.5, 0.5]) for n in 0..M
x[n] ~ mvnormal(mu[c[n]], [[1.0, 0.0], [0.0, 1.0]]) for n in 0..M
""")  # fmt: skip
    x = np.zeros((3, 2))
    x[1, 0] = np.nan
    assert "x[1]" in refusal(lambda: program.query({"x": x}))
    x[1] = np.nan
    program.query({"x": x})


def test_explain_proves_itself(tilth):
    done = tilth("explain", "hmm")
    assert done.code == 0
    assert "agrees with enumeration of 27 assignments" in done.out


def test_explain_takes_a_small_instance_of_what_is_too_large(tilth):
    done = tilth("explain", "ising", "--json")
    assert done.json["at"] == ""
    assert done.json["check"]["instance"] == "H=3, W=3" and done.json["check"]["worst"] < 1e-10
    out = tilth("explain", "dense_crf", "--set", "L=2").out
    assert out.startswith("dense_crf, at H=3, W=3\n")
    assert "agrees with enumeration of 512 assignments" in out


def test_explain_shows_the_recursion(model, tilth):
    model(HMM)
    out = tilth("explain", "m.yaml").out
    assert "a_t(z) = p(y[t] | z[t]) * sum_{z'} a_{t-1}(z') * p(z[t] | z[t-1])" in out
    assert "cost 4*T operations" in out


def test_a_wrong_question(model):
    program = model(HMM)
    assert "one of loglik" in refusal(lambda: program.query({"y": [0.0]}, ["likelihood"]))
    assert "there is z" in refusal(lambda: program.query({"y": [0.0]}, ["map(q)"]))
    text = refusal(lambda: program.query({"y": [0.0]}, ["predictive(z)"]))
    assert "error[E604]: `z` is not an observed variable" in text and "there is y" in text


def test_sample_writes_what_query_reads(model, tilth, tmp_path):
    program = model(HMM)
    done = tilth("sample", "m.yaml", "--shape", "T=7", "--output", "s.npz", "--seed", "3")
    assert done.code == 0 and done.out.startswith("z  int32[7]")
    words = ("--data", "y=s.npz:y,s.npz:y", "--ask", "loglik,predictive(y)")
    done = tilth("query", "m.yaml", *words)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "0.loglik", "0.predictive(y).mean", "0.predictive(y).variance",
        "1.loglik", "1.predictive(y).mean", "1.predictive(y).variance",
    ]  # fmt: skip
    answers = tilth("query", "m.yaml", *words, "--json").json["answers"]
    assert answers[0] == answers[1] and len(answers) == 2
    tilth_weights = program.initial_weights(1)
    np.savez(tmp_path / "w.npz", **tilth_weights)
    done = tilth("query", "m.yaml", "--shape", "T=7", "--against", "w.npz", "--json")
    own = program.kl(program.initial_weights(0), tilth_weights, sizes={"T": 7})
    assert done.json["kl"] == pytest.approx(own)


def test_fit_writes_what_query_reads(model, tilth, tmp_path):
    model(HMM)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=12) + rng.integers(0, 2, 12) * 4)
    words = ("--data", "y=a.npy,b.npy", "--iterations", "5", "--out", "w.safetensors")
    done = tilth("fit", "m.yaml", *words)
    assert done.code == 0 and "round 0:" in done.err and "nats in" in done.out
    asked = tilth("query", "m.yaml", "--data", "y=a.npy", "--weights", "w.safetensors")
    assert asked.code == 0
    done = tilth("fit", "m.yaml", "--data", "y=a.npy", "--fix", "B")
    assert done.code == 1 and "error[E801]: there is no weight `B` to keep" in done.err
    assert tilth("fit", "m.yaml", "--data", "y=a.npy", "--out", "w.txt").code == 2

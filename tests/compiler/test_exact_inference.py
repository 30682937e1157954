"""Exact inference agrees with trying every assignment, on models of many shapes."""

import numpy as np
import pytest
from tilth.compiler.inference.answers import answers_about
from tilth.compiler.inference.enumeration import enumerate_model
from tilth.compiler.interpret import bind_sizes, interpret
from tilth.compiler.ir.verify import verify
from tilth.program import load

HMM = """
  z[0] ~ categorical(pi)
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  y[t] ~ normal(mu[z[t]], sigma[z[t]]) for t in 0..T
"""
PARAMS = """
  param pi : simplex[3]
  param A : simplex[3, 3]
  param mu : real[3, 2]
  param sigma : positive[3, 2]
"""
MODELS = {
    "hmm": ("input y : f64[T, 2]" + PARAMS + HMM, {"T": 5}),
    "one_step": (
        "input y : f64[2, 2]" + PARAMS + HMM.replace("1..T", "1..2").replace("0..T", "0..2"),
        {},
    ),
    "batched_hmm": ("input y : f64[N, T, 2]" + PARAMS + HMM, {"N": 2, "T": 4}),
    "backward_in_time": ("""
  input y : f64[T, 2]
  param pi : simplex[3]
  param A : simplex[3, 3]
  param mu : real[3, 2]
  param B : real[3]
  z[t] ~ labels(3) for t in 0..T
  factor A[z[t+1], z[t]] for t in 0..T-1
  factor B[z[T-1]]
  y[t] ~ normal(mu[z[t]], 1) for t in 0..T
""", {"T": 5}),
    "mixture_emissions": ("""
  input y : f64[T, 2]
  param pi : simplex[2]
  param A : simplex[2, 2]
  param w : simplex[2, 2]
  param mu : real[2, 2, 2]
  z[0] ~ categorical(pi)
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  m[t] ~ categorical(w[z[t]]) for t in 0..T
  y[t] ~ normal(mu[z[t], m[t]], 0.7) for t in 0..T
""", {"T": 4}),
    "emission_of_a_step": ("""
  input y : f64[T]
  param A : simplex[2, 2]
  param w0 : simplex[3]
  param w : simplex[2, 2, 3]
  param mu : real[3]
  z[0] ~ categorical([0.3, 0.7])
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  m[0] ~ categorical(w0)
  m[t] ~ categorical(w[z[t-1], z[t]]) for t in 1..T
  y[t] ~ normal(mu[m[t]], 0.7) for t in 0..T
""", {"T": 4}),
    "factorial_hmm": ("""
  input y : f64[T]
  param A : simplex[2, 2]
  param B : simplex[3, 3]
  param mu : real[2, 3]
  a[0] ~ categorical([0.3, 0.7])
  b[0] ~ categorical([0.3, 0.2, 0.5])
  a[t] ~ categorical(A[a[t-1]]) for t in 1..T
  b[t] ~ categorical(B[b[t-1]]) for t in 1..T
  y[t] ~ normal(mu[a[t], b[t]], 0.7) for t in 0..T
""", {"T": 4}),
    "mixture_of_hmms": ("""
  input y : f64[M, T]
  param share : simplex[2]
  param pi : simplex[2, 3]
  param A : simplex[2, 3, 3]
  param mu : real[3]
  c[n] ~ categorical(share) for n in 0..M
  z[n, 0] ~ categorical(pi[c[n]]) for n in 0..M
  z[n, t] ~ categorical(A[c[n], z[n, t-1]]) for n in 0..M, t in 1..T
  y[n, t] ~ normal(mu[z[n, t]], 0.8) for n in 0..M, t in 0..T
""", {"M": 2, "T": 3}),
    "nested_plates": ("""
  input w : i32[M, L]
  param prior : simplex[2]
  param theta : simplex[2, 3]
  param phi : simplex[3, 4]
  c[d] ~ categorical(prior) for d in 0..M
  k[d, n] ~ categorical(theta[c[d]]) for d in 0..M, n in 0..L
  w[d, n] ~ categorical(phi[k[d, n]]) for d in 0..M, n in 0..L
""", {"M": 2, "L": 3}),
    "global_cause": ("""
  input y : f64[M]
  param p : unit[2]
  param mu : real[2]
  c ~ categorical([0.3, 0.7])
  z[n] ~ bernoulli(p[c]) for n in 0..M
  y[n] ~ normal(mu[z[n]], 0.8) for n in 0..M
""", {"M": 4}),
    "naive_bayes": ("""
  input x : i32[M, 3]
  param prior : simplex[3]
  param p : unit[3, 3]
  c[n] ~ categorical(prior) for n in 0..M
  x[n, d] ~ bernoulli(p[c[n], d]) for n in 0..M, d in 0..3
""", {"M": 4}),
    "two_seasons": ("""
  input y : f64[6]
  param A : simplex[2, 2]
  param B : simplex[2, 2]
  param mu : real[2]
  z[0] ~ categorical([0.4, 0.6])
  z[t] ~ categorical(A[z[t-1]]) for t in 1..3
  z[t] ~ categorical(B[z[t-1]]) for t in 3..6
  y[t] ~ normal(mu[z[t]], 0.8) for t in 1..5
""", {}),
    "driven": ("""
  input u : f64[T, 2]
  input y : f64[T]
  param W : real[3, 3, 2]
  param mu : real[3]
  z[0] ~ categorical([0.2, 0.3, 0.5])
  z[t] ~ categorical(softmax(W[z[t-1]] @ u[t])) for t in 1..T
  y[t] ~ normal(mu[z[t]], 0.8) for t in 0..T
""", {"T": 4}),
    "second_order": ("""
  input y : f64[5]
  param A : simplex[2, 2, 2]
  param mu : real[2]
  z[0] ~ categorical([0.4, 0.6])
  z[1] ~ categorical([0.4, 0.6])
  z[t] ~ categorical(A[z[t-2], z[t-1]]) for t in 2..5
  y[t] ~ normal(mu[z[t]], 0.8) for t in 0..5
""", {}),
    "grid": ("""
  index i, j : grid(3, 3)
  input b : f64[3, 3]
  param J : real = 0.7
  x[i] ~ labels(2) for i in grid
  factor b[i] * (2*x[i] - 1) for i in grid
  factor J * (2*x[i] - 1) * (2*x[j] - 1) for (i, j) in neighbours(grid)
""", {}),
    "tree": ("""
  input b : f64[6, 3]
  param J : real[3, 3]
  x[i] ~ labels(3) for i in 0..6
  factor b[i, x[i]] for i in 0..6
  factor J[x[i], x[j]] for (i, j) in [[0, 1], [0, 2], [1, 3], [1, 4], [2, 5]]
""", {}),
    "all_pairs": ("""
  input b : f64[4, 3]
  param J : real[3, 3]
  x[i] ~ labels(3) for i in 0..4
  factor b[i, x[i]] for i in 0..4
  factor J[x[i], x[j]] * (i + 1) for i in 0..4, j in 0..4 if i < j
""", {}),
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    def make(text, options=""):
        path = tmp_path / "model.yaml"
        body = "".join(f"  {line.strip()}\n" for line in text.strip().splitlines())
        path.write_text(f"tilth: 1\nname: model\n{options}model: |\n{body}", encoding="utf-8")
        return load(path)

    return make


def data_for(program, sizes, seed=0):
    """Random inputs and weights that fit."""
    rng = np.random.default_rng(seed)
    graph = program.graph.bind(sizes)
    inputs = {}
    for index in graph.inputs:
        node = graph.node(index)
        shape = node.type.shape
        whole = node.type.dtype == "i32"
        inputs[node.name] = rng.integers(0, 2, shape) if whole else rng.normal(size=shape)
    params = {}
    for path, array in program.initial_weights(seed, sizes).items():
        params[path] = array
    for _, node in graph.of_op("param"):
        path, domain, shape = str(node.attrs["path"]), node.attrs["domain"], node.type.shape
        if domain == "unit":
            params[path] = rng.uniform(0.1, 0.9, shape)
        elif domain == "positive":
            params[path] = rng.uniform(0.5, 1.5, shape)
    return inputs, params


def answers_of(program, inputs, params, missing=()):
    shapes = {name: np.shape(a) for name, a in inputs.items()}
    weights = {path: np.shape(a) for path, a in params.items()}
    graph = program.graph.bind(bind_sizes(program.graph, shapes, weights))
    answers = answers_about(graph, missing)
    graph.outputs = [("loglik", answers.loglik.value), ("entropy", answers.entropy.value)]
    for family in answers.structure.families:
        graph.outputs.append((f"marginals {family.name}", answers.marginals(family.name).value))
        graph.outputs.append((f"best {family.name}", answers.best(family.name).value))
    for number, weight in answers.weights().items():
        graph.outputs.append((f"weights {number}", weight.value))
    graph.prune()
    verify(graph)
    return interpret(graph, inputs, params)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_exact_answers_are_those_of_enumeration(model, name):
    text, sizes = MODELS[name]
    program = model(text)
    inputs, params = data_for(program, sizes)
    found = answers_of(program, inputs, params)
    truth = enumerate_model(program.graph, inputs, params)
    np.testing.assert_allclose(found["loglik"], truth.loglik, atol=1e-10)
    np.testing.assert_allclose(found["entropy"], truth.entropy.sum(), atol=1e-10)
    assert truth.gap > 1e-9
    for family, marginals in truth.marginals.items():
        shape = marginals.shape
        np.testing.assert_allclose(
            found[f"marginals {family}"].reshape(shape), marginals, atol=1e-11
        )
        best = truth.best[family]
        np.testing.assert_array_equal(found[f"best {family}"].reshape(best.shape), best)

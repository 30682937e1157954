"""Mean field against its equations written as loops."""

import numpy as np
import pytest
from tilth.program import load

HEAD = "tilth: 1\nname: m\nmodel: |\n"


@pytest.fixture
def model(tmp_path):
    def make(text):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        (tmp_path / "m.yaml").write_text(HEAD + body)
        return load(tmp_path / "m.yaml")

    return make


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def loops(unary, pairs, steps, damping=0.0):
    """``pairs`` are ``(i, j, table)``; every q moves at once."""
    q = softmax(unary)
    for _ in range(steps):
        field = unary.copy()
        for i, j, table in pairs:
            field[i] += table @ q[j]
            field[j] += q[i] @ table
        q = (1 - damping) * softmax(field) + damping * q
    return q


@pytest.mark.parametrize("damping", [0, 0.3])
def test_neighbours_from_a_table(model, damping):
    program = model(f"""
index i, j : grid(3, 4)
input b : f64[3, 4, 3]
param J : real[3, 3]
x[i] ~ labels(3) for i in grid
factor b[i, x[i]] for i in grid
factor J[x[i], x[j]] for (i, j) in neighbours(grid)
output q = meanfield(x, steps=4, damping={damping})
""")  # fmt: skip
    rng = np.random.default_rng(0)
    b, table = rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 3))
    number = np.arange(12).reshape(3, 4)
    across = zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True)
    down = zip(number[:-1].ravel(), number[1:].ravel(), strict=True)
    pairs = [(i, j, table) for i, j in (*across, *down)]
    want = loops(b.reshape(12, 3), pairs, 4, damping)
    found = program.run({"b": b}, {"J": table})["q"]
    np.testing.assert_allclose(found.reshape(12, 3), want, atol=1e-12)


def test_a_chain_and_all_pairs(model):
    program = model("""
input b : f64[5, 2]
param J : real[2, 2]
x[i] ~ labels(2) for i in 0..5
factor b[i, x[i]] for i in 0..5
factor 2 * x[0]
factor J[x[i-1], x[i]] for i in 1..5
factor 0.1 * x[i] * x[j] for i, j in [0..5, 0..5] if i < j
output q = meanfield(x, steps=3)
""".replace("for i, j in [0..5, 0..5] if", "for i in 0..5, j in 0..5 if"))  # fmt: skip
    rng = np.random.default_rng(1)
    b, table = rng.normal(size=(5, 2)), rng.normal(size=(2, 2))
    unary = b.copy()
    unary[0, 1] += 2
    both = np.array([[0, 0], [0, 0.1]])
    pairs = [(i, i + 1, table) for i in range(4)]
    pairs += [(i, j, both) for i in range(5) for j in range(i + 1, 5)]
    found = program.run({"b": b}, {"J": table})["q"]
    np.testing.assert_allclose(found, loops(unary, pairs, 3), atol=1e-12)

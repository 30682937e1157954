"""Models of `~` learn through `train:` like nets, and their weights stay in their domains."""

import numpy as np
from test_probabilistic_goldens import spec_of
from tilth.derivatives import value_and_grad
from tilth.program import load

HMM = """
input y : f64[T, 2]
param pi : simplex[2]
param A : simplex[2, 2]
param mu : real[2, 2]
param S : posdef[2, 2, 2]
param m : symmetric[2, 2]
z[0] ~ categorical(pi)
z[t] ~ categorical(A[z[t-1]]) for t in 1..T
y[t] ~ mvnormal(mu[z[t]], S[z[t]]) for t in 0..T
loss = -loglik() + sum(m * m)
output loss
"""


def trained(tmp_path, optimizer):
    program = spec_of(tmp_path, HMM)
    path = tmp_path / "model.yaml"
    path.write_text(path.read_text() + f"train:\n  optimizer: {optimizer}\n")
    return load(path), program


def data():
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1, 0, 1], 8)
    return np.array([[0.0, 2], [3, -1]])[z] + rng.normal(size=(32, 2)) * 0.5


def test_one_step_is_that_of_the_coordinates(tmp_path):
    program, plain = trained(tmp_path, "sgd(lr=0.01)")
    y, start = data(), dict(program.initial_weights(0))
    rng = np.random.default_rng(1)
    start["m"] = (lambda a: a + a.T)(rng.normal(size=(2, 2)))
    start["S"] = np.array([[[1.5, 0.3], [0.3, 0.8]], [[1, -0.2], [-0.2, 2]]])
    run = program.train([{"y": y}], epochs=1, weights=start, show=False)
    _, g, _ = value_and_grad(plain, "loss", list(start))({"y": y}, start)
    for path in ("pi", "A"):
        w = start[path]
        u = np.log(w) - 0.01 * w * (g[path] - np.sum(w * g[path], -1, keepdims=True))
        want = np.exp(u) / np.exp(u).sum(-1, keepdims=True)
        np.testing.assert_allclose(run.weights[path], want, rtol=1e-10)
    root = np.linalg.cholesky(start["S"])
    turned = np.swapaxes(g["S"], -1, -2)
    root = root - 0.01 * np.tril((g["S"] + turned) @ root)
    np.testing.assert_allclose(run.weights["S"], root @ np.swapaxes(root, -1, -2), rtol=1e-10)
    np.testing.assert_allclose(run.weights["m"], start["m"] * 0.98, rtol=1e-10)
    np.testing.assert_allclose(run.weights["mu"], start["mu"] - 0.01 * g["mu"], rtol=1e-10)


def test_an_hmm_learns_by_gradient(tmp_path):
    program, plain = trained(tmp_path, "adam(lr=0.05)")
    y, start = data(), dict(program.initial_weights(0))
    start["A"] = np.array([[0.9, 0.1], [0.0, 1.0]])
    run = program.train([{"y": y}], epochs=60, weights=start, show=False)
    w = run.weights
    np.testing.assert_allclose(w["A"].sum(1), 1, atol=1e-12)
    assert w["A"][1, 0] == 0  # what is impossible stays so
    assert np.all(np.linalg.eigvalsh(w["S"]) > 0)
    before, after = (float(plain.query({"y": y}, ["loglik"], x)["loglik"]) for x in (start, w))
    assert after > before + 10


NOISE = 0.7


def labelled(seed, count):
    """Sequences of labels that stay for five steps; each step is seen through much noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = np.repeat(rng.integers(0, 3, 6), 5).astype(np.int32)
        x = np.eye(3, 4)[label] + NOISE * rng.normal(size=(30, 4))
        found.append({"x": x.astype(np.float32), "label": label})
    return found


def test_the_linear_chain_crf_labels_sequences_that_it_never_saw():
    program = load("linear_chain_crf", set={"D": 4, "L": 3, "train.optimizer": "adam(lr=0.03)"})
    run = program.train(labelled(0, 30), epochs=6, seed=0, show=False)
    losses = [row[3]["loss"] for row in run.history]
    assert np.mean(losses[-30:]) < np.mean(losses[:30]) / 2
    held_out = labelled(1, 20)

    def right(weights):
        paths = [program.run({"x": row["x"]}, weights)["path"] for row in held_out]
        return np.mean([p == row["label"] for p, row in zip(paths, held_out, strict=True)])

    # The law that drew them: labels stay with 1 - 1/5 * 2/3, densities are normal.
    stay = 1 - 1 / 5 * 2 / 3
    law = {
        "A": np.log(np.where(np.eye(3) > 0, stay, (1 - stay) / 2)), "start": np.zeros(3),
        "emit.weight": np.eye(3, 4) / NOISE**2, "emit.bias": np.zeros(3),
    }  # fmt: skip
    alone = np.mean([row["x"][:, :3].argmax(1) == row["label"] for row in held_out])
    assert right(program.initial_weights(0)) < 0.6 and alone < 0.75
    assert right(law) > alone + 0.15
    assert right(run.weights) > right(law) - 0.02

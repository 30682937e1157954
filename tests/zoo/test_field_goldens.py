"""Dense random fields against goldens: normalised kernels and gradients."""

from pathlib import Path

import numpy as np
import pytest
from tilth.derivatives import value_and_grad
from tilth.program import load

GOLDEN = Path(__file__).parents[1] / "golden" / "crf"
HEAD = "tilth: 1\nname: model\ndtype: f64\nmodel: |\n"
KERNELS = """
input U : f64[4, H, W]
input image : f64[3, H, W]
input label : i32[H, W]
param w : real[2]
index i, j : pixels(H, W)
index l : 0..4
pos[i] = i
def near(i, j, width) = gauss(pos[i] - pos[j], width)
def alike(i, j, width) = gauss(image[:, i] - image[:, j], width)
def appearance(i, j) = near(i, j, 12) * alike(i, j, 15)
a[i] = 1 / sqrt(sum{j if j != i} appearance(i, j))
s[i] = 1 / sqrt(sum{j if j != i} near(i, j, 3))
def k(i, j) = w[0] * a[i] * appearance(i, j) * a[j] + w[1] * s[i] * near(i, j, 3) * s[j]
"""
LOSS = """
picked[i] = sum{l} q[i, l] * (if label[i] == l then 1 else 0)
loss = -mean(log(picked))
output q, loss
"""
# As the paper's figure has it: filter, compare, add to the unaries, normalise.
RECURSION = """
param mu : real[4, 4]
u[i, l] = U[l, i]
q0 = softmax(u, axis=2)
m1[i, l] = sum{j if j != i} k(i, j) * q0[j, l]
c1[i, l] = sum{b in 0..4} mu[l, b] * m1[i, b]
q1 = softmax(u - c1, axis=2)
m2[i, l] = sum{j if j != i} k(i, j) * q1[j, l]
c2[i, l] = sum{b in 0..4} mu[l, b] * m2[i, b]
q = softmax(u - c2, axis=2)
"""
FIELD = """
param mu : symmetric[4, 4]
x[i] ~ labels(4) for i in pixels
factor U[x[i], i] for i in pixels
factor -mu[x[i], x[j]] * k(i, j) for i, j in pixels if i < j
q = meanfield(x, steps=2)
"""


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture
def model(tmp_path):
    def make(text):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        (tmp_path / "model.yaml").write_text(HEAD + body)
        return load(tmp_path / "model.yaml")

    return make


def gradients(program, z, mu):
    inputs = {
        "U": -z["unary"].transpose(2, 0, 1).astype(float),
        "image": z["image"].transpose(2, 0, 1).astype(float),
        "label": z["labels"].astype(np.int32),
    }
    step = value_and_grad(program, "loss", ["w", "mu", "U"])
    value, slopes, rest = step(inputs, {"w": np.array([4.0, 2.0]), "mu": mu})
    return value, slopes, rest["q"]


def test_gradients_of_the_recursion(model):
    z = golden("crf_rnn_gradients")
    text = KERNELS + RECURSION + LOSS
    value, slopes, q = gradients(model(text), z, z["mu"].astype(float))
    assert abs(value - z["loss"]) < 1e-6
    np.testing.assert_allclose(q, z["Q2"], atol=1e-6)
    for name in ("w", "mu"):
        np.testing.assert_allclose(slopes[name], z[f"grad_{name}"], atol=1e-6)
    np.testing.assert_allclose(slopes["U"].transpose(1, 2, 0), z["grad_U"], atol=1e-8)


def test_gradients_through_mean_field_are_those_of_the_recursion(model):
    z = golden("crf_rnn_gradients")
    mu = z["mu"].astype(float) + z["mu"].T
    one = gradients(model(KERNELS + FIELD + LOSS), z, mu)
    text = KERNELS + RECURSION + LOSS
    other = gradients(model(text), z, mu)
    assert abs(one[0] - other[0]) < 1e-12
    for name in ("w", "mu", "U"):
        np.testing.assert_allclose(one[1][name], other[1][name], atol=1e-12)


def test_symmetric_normalisation(model):
    z = golden("dense_symmetric_norm")
    potts = FIELD.replace("-mu[x[i], x[j]]", "-(if x[i] == x[j] then 0 else 1)")
    text = KERNELS + potts.replace("param mu : symmetric[4, 4]\n", "").replace("steps=2", "steps=5")
    program = model(text.replace("input label : i32[H, W]\n", "") + "\noutput q")
    inputs = {"U": -z["unary"].transpose(2, 0, 1).astype(float),
              "image": z["image"].transpose(2, 0, 1).astype(float)}  # fmt: skip
    found = program.run(inputs, {"w": np.array([4.0, 2.0])})["q"]
    assert np.abs(found - z["Q"][5]).max() < 1e-5

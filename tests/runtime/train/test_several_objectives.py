"""What objectives are made of, watched in training runs: adversaries, penalties, class weights."""

import numpy as np
import pytest
from tilth.program import load

NET = """tilth: 1
name: net
model: |
  input x : f32[N, 6]
  y = x >> linear(3) as head
  output y
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(y, label)
  optimizer: sgd(lr=0.1)
  batch: 40
  epochs: 1
  shuffle: false
"""

RECURRENT = """tilth: 1
name: recurrent
model: |
  input x : f32[N, T, 3]
  param W : real[4, 3]
  param U : real[4, 4]
  h[t] = tanh(W @ x[t] + U @ h[t-1])
  y = h >> linear(2) as head
  output y
train:
  objective: |
    input next : i32[N, T]
    loss = cross_entropy(y, next, axis=2)
  optimizer: sgd(lr=0.5)
  batch: 4
  epochs: 1
"""

# Arjovsky, Chintala, Bottou 2017, with the penalty of Gulrajani et al. 2017.
WGAN = """tilth: 1
name: wgan
model: |
  gen = (linear(16) as "0" >> relu >> linear(2) as "1")
  disc = (linear(16) as "0" >> leaky_relu(0.2) >> linear(1) as "1")
  input z : f32[N, 2]
  fake = gen(z)
  output fake
train:
  objective: |
    input real : f32[N, 2]
    input alpha : f32[N, 1]
    between = alpha * real + (1 - alpha) * stop(fake)
    slope = grad(sum(disc(between)), between)
    penalty = mean((norm(slope, axis=1) - 1)^2)
  objectives:
    - name: critic
      loss: mean(disc(stop(fake))) - mean(disc(real)) + 10*penalty
      over: disc
      steps: 3
    - {name: maker, loss: 0 - mean(disc(fake)), over: gen}
  optimizer: adam(lr=0.03, betas=[0.5, 0.9])
  batch: 64
  epochs: 120
  metrics:
    penalty: penalty
"""


@pytest.fixture
def program(tmp_path):
    """A program from text, with settings of training."""

    def make(text, **settings):
        (tmp_path / "net.yaml").write_text(text, encoding="utf-8")
        changes = {f"train.{name}": value for name, value in settings.items()}
        return load(tmp_path / "net.yaml", set=changes)

    return make


def examples():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [25, 10, 5]).astype(np.int32)
    return {"x": rng.standard_normal((40, 6)).astype(np.float32), "label": label}


def log_probabilities(program, data):
    """Log-probabilities [N, classes] with the weights that training starts from, float64."""
    y = program.run({"x": data["x"]}, program.initial_weights(0), precision="f64")["y"]
    return y - np.log(np.exp(y).sum(1, keepdims=True))


def first_loss(program, data):
    return program.train(data, show=False).history[0][3]["loss"]


def test_class_weights_come_from_the_data(program):
    data = examples()
    text = NET.replace("label : i32[N]", "label : i32[N]\n    input class_weight : f32[3]")
    weighted = program(text.replace("(y, label)", "(y, label, class_weight)"))
    logp, label = log_probabilities(weighted, data), data["label"]
    w = (40 / (3 * np.array([25, 10, 5])))[label]
    wanted = -(w * logp[np.arange(40), label]).sum() / w.sum()
    assert first_loss(weighted, data) == pytest.approx(wanted, rel=1e-5)
    assert abs(wanted - first_loss(program(NET), data)) > 1e-3


def test_labels_are_smoothed_by_default_where_the_section_says_so(program):
    data = examples()
    smoothed = program(NET, label_smoothing=0.1)
    logp = log_probabilities(smoothed, data)
    target = 0.9 * np.eye(3)[data["label"]] + 0.1 / 3
    wanted = -(target * logp).sum(1).mean()
    assert first_loss(smoothed, data) == pytest.approx(wanted, rel=1e-5)


def test_gradients_of_recurrences_are_cut(program):
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((4, 12, 3)).astype(np.float32),
            "next": rng.integers(0, 2, (4, 12)).astype(np.int32)}  # fmt: skip
    runs = {cut: program(RECURRENT, **({"tbptt": cut} if cut else {})).train(data, show=False)
            for cut in (None, 4, 12)}  # fmt: skip
    # The loss is the same; what goes back over a cut is missing, and nothing is cut after the end.
    assert runs[4].history[0][3]["loss"] == runs[None].history[0][3]["loss"]
    assert not np.allclose(runs[4].weights["U"], runs[None].weights["U"], rtol=1e-4)
    np.testing.assert_allclose(runs[12].weights["U"], runs[None].weights["U"], rtol=1e-5)


def test_adversaries_with_a_gradient_penalty_find_the_data(program):
    rng = np.random.default_rng(0)
    data = {
        "z": rng.standard_normal((256, 2)).astype(np.float32),
        "real": (rng.standard_normal((256, 2)) * 0.3 + [2, -1]).astype(np.float32),
        "alpha": rng.uniform(size=(256, 1)).astype(np.float32),
    }
    wgan = program(WGAN)
    # The game never settles, so that rounding decides where it stands after hundreds of steps.
    run = wgan.train(data, engine="reference", show=False)
    first = wgan.train(data, engine="cpu", steps=12, show=False)
    for mine, theirs in zip(first.history, run.history, strict=False):
        assert mine[3] == pytest.approx(theirs[3], rel=1e-3)
    before = wgan.run({"z": data["z"]}, wgan.initial_weights(0))["fake"].mean(0)
    after = wgan.run({"z": data["z"]}, run.weights)["fake"].mean(0)
    far, near = (np.linalg.norm(mean - data["real"].mean(0)) for mean in (before, after))
    assert near < 0.25 * far
    turns = [("critic" in values, "maker" in values) for *_, values in run.history[:4]]
    assert turns == [(True, False)] * 3 + [(False, True)]
    assert run.history[-1][3]["penalty"] < 0.1 * run.history[0][3]["penalty"]

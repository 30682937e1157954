"""Compiled steps give new arrays, and only use again what nobody holds."""

import numpy as np
import pytest
import tilth
from tilth.cli.main import main
from tilth.compiled import module_source
from tilth.runtime.train.checkpoints import read_checkpoint
from tilth.runtime.train.step import Group
from tilth.steps import unshared
from tilth.training import range_test

SPEC = """\
tilth: 1
name: tiny
model: |
  input image : f32[N, 2, 6, 6]
  logits = image >> conv(5, 3) as conv1 >> bn as bn1 >> relu >> gap >> linear(3) as fc
  output logits
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(logits, label)
  optimizer: sgd(lr=0.1, momentum=0.9)
  batch: 4
"""


def test_arrays_that_somebody_sees_are_kept():
    arrays = {name: np.zeros(6) for name in ("free", "held", "seen", "grouped")}
    held = arrays["held"]
    seen = arrays["seen"][1:3].reshape(2, 1)
    views = Group("g", ("a", "b"), ((2,), (4,)), "float64").views(arrays["grouped"])
    assert set(unshared(arrays)) == {"free"}
    del held, seen, views
    assert set(unshared(arrays)) == set(arrays)


@pytest.mark.slow
def test_compiled_training_follows_the_reference(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    program = tilth.load(str(path))
    rng = np.random.default_rng(0)
    data = {"image": rng.standard_normal((24, 2, 6, 6)).astype(np.float32),
            "label": rng.integers(0, 3, 24).astype(np.int32)}  # fmt: skip
    ours, reference = (
        program.train(data, epochs=3, engine=engine, show=False) for engine in ("cpu", "reference")
    )
    for name, array in reference.weights.items():
        np.testing.assert_allclose(ours.weights[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
    again = program.train(data, epochs=3, engine="cpu", show=False)
    assert all(np.array_equal(array, again.weights[name]) for name, array in ours.weights.items())


SMOOTH = """\
tilth: 1
name: smooth
model: |
  input image : f32[N, 16, 14, 14]
  y = image >> conv(32, 3) as conv1 >> swish >> conv(32, 3) as conv2 >> swish
      >> conv(32, 3) as conv3
  loss = mean((y - 1)^2)
  output y, loss
train:
  optimizer: sgd(lr=0.1, momentum=0.9)
  data: images.npz
  batch: 8
"""


@pytest.fixture
def smooth(tmp_path, monkeypatch):
    """A net without kinks whose convolutions are Winograd's, with examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smooth.yaml").write_text(SMOOTH)
    images = np.random.default_rng(0).standard_normal((16, 16, 14, 14)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    return tilth.load("smooth.yaml"), images


def test_precise_derivatives_are_as_exact_as_the_references(smooth):
    program, images = smooth
    weights = program.initial_weights()

    def derivatives(**how):
        return program.value_and_grad("loss", training=True, **how)

    exact = derivatives()({"image": images}, weights, precision="f64")[1]
    errors = []
    for precise in (False, True):
        made = derivatives(engine="cpu", precise=precise)
        text = module_source(made.program, {"N": 16}, precise=precise)
        assert ("winograd" in text) is not precise
        found = made({"image": images}, weights)[1]
        errors.append(max(np.abs(g - exact[k]).max() / np.abs(exact[k]).max()
                          for k, g in found.items()))  # fmt: skip
    assert 3 * errors[1] < errors[0] < 1e-4, errors


def test_training_and_range_tests_may_be_precise(smooth, capsys):
    program, _ = smooth
    plain, precise = (
        program.train(epochs=1, show=False, precise=precise).weights for precise in (False, True)
    )
    assert all(not np.array_equal(plain[path], array) for path, array in precise.items())
    # The command and the range test ask for the same steps.
    assert main(["train", "smooth.yaml", "--precise", "--set", "train.epochs=1"]) == 0
    stored = read_checkpoint("runs/smooth/last.safetensors").weights
    assert all(np.array_equal(stored[path], array) for path, array in precise.items())
    tests = [range_test(program, low=1e-4, steps=12, precise=precise) for precise in (False, True)]
    assert not np.array_equal(tests[0].losses, tests[1].losses)
    np.testing.assert_allclose(tests[0].losses[:6], tests[1].losses[:6], rtol=1e-3)
    how = ["train", "smooth.yaml", "--precise", "--range-test", "1e-6:10", "--out", "rates"]
    assert main(how) == 0 and capsys.readouterr().err.count("error") == 0

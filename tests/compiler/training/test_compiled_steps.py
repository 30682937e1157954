"""Compiled steps give new arrays, and only use again what nobody holds."""

import numpy as np
import pytest
import tilth
from tilth.runtime.train.step import Group
from tilth.steps import unshared

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
def test_compiled_training_follows_the_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path / "kernels"))
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

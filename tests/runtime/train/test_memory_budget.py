"""``memory:`` of a spec: steps keep to it, and give the same bits."""

import re
import tracemalloc

import numpy as np
import pytest
from tilth.compiler.autodiff import memory_of
from tilth.compiler.options import Options
from tilth.feeding import feeding
from tilth.program import SpecError, load
from tilth.steps import MEASURES
from tilth.training import Work, stated

DEEP = """tilth: 1
name: deep
model: |
  def unit() = id + (linear(64) as fc >> tanh >> dropout(0.1))
  input x : f32[N, 64]
  y = x >> unit()^16 >> linear(4) as head
  output y
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(y, label)
  optimizer: sgd(lr=0.01)
  batch: 1024
  epochs: 1
"""

RECURRENT = """tilth: 1
name: recurrent
model: |
  input x : f32[N, T, 8]
  param W : real[16, 8]
  param U : real[16, 16]
  h[t] = tanh(W @ x[t] + U @ h[t-1])
  y = h >> linear(4) as head
  output y
train:
  objective: |
    input next : i32[N, T]
    loss = cross_entropy(y, next, axis=2)
  optimizer: sgd(lr=0.01)
  batch: 8
  epochs: 1
"""


def examples(kind):
    rng = np.random.default_rng(0)
    if kind == DEEP:
        x = rng.standard_normal((2048, 64)).astype(np.float32)
        return {"x": x, "label": rng.integers(0, 4, 2048).astype(np.int32)}
    x = rng.standard_normal((8, 200, 8)).astype(np.float32)
    return {"x": x, "next": rng.integers(0, 4, (8, 200)).astype(np.int32)}


@pytest.fixture
def program(tmp_path):
    """A program with settings of training."""

    def make(text, **settings):
        path = tmp_path / "net.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, set={f"train.{name}": value for name, value in settings.items()})

    return make


def work(program, data, engine="reference"):
    training, section = stated(program)
    fed = feeding(program, training, section, data, None)
    return Work(program, training, section, fed, engine), next(iter(fed.train.epoch(0)))


def graph_of(made, batch):
    batch = {**batch, "key": np.zeros(2, np.uint64)}
    return made.steps._within_budget(0, "step", batch)[0]


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_a_step_keeps_to_its_budget(program, engine):
    data = examples(DEEP)

    def measure(graph):
        return MEASURES[engine](graph, Options(training=True))

    free = measure(graph_of(*work(program(DEEP), data, engine)))
    budget = int(free * 0.6)
    kept = measure(graph_of(*work(program(DEEP, memory=budget), data, engine)))
    assert kept <= budget < free


def test_what_is_computed_again_gives_the_same_bits(program):
    data = examples(DEEP)
    free = memory_of(graph_of(*work(program(DEEP), data)))
    plain = program(DEEP).train(data, engine="reference", show=False)
    small = program(DEEP, memory=int(free * 0.5)).train(data, engine="reference", show=False)
    assert plain.weights.keys() == small.weights.keys()
    assert all(np.array_equal(plain.weights[path], small.weights[path]) for path in plain.weights)


def test_the_interpreter_needs_no_more_than_the_budget_says(program):
    # Random numbers are drawn by way of larger ones, which the count does not know of.
    data, peaks, text = examples(DEEP), {}, DEEP.replace(" >> dropout(0.1)", "")
    free = memory_of(graph_of(*work(program(text), data)))
    for share in (1.0, 0.5):
        made, batch = work(program(text, memory=int(free * share)), data)
        state = made.steps.state(made.weights(None, print))
        batch = {**batch, "key": np.zeros(2, np.uint64)}
        stage = made.steps.step(0, batch)
        inputs = {**batch, **state.flat, **state.slots}
        inputs |= {f"{g.name}/weights": state.flat[g.name] for g in state.groups}
        inputs |= {name: np.float32(0.1) for name in stage.layout.scalars}
        tracemalloc.start()
        stage.call(inputs, state.weights)
        peaks[share] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # While an op computes, it holds a few arrays of its own.
    own = 4 * data["x"].nbytes // 2
    assert peaks[1.0] < free + own and peaks[0.5] < 0.5 * free + own
    assert peaks[0.5] < 0.7 * peaks[1.0]


def test_recurrences_are_computed_again_too(program):
    data = examples(RECURRENT)
    free = memory_of(graph_of(*work(program(RECURRENT), data)))
    plain = program(RECURRENT).train(data, engine="reference", show=False)
    small = program(RECURRENT, memory=int(0.82 * free))
    made, batch = work(small, data)
    assert memory_of(graph_of(made, batch)) <= 0.82 * free
    assert any(recompute for _, _, recompute in made.steps._graphs)
    weights = small.train(data, engine="reference", show=False).weights
    for path, array in plain.weights.items():
        np.testing.assert_allclose(weights[path], array, rtol=1e-5, atol=1e-6)


def test_too_small_a_budget_is_told_with_the_least_that_would_do(program):
    data = examples(DEEP)
    with pytest.raises(SpecError) as caught:
        program(DEEP, memory="100kB").train(data, engine="reference", show=False)
    text = str(caught.value)
    assert "error[E703]" in text and "more than the 0.1 MB allowed" in text
    least = float(re.search(r"needs ([\d.]+) MB at least", text)[1])
    enough = program(DEEP, memory=int(least * 1.01e6)).train(data, engine="reference", show=False)
    assert enough.updates == 2

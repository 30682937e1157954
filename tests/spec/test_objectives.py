"""The formulas of ``train:`` in the graph: what they see, what they move, what they leave out."""

import numpy as np
import pytest
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.verify import verify
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.elaborate.weight_patterns import fits
from tilth.spec.envelope import read_envelope

MODEL = """tilth: 1
name: tiny
model: |
  input x : f32[N, 4]
  h = x >> linear(5) as trunk >> bn as norm
  y = h >> linear(3) as head
  aside = h >> linear(3) as extra
  output y
"""


def model(train):
    reporter = Reporter()
    envelope = read_envelope(MODEL + train, "tiny.yaml", reporter)
    assert envelope is not None
    reporter.raise_if_failed()
    return elaborate(envelope, reporter)


def training(train):
    found = model(train).training
    assert found is not None
    verify(found.graph)
    return found


def inputs(graph):
    return [graph.node(index).name for index in graph.inputs]


def paths(graph):
    return {str(node.attrs["path"]) for _, node in graph.of_op("param")}


def weights(graph, seed=0):
    rng = np.random.default_rng(seed)
    kinds = {str(n.attrs["path"]): n.type.bind({}) for _, n in graph.of_op("param")}
    return {path: rng.uniform(0.5, 1.5, kind.shape) for path, kind in kinds.items()}


LABELLED = "train:\n  objective: |\n    input label : i32[N]\n"


def test_an_objective_sees_the_model_and_declares_inputs():
    found = model(LABELLED + "    loss = cross_entropy(y, label)\n")
    assert inputs(found.graph) == ["x"] and [n for n, _ in found.graph.outputs] == ["y"]
    assert found.training is not None
    assert inputs(found.training.graph) == ["x", "label"]
    assert [loss.output for loss in found.training.losses] == ["loss loss"]


def test_statements_may_be_a_single_line():
    train = "train:\n  objective: |\n    loss = mean(y * y)\n"
    formula = training("train:\n  objective: mean(y * y)\n")
    assert str(training(train).graph) == str(formula.graph)
    spaced = training("train:\n  objective: |\n    loss=mean(y * y)\n")
    assert str(spaced.graph) == str(formula.graph)


def test_the_loss_is_what_it_says():
    found = training(LABELLED + "    loss = cross_entropy(y, label, smoothing=0.2)\n")
    given = weights(found.graph)
    rng = np.random.default_rng(1)
    x, label = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    results = interpret(found.graph, {"x": x, "label": label}, given, precision="f64")
    scale = given["norm.weight"] / np.sqrt(given["norm.running_var"] + 1e-5)
    h = x @ given["trunk.weight"].T + given["trunk.bias"] - given["norm.running_mean"]
    y = (h * scale + given["norm.bias"]) @ given["head.weight"].T + given["head.bias"]
    logp = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    target = 0.8 * np.eye(3)[label] + 0.2 / 3
    np.testing.assert_allclose(results["loss loss"], -(target * logp).sum(axis=1).mean())


def test_label_smoothing_is_the_default_of_cross_entropy():
    text = "    loss = cross_entropy(y, label)\n"
    plain, smooth = (
        training(LABELLED + text),
        training(LABELLED + text + "  label_smoothing: 0.2\n"),
    )
    attrs = [t.graph.of_op("cross_entropy")[0][1].attrs["smoothing"] for t in (plain, smooth)]
    assert attrs == [0.0, 0.2]


def test_weights_that_only_training_uses_are_left_out_of_the_model():
    found = model(LABELLED + "    loss = cross_entropy(y, label) + cross_entropy(aside, label)\n")
    assert found.training is not None
    assert "extra.weight" not in paths(found.graph)
    assert "extra.weight" in found.training.losses[0].weights


def test_a_line_may_be_the_loss():
    assert training("train: {objective: mean(y)}\n").losses[0].name == "loss"


def test_the_models_own_loss_needs_no_objective():
    reporter = Reporter()
    text = MODEL.replace("  output y\n", "  input t : f32[N, 3]\n  loss = mse(y, t)\n  output y\n")
    envelope = read_envelope(text + "train: {epochs: 3}\n", "tiny.yaml", reporter)
    assert envelope is not None
    found = elaborate(envelope, reporter).training
    assert found is not None and inputs(found.graph) == ["x", "t"]


def test_a_spec_without_a_loss_is_not_trained():
    assert model("train: {epochs: 3}\n").training is None
    assert model("").training is None


def test_metrics_see_the_objectives_names():
    found = training(
        LABELLED + "    loss = cross_entropy(y, label)\n"
        "  metrics: {accuracy: 'accuracy(y, label)', high: max(y) > 100, twice: 2 * loss}\n"
    )
    given = weights(found.graph)
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((6, 4)), "label": rng.integers(0, 3, 6)}
    results = interpret(found.graph, feeds, given, precision="f64")
    assert results["metric twice"] == 2 * results["loss loss"]
    assert results["metric high"] == 0.0
    assert 6 * results["metric accuracy"] in range(7)


def test_losses_take_their_own_weights():
    found = training(
        "train:\n  objectives:\n"
        "    - {name: a, loss: mean(y), over: trunk, steps: 3}\n"
        "    - {name: b, loss: mean(aside), over: [extra, norm.weight]}\n"
    )
    a, b = found.losses
    assert (a.weights, a.steps) == (("trunk.weight", "trunk.bias"), 3)
    assert set(b.weights) == {"extra.weight", "extra.bias", "norm.weight"}


def test_objectives_share_statements():
    found = training(
        LABELLED + "    e = cross_entropy(y, label)\n"
        "  objectives: [{loss: e, over: trunk}, {loss: -e, over: head}]\n"
    )
    assert [loss.name for loss in found.losses] == ["loss0", "loss1"]


def test_a_loss_moves_what_it_reaches_and_nothing_frozen():
    found = training("train: {objective: mean(y), freeze: [trunk, norm]}\n")
    assert found.losses[0].weights == ("head.weight", "head.bias")
    assert found.frozen >= {"norm.running_mean", "trunk.bias"}


def test_weight_decay_spares_vectors_by_default():
    plain = training("train: {objective: mean(y + aside)}\n")
    assert plain.decayed == {"trunk.weight", "head.weight", "extra.weight"}
    every = training("train: {objective: mean(y), weight_decay_vectors: true}\n")
    assert every.decayed >= {"norm.weight", "head.bias"}
    assert "norm.running_mean" not in every.decayed
    less = training("train: {objective: mean(y), weight_decay_exclude: [head]}\n")
    assert less.decayed == {"trunk.weight", "extra.weight"}


def test_initialisers_by_label():
    rules = '{"*.bias": "constant(0.5)", head: "normal(0, 0.1)", head.bias: ones}'
    found = model(f"train: {{objective: mean(y), init: {rules}}}\n")
    assert found.training is not None
    for graph in (found.graph, found.training.graph):
        init = {str(n.attrs["path"]): n.attrs["init"] for _, n in graph.of_op("param")}
        assert init["trunk.bias"] == ("constant", 0.5)
        assert init["head.weight"] == ("normal", 0.0, 0.1)
        assert init["head.bias"] == ("ones",)
        assert init["trunk.weight"] != ("normal", 0.0, 0.1)


def test_initialisers_with_numbers_are_written_in_layers_too():
    reporter = Reporter()
    text = MODEL.replace("linear(5)", "linear(5, init=orthogonal(1.4))")
    envelope = read_envelope(text, "tiny.yaml", reporter)
    assert envelope is not None
    graph = elaborate(envelope, reporter).graph
    init = {str(n.attrs["path"]): n.attrs["init"] for _, n in graph.of_op("param")}
    assert init["trunk.weight"] == ("orthogonal", 1.4)


@pytest.mark.parametrize(
    ("pattern", "path", "is_meant"),
    [
        ("fc", "fc.weight", True),
        ("fc", "fc1.weight", False),
        ("fc*", "fc1.weight", True),
        ("layer1.*", "layer1.0.conv1.weight", True),
        ("*.bn2", "layer1.0.bn2.weight", True),
        ("*.bn2", "bn2.weight", True),
        ("bn2", "layer1.0.bn2.weight", False),
        ("*.bias", "fc.bias", True),
        ("layer*.conv1", "layer3.conv1.weight", True),
        ("layer*.conv1", "layer3.0.conv1.weight", False),
    ],
)
def test_patterns(pattern, path, is_meant):
    assert fits(pattern, path) is is_meant


@pytest.mark.parametrize("top", [1, 2, 3])
def test_accuracy_counts_labels_among_the_best(top):
    formula = f"accuracy(y, label, top={top}, ignore=-1)"
    found = training(LABELLED + f"    loss = mean(y)\n  metrics: {{a: '{formula}'}}\n")
    given = weights(found.graph)
    rng = np.random.default_rng(1)
    label = rng.integers(-1, 3, 20)
    feeds = {"x": rng.standard_normal((20, 4)), "label": label}
    kept = label >= 0
    found.graph.outputs.append(("y", next(v for _, v in model("").graph.outputs)))
    results = interpret(found.graph, feeds, given, precision="f64")
    order = np.argsort(-results["y"], axis=1)[:, :top]
    expected = (order == label[:, None]).any(axis=1)[kept].mean()
    np.testing.assert_allclose(results["metric a"], expected)
    assert 0 < expected < 1 or top == 3

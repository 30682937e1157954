"""Ten steps of each optimiser against PyTorch in float64: losses, gradient norms, final weights.

The step graphs of two nets, one with batch norms whose running statistics move, run through the
reference interpreter.
"""

from pathlib import Path

import numpy as np
import pytest
from tilth.compiler.interpret import Interpreter
from tilth.compiler.ir.verify import verify
from tilth.compiler.training.step import Objective, Recipe, Rule, group_weights, step_graph
from tilth.runtime.train.step import (
    COUNT,
    LOSS,
    LR,
    NORM,
    advanced,
    initial_state,
    inputs_of,
)
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

GOLDEN = Path(__file__).parents[2] / "golden" / "training" / "optimisers.npz"
NESTEROV = "sgd(lr=0.02, momentum=0.9, nesterov=true, weight_decay=1e-4)"
OPTIMISERS = {
    "sgd": "sgd(lr=0.02)",
    "sgd_momentum": "sgd(lr=0.02, momentum=0.9)",
    "sgd_momentum_dampening": "sgd(lr=0.02, momentum=0.9, dampening=0.5)",
    "sgd_nesterov_wd": NESTEROV,
    "adagrad": "adagrad(lr=0.01)",
    "adadelta": "adadelta(lr=1.0)",
    "rmsprop": "rmsprop(lr=1e-3)",
    "rmsprop_centered_mom": "rmsprop(lr=1e-3, centered=true, momentum=0.9)",
    "adam": "adam(lr=1e-3)",
    "adam_amsgrad": "adam(lr=1e-3, amsgrad=true)",
    "adam_wd_l2": "adam(lr=1e-3, weight_decay=1e-2)",
    "adamw": "adamw(lr=1e-3, weight_decay=1e-2)",
}
MORE = {"sgd_clip1": NESTEROV, "sgd_cosine": NESTEROV, "sgd_nobnwd": NESTEROV}
QUICK = ("sgd", "sgd_nesterov_wd", "adam", "rmsprop_centered_mom", *MORE)
CASES = [("lenet", name) for name in OPTIMISERS]
CASES += [
    pytest.param("resnet8", name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*OPTIMISERS, *MORE)
]


def model_of(text):
    reporter = Reporter()
    envelope = read_envelope(text, "f.yaml", reporter)
    assert envelope is not None
    reporter.raise_if_failed()
    return elaborate(envelope, reporter)


def agree(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def prepared(text, name, batch):
    """The step of a golden run, and the groups that it moves."""
    call = {**OPTIMISERS, **MORE}[name]
    rules = f"  optimizer: {call}\n  weight_decay_vectors: {str(name != 'sgd_nobnwd').lower()}\n"
    model = model_of(text + rules)
    training, section = model.training, model.envelope.train
    assert training is not None and section is not None and section.optimizer is not None
    clip = Rule("norm", {"limit": 1.0}) if name == "sgd_clip1" else None
    rule = Rule(section.optimizer.name, section.optimizer.settings)
    (loss,) = training.losses
    objective = Objective("loss", loss.output, loss.weights, rule, clip)
    groups = group_weights(training.graph, [objective], training.decayed)
    recipe = Recipe(decayed=training.decayed)
    step = step_graph(training.graph.bind({"N": batch}), objective, groups, recipe)
    verify(step.graph)
    return step, list(groups), training


@pytest.mark.parametrize(("net", "name"), CASES, ids=lambda x: x)
def test_ten_steps_agree_with_pytorch(net, name, networks, golden_weight):
    golden = np.load(GOLDEN)
    x, y = golden[f"{net}.x"], golden[f"{net}.y"]
    expected = {key: golden[f"{net}.{name}.{key}"] for key in ("loss", "norm", "lr", "sums")}
    half = len(x) // 2
    step, groups, training = prepared(networks[net], name, half)
    nodes = [node for _, node in training.graph.of_op("param")]
    weights = {
        str(node.attrs["path"]): golden_weight(node.attrs["path"], node.type.bind({}).shape)
        for node in nodes
    }
    weights = {path: array.astype(np.float64) for path, array in weights.items()}
    state = initial_state(groups, [step.layout], weights)
    call = Interpreter(step.graph)
    losses, norms = [], []
    for number, lr in enumerate(expected["lr"]):
        part = slice(0, half) if number % 2 == 0 else slice(half, None)
        batch = {"image": x[part].astype(np.float64), "label": y[part]}
        scalars = {LR: lr, COUNT: number + 1.0}
        results = call(inputs_of(step.layout, state, batch, scalars), state.weights)
        state = advanced(step.layout, state, results)
        losses.append(results[LOSS])
        norms.append(results[NORM])
    assert agree(losses, expected["loss"]) < 1e-8
    assert agree(norms, expected["norm"]) < 1e-8
    found = [state.weights[path] for path in golden[f"{net}.paths"]]
    sums = [[w.sum(), np.sqrt((w * w).sum())] for w in found]
    assert agree(sums, expected["sums"]) < 1e-8

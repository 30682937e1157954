"""The sections of the envelope: what they read, their ranges, and calls in their values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tilth.compiler.ir.dims import symbol
from tilth.spec.diagnostics import Reporter, render_all
from tilth.spec.envelope import read_envelope
from tilth.spec.section_calls import (
    AUGMENTATIONS,
    CLIPS,
    EXPLORATION,
    OPTIMIZERS,
    SCHEDULES,
)

BASE = "tilth: 1\nname: tiny\nmodel: |\n  x = 1\n"


def read(section):
    reporter = Reporter()
    return read_envelope(BASE + section, "f.yaml", reporter), reporter


def good(section):
    envelope, reporter = read(section)
    assert not reporter.diagnostics, render_all(reporter.diagnostics, reporter.sources)
    assert envelope is not None
    return envelope


def train(**settings):
    lines = "".join(f"  {key}: {value}\n" for key, value in settings.items())
    return good("train:\n" + lines).train


def faults(section):
    return [(d.code, str(d.span)) for d in read(section)[1].diagnostics]


def test_train_values():
    found = train(
        data="digits",
        epochs=90,
        steps=1000,
        batch=64,
        seed=7,
        ema=0.999,
        label_smoothing=0.1,
        tbptt=35,
        shuffle="false",
        accumulate=2,
    )
    assert (found.data, found.epochs, found.steps, found.batch) == ("digits", 90, 1000, 64)
    assert (found.seed, found.ema, found.label_smoothing, found.tbptt) == (7, 0.999, 0.1, 35)
    assert (found.shuffle, found.accumulate) == (False, 2)
    assert str(found.spans["epochs"]) == "7:11"


def test_objective_in_a_block_and_in_a_line():
    text = "train:\n  objective: |\n    input label : i32[N]\n    loss = f(label)\n"
    block = good(text).train.objective
    assert block.text == "input label : i32[N]\n    loss = f(label)"
    assert (BASE + text)[block.span.start : block.span.end] == block.text
    assert str(block.span) == "7:5"
    line = train(objective="cross_entropy(y, label)").objective
    assert (line.text, str(line.span)) == ("cross_entropy(y, label)", "6:14")
    quoted = train(objective='"f(a, b)"').objective
    assert (quoted.text, str(quoted.span)) == ("f(a, b)", "6:15")


def test_objectives():
    found = good(
        "train:\n  objectives:\n"
        "    - {name: D, loss: loss_D, over: D, steps: 5,\n"
        '       optimizer: "adam(1e-4, betas=[0, 0.9])"}\n'
        "    - {loss: loss_G, over: [G, enc.*], clip: weights(0.01)}\n"
    ).train.objectives
    first, second = found
    assert (first.name, first.loss.text, first.steps) == ("D", "loss_D", 5)
    assert [x.value for x in first.over] == ["D"]
    assert first.optimizer.settings["betas"] == (0, 0.9)
    assert [x.value for x in second.over] == ["G", "enc.*"]
    assert (second.steps, second.clip.name, second.clip.settings) == (1, "weights", {"limit": 0.01})
    assert str(second.loss.span) == "9:14"


@pytest.mark.parametrize(
    ("call", "settings"),
    [
        (
            "sgd(lr=0.1, momentum=0.9, nesterov=true, weight_decay=1e-4)",
            {
                "lr": 0.1,
                "momentum": 0.9,
                "dampening": 0.0,
                "nesterov": True,
                "weight_decay": 1e-4,
            },
        ),
        ("sgd", {"lr": 1e-3, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0}),
        (
            "adagrad()",
            {"lr": 0.01, "lr_decay": 0, "eps": 1e-10, "weight_decay": 0, "initial": 0},
        ),
        ("adadelta(0.5)", {"lr": 0.5, "rho": 0.9, "eps": 1e-6, "weight_decay": 0}),
        (
            "rmsprop(alpha=0.9)",
            {
                "lr": 0.01,
                "alpha": 0.9,
                "eps": 1e-8,
                "momentum": 0,
                "centered": False,
                "weight_decay": 0,
            },
        ),
        (
            "adam(1e-4, [0.5, 0.999])",
            {
                "lr": 1e-4,
                "betas": (0.5, 0.999),
                "eps": 1e-8,
                "weight_decay": 0,
                "amsgrad": False,
            },
        ),
        (
            "adamw",
            {
                "lr": 1e-3,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.01,
                "amsgrad": False,
            },
        ),
    ],
)
def test_optimizers_have_torch_s_defaults(call, settings):
    found = train(optimizer=call).optimizer
    assert found.name == call.partition("(")[0]
    assert found.settings == settings


def test_call_places():
    found = train(optimizer="sgd(lr=0.1,  momentum=0.9)").optimizer
    assert str(found.span) == "6:14"
    assert str(found.spans["lr"]) == "6:21"
    assert str(found.spans["momentum"]) == "6:36"
    assert set(found.spans) == {"lr", "momentum"}


def test_schedules_compose():
    found = train(schedule="warmup(5) >> cosine(85, min=1e-5) >> multistep([30, 60], 0.2)").schedule
    assert [call.name for call in found] == ["warmup", "cosine", "multistep"]
    assert found[0].settings == {"epochs": 5, "start": 0.0}
    assert found[1].settings == {"epochs": 85, "min": 1e-5}
    assert found[2].settings == {"at": (30, 60), "gamma": 0.2}
    assert str(found[2].span) == "6:50"


@pytest.mark.parametrize(
    "call",
    [
        "constant",
        "step(30)",
        "cyclic(0.1, 1.0, up=2)",
        "one_cycle(30, max=1.0)",
        "linear_scaling(256) >> warmup(5)",
        "exponential(0.97)",
        "poly(90, power=0.9)",
    ],
)
def test_every_schedule_is_read(call):
    assert train(schedule=call).schedule[0].name == call.partition("(")[0]


def test_short_forms():
    assert train(clip=1.0).clip.settings == {"limit": 1.0}
    assert train(clip=5).clip.name == "norm"
    assert train(clip="value(0.5)").clip.name == "value"
    assert [train(memory=size).memory for size in ("2GB", "512MiB", "1.5 GB", 1000)] == [
        2_000_000_000,
        536_870_912,
        1_500_000_000,
        1000,
    ]


def test_nested_records():
    found = good(
        "train:\n  metrics: {accuracy: mean(y)}\n  validate: {fraction: 0.1, every: 2}\n"
        "  early_stop: {metric: accuracy, mode: max, patience: 3}\n"
        "  checkpoint: {every: 5, best: accuracy, path: runs}\n"
        "  augment: hflip >> crop(32, pad=4)\n"
        '  freeze: [layer1.*]\n  init: {layer1.conv: "normal(0, 0.01)"}\n'
        "  weight_decay_exclude: ['*.bn*', bias]\n"
    ).train
    assert found.metrics["accuracy"].text == "mean(y)"
    assert (found.validate.fraction, found.validate.every) == (0.1, 2)
    assert (found.early_stop.mode, found.early_stop.patience) == ("max", 3)
    assert (found.checkpoint.best, found.checkpoint.path) == ("accuracy", "runs")
    assert found.augment[1].settings == {"size": 32, "pad": 4}
    assert [x.value for x in found.freeze] == ["layer1.*"]
    assert found.init["layer1.conv"].value.text == "normal(0, 0.01)"
    assert [x.value for x in found.weight_decay_exclude] == ["*.bn*", "bias"]


def test_solve_and_learn():
    solve = good("solve: {method: modified_policy_iteration, tol: 1e-9, sweeps: 20}\n").solve
    assert (solve.method, solve.tol, solve.sweeps) == ("modified_policy_iteration", 1e-9, 20)
    learn = good(
        "learn:\n  method: td_lambda\n  lambda: 0.9\n  episodes: 500\n  seeds: [1, 2]\n"
        "  explore: epsilon_greedy(0.1, final=0.01, episodes=100)\n"
    ).learn
    assert (learn.lambda_, learn.episodes, learn.seeds) == (0.9, 500, (1, 2))
    assert learn.explore.settings == {"epsilon": 0.1, "final": 0.01, "episodes": 100}
    assert good("learn: {method: td_n, n: 4, seeds: 3}\n").learn.seeds == (3,)


def test_data():
    data = good(
        "data:\n  d: digits\n  table: tables/p.npz\n  wall: [[0, 1], [true, 0]]\n  rho: 0.5\n"
        "  own:\n    path: x.csv\n    columns: {x: [a, b], label: 3}\n"
        "    split: {train: 0.8, test: 0.2}\n"
        "  pictures: {path: photos, format: images, size: [32, 32], mean: [0.5], split: train}\n"
    ).data
    assert (data["d"].source, data["d"].path) == ("digits", None)
    assert data["table"].path == "tables/p.npz"
    assert data["wall"].inline == ((0, 1), (True, 0))
    assert data["rho"].inline == 0.5
    assert data["own"].columns == {"x": ("a", "b"), "label": ("3",)}
    assert data["own"].split == {"train": 0.8, "test": 0.2}
    assert (data["pictures"].size, data["pictures"].split) == ((32, 32), "train")


def test_weights():
    rules = good(
        'weights: {torch: {"weight_ih_l0[0:H]": W_i, "w[H:2*H, :]": cell.W_f, fc.bias: b}}\n'
    ).weights["torch"]
    first, second, third = rules
    h = symbol("H")
    assert (first.file_name, first.path) == ("weight_ih_l0", "W_i")
    assert [(s.start, s.stop) for s in first.slices] == [(0, h)]
    assert [(s.start, s.stop) for s in second.slices] == [(h, 2 * h), (None, None)]
    assert (third.file_name, third.slices, third.path) == ("fc.bias", (), "b")
    assert (str(first.span), str(first.path_span)) == ("5:19", "5:40")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("train:\n  lr: 1\n", ("E004", "6:3")),
        ("train: digits\n", ("E006", "5:8")),
        ("train:\n  epochs: 0\n", ("E016", "6:11")),
        ("train:\n  epochs: 1.5\n", ("E006", "6:11")),
        ("train:\n  ema: 1\n", ("E016", "6:8")),
        ("train:\n  label_smoothing: 1\n", ("E016", "6:20")),
        ("train:\n  memory: 2 apples\n", ("E006", "6:11")),
        ("train:\n  memory: 0\n", ("E016", "6:11")),
        ("train:\n  objective: >\n    a\n", ("E006", "6:14")),
        ("train:\n  objective: a\n    b\n", ("E006", "6:14")),
        ("train:\n  metrics: {a: 'it''s'}\n", ("E006", "6:16")),
        ("train:\n  objectives: []\n", ("E016", "6:15")),
        ("train:\n  objectives: [{over: G}]\n", ("E007", "6:16")),
        ("train:\n  optimizer: sdg(lr=0.1)\n", ("E301", "6:14")),
        ("train:\n  optimizer: sgd(lr=0)\n", ("E016", "6:21")),
        ("train:\n  optimizer: sgd(momentum=1)\n", ("E016", "6:27")),
        ("train:\n  optimizer: sgd(lr=big)\n", ("E006", "6:21")),
        ("train:\n  optimizer: sgd(momentun=0.9)\n", ("E401", "6:18")),
        ("train:\n  optimizer: sgd(0.1, lr=0.2)\n", ("E403", "6:23")),
        ("train:\n  optimizer: sgd(lr=0.1, 0.9)\n", ("E201", "6:26")),
        ("train:\n  optimizer: constant(1, 2)\n", ("E301", "6:14")),
        ("train:\n  optimizer: sgd >> adam\n", ("E201", "6:21")),
        ("train:\n  optimizer: sgd(lr=0.1\n", ("E203", "6:17")),
        ("train:\n  optimizer: adam(betas=[0.9)\n", ("E201", "6:29")),
        ("train:\n  optimizer: adam(betas=[0.9])\n", ("E016", "6:25")),
        ("train:\n  optimizer: sgd(nesterov=true)\n", ("E016", "6:27")),
        ("train:\n  optimizer: 0.1\n", ("E006", "6:14")),
        ("train:\n  schedule: step\n", ("E402", "6:13")),
        ("train:\n  schedule: constant(1, 2, 3)\n", ("E403", "6:28")),
        ("train:\n  schedule: warmup(5) cosine(9)\n", ("E201", "6:23")),
        ("train:\n  schedule: warmup(5) >>\n", ("E201", "6:25")),
        ("train:\n  schedule: warmup($)\n", ("E202", "6:20")),
        (f"train:\n  schedule: multistep({'[' * 20})\n", ("E207", "6:40")),
        ("train:\n  clip: -1\n", ("E016", "6:9")),
        ("train:\n  freeze: [a b]\n", ("E006", "6:12")),
        ("train:\n  early_stop: {metric: auc}\n", ("E301", "6:24")),
        ("train:\n  validate: {data: d, fraction: 0.1}\n", ("E016", "6:33")),
        (
            "train:\n  objectives: [{name: a, loss: x}, {name: a, loss: y}]\n",
            ("E016", "6:43"),
        ),
        ("solve: {method: value_iterations}\n", ("E006", "5:17")),
        ("solve: {tol: 0}\n", ("E016", "5:14")),
        ("solve: {gamma: 1.1}\n", ("E016", "5:16")),
        ("learn: {episodes: 3}\n", ("E007", "5:8")),
        ("learn: {method: td_n}\n", ("E007", "5:17")),
        ("learn: {method: td0, n: 3}\n", ("E016", "5:25")),
        ("learn: {method: sarsa, epsilon: 0.1, explore: greedy}\n", ("E016", "5:33")),
        ("data: {x: {format: npz}}\n", ("E007", "5:11")),
        ("data: {x: {path: photos}}\n", ("E007", "5:18")),
        ("data: {x: {path: a.csv, source: b}}\n", ("E016", "5:18")),
        ("data: {x: {path: a.csv, split: {a: 0.8, b: 0.4}}}\n", ("E016", "5:32")),
        ("data: {x: [1, two]}\n", ("E006", "5:15")),
        ("data: {x: true}\n", ("E006", "5:11")),
        ('weights: {torch: {"a[0]": b}}\n', ("E006", "5:19")),
        ('weights: {torch: {"a[0:1/0]": b}}\n', ("E006", "5:19")),
        ('weights: {torch: {"a[0:1//0]": b}}\n', ("E006", "5:19")),
        ('weights: {torch: {"a[": b}}\n', ("E006", "5:19")),
        ("weights: {torch: {a: [b]}}\n", ("E006", "5:22")),
        ("weights: {troch: {a: b}}\n", ("E004", "5:11")),
    ],
)
def test_one_fault_at_its_place(section, expected):
    assert faults(section) == [expected]


def test_faults_of_one_section_come_together():
    found = faults("train:\n  epoch: 3\n  batch: 0\n  optimizer: sgd(lr=-1, x=2)\n  seed: s\n")
    assert found == [
        ("E004", "6:3"),
        ("E016", "7:10"),
        ("E401", "8:25"),
        ("E016", "8:21"),
        ("E006", "9:9"),
    ]


def test_a_wrong_value_leaves_its_default():
    envelope, reporter = read("train:\n  batch: 0\n  seed: s\n  epochs: 3\n")
    assert reporter.failed
    assert envelope is not None and envelope.train is not None
    found = envelope.train
    assert (found.batch, found.seed, found.epochs) == (None, 0, 3)


@pytest.mark.parametrize("family", [OPTIMIZERS, SCHEDULES, CLIPS, EXPLORATION, AUGMENTATIONS])
def test_families_name_each_thing_once(family):
    assert len(set(family.names)) == len(family.names)
    for rule in family.rules:
        names = [parameter.name for parameter in rule.parameters]
        assert len(set(names)) == len(names)
        assert rule.help


CALL_PIECES = st.sampled_from(
    ["sgd", "step", "lr", "(", ")", "[", "]", ",", "=", ">>", " ", "0.1", "1e", "-", "true", '"a"']
)


@given(st.lists(CALL_PIECES, max_size=14).map("".join))
def test_any_call_text_gives_a_call_or_messages(text):
    quoted = text.replace("'", "''")
    envelope, reporter = read(f"train:\n  optimizer: '{quoted}'\n  schedule: '{quoted}'\n")
    assert envelope is not None and envelope.train is not None
    assert (envelope.train.optimizer is not None and envelope.train.schedule) or reporter.failed

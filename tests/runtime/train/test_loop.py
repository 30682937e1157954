"""Training end to end: bits, interruption, stopping, faults; by both engines where bits count."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from tilth.execution import KEPT
from tilth.feeding import feeding
from tilth.program import SpecError, load
from tilth.runtime import kernel_cache
from tilth.runtime.data import ArrayDataset
from tilth.runtime.train.checkpoints import LAST, load_checkpoint, read_checkpoint
from tilth.runtime.train.confusion import read_confusion
from tilth.runtime.train.logging import read_metrics
from tilth.steps import ENGINES, by_reference
from tilth.training import Silent, Work, stated

SPEC = """tilth: 1
name: tiny
model: |
  input x : f32[N, 6]
  h = x >> linear(16) as trunk >> bn as norm >> tanh >> dropout(0.2)
  y = h >> linear(3) as head
  output y
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(y, label)
  optimizer: adam(lr=0.02)
  schedule: warmup(1) >> cosine(3)
  batch: 16
  epochs: 4
  ema: 0.9
  metrics:
    accuracy: accuracy(y, label)
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Write a spec; the working folder is a new one."""
    monkeypatch.chdir(tmp_path)

    def write(text=SPEC):
        (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "tiny.yaml"

    return write


def examples(count=100, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count).astype(np.int32)
    x = rng.standard_normal((count, 6)) * 0.3
    x[np.arange(count), label] += 2
    return {"x": x.astype(np.float32), "label": label}


def changed(**settings):
    """The spec with lines of `train:` replaced or added."""
    lines = SPEC.splitlines()
    for key, value in settings.items():
        lines = [line for line in lines if not line.startswith(f"  {key}:")]
        lines.append(f"  {key}: {value}")
    return "\n".join(lines) + "\n"


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


class Interrupting(Silent):
    """Presses Ctrl-C after some steps."""

    def __init__(self, after):
        self.left = after

    def step(self, epoch, done, examples, values):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


engines = pytest.mark.parametrize("engine", ["cpu", "reference"])


def test_a_classifier_learns(spec):
    run = load(spec()).train(examples(), validate=examples(60, seed=1), show=False)
    assert run.reason == "epochs" and run.epochs == 4 and run.updates == 4 * 6
    assert run.metrics["val accuracy"] > 0.95 and run.metrics["loss"] < 0.6
    parts = {part for _, _, part, _ in run.history}
    assert parts == {"train", "validate"} and len(run.history) == 24 + 4
    found = load(spec()).run({"x": examples()["x"]}, run.weights)["y"]
    assert np.mean(found.argmax(1) == examples()["label"]) > 0.95


@engines
def test_the_same_seed_gives_the_same_bits(spec, engine):
    how = {"engine": engine, "show": False}
    first, again = (load(spec()).train(examples(), **how) for _ in range(2))
    other = load(spec()).train(examples(), seed=1, **how)
    assert same(first.weights, again.weights)
    assert not same(first.weights, other.weights)


@engines
def test_two_epochs_and_two_more_are_four(spec, tmp_path, engine):
    how = {"engine": engine, "show": False}
    whole = load(spec()).train(examples(), out=tmp_path / "whole", **how)
    load(spec()).train(examples(), epochs=2, out=tmp_path / "parts", **how)
    parts = load(spec()).train(examples(), out=tmp_path / "parts", resume=True, **how)
    assert same(whole.weights, parts.weights)
    ends = [read_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts")]
    assert same(ends[0].slots, ends[1].slots) and same(ends[0].weights, ends[1].weights)
    logs = [read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "parts")]
    values = [[{k: v for k, v in row.items() if k != "seconds"} for row in log] for log in logs]
    assert values[0] == values[1]


@engines
@pytest.mark.parametrize("after", [1, 6, 9])
def test_an_interrupted_run_goes_on_bit_for_bit(spec, tmp_path, after, engine):
    how = {"engine": engine, "out": tmp_path / "run"}
    whole = load(spec()).train(examples(), engine=engine, show=False)
    stopped = load(spec()).train(examples(), show=Interrupting(after), **how)
    assert stopped.reason == "interrupted" and stopped.updates == after
    rest = load(spec()).train(examples(), resume=True, show=False, **how)
    assert rest.reason == "epochs" and same(whole.weights, rest.weights)


@engines
def test_a_killed_run_loses_at_most_what_came_after_its_checkpoint(spec, tmp_path, engine):
    whole = load(spec()).train(examples(), engine=engine, show=False)
    np.savez(tmp_path / "data.npz", **examples())
    code = (
        "import os, sys, tilth\nfrom tilth.training import Silent\n"
        "class Dies(Silent):\n"
        "    count = 0\n"
        "    def step(self, *rest):\n"
        "        Dies.count += 1\n"
        "        if Dies.count == 15: os.kill(os.getpid(), 9)\n"
        "how = {'out': 'run', 'engine': sys.argv[1], 'show': Dies()}\n"
        "tilth.load('tiny.yaml').train('data.npz', **how)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, engine], cwd=tmp_path, check=False)
    assert done.returncode == -9
    found = load_checkpoint(tmp_path / "run")
    assert found is not None and found.state["updates"] == 12
    how = {"engine": engine, "out": tmp_path / "run", "resume": True, "show": False}
    rest = load(spec()).train("data.npz", **how)
    assert same(whole.weights, rest.weights)


def test_a_finished_run_goes_on_when_more_epochs_are_asked_for(spec, tmp_path):
    load(spec()).train(examples(), epochs=2, out=tmp_path / "run", show=False)
    again = load(spec()).train(examples(), epochs=2, out=tmp_path / "run", resume=True, show=False)
    assert again.updates == 12 and again.reason == "epochs" and again.history == ()


def test_batches_may_add_up_to_one_update(spec):
    """Two batches of 8 make the update of one of 16, where nothing depends on the batch."""
    text = SPEC.replace(" >> bn as norm", "").replace(" >> dropout(0.2)", "")
    run = load(spec(text)).train(examples(96), epochs=1, show=False)
    halves = text.replace("batch: 16", "batch: 8\n  accumulate: 2")
    twice = load(spec(halves)).train(examples(96), epochs=1, show=False)
    assert run.updates == twice.updates == 6
    for path, weight in run.weights.items():
        np.testing.assert_allclose(twice.weights[path], weight, rtol=2e-4, atol=2e-6)


def test_steps_bound_a_run(spec):
    run = load(spec()).train(examples(), steps=7, show=False)
    assert run.updates == 7 and run.reason == "steps"


def test_objectives_take_turns(spec):
    text = changed(ema="0.5")
    text = text.replace("    loss = cross_entropy(y, label)\n", "    e = cross_entropy(y, label)\n")
    text += (
        "  objectives:\n    - {name: head, loss: e, over: head, steps: 2}\n"
        '    - {name: rest, loss: e, over: [trunk, norm], optimizer: "sgd(lr=0.5)"}\n'
    )
    program = load(spec(text))
    before = program.initial_weights(0)
    run = program.train(examples(), steps=2, show=False)
    moved = {
        path for path, weight in before.items() if not np.array_equal(weight, run.weights[path])
    }
    assert moved == {"head.weight", "head.bias", "norm.running_mean", "norm.running_var"}
    names = [set(values) & {"head", "rest"} for _, _, _, values in
             program.train(examples(), steps=6, show=False).history]  # fmt: skip
    assert names == [{"head"}, {"head"}, {"rest"}] * 2


def test_frozen_weights_and_statistics_stay(spec):
    program = load(spec(changed(freeze="[trunk, norm]", ema="0.5")))
    before = program.initial_weights(0)
    run = program.train(examples(), epochs=1, show=False)
    moved = {p for p, weight in before.items() if not np.array_equal(weight, run.weights[p])}
    assert moved == {"head.weight", "head.bias"}


def test_an_average_of_the_weights_is_validated_and_returned(spec, tmp_path):
    run = load(spec()).train(examples(), out=tmp_path / "run", show=False)
    last = read_checkpoint(tmp_path / "run" / LAST)
    assert not np.array_equal(run.weights["head.weight"], last.weights["head.weight"])


def test_confusions_are_counted_while_validating(spec, tmp_path):
    held = examples(60, seed=1)
    run = load(spec()).train(examples(), validate=held, out=tmp_path / "run", show=False)
    scores = load(spec()).run({"x": held["x"]}, run.weights)["y"]
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (held["label"], scores.argmax(1)), 1)
    assert run.confusion is not None and (run.confusion.counts == counts).all()
    assert run.confusion.accuracy == pytest.approx(run.metrics["val accuracy"])
    assert (read_confusion(tmp_path / "run" / "confusion.csv").counts == counts).all()


def test_confusions_of_sequences_have_their_classes_on_another_axis(spec):
    text = SPEC.replace("x : f32[N, 6]", "x : f32[N, T, 6]").replace(" >> bn as norm", "")
    text = text.replace("label : i32[N]", "label : i32[N, T]")
    text = text.replace("cross_entropy(y, label)", "cross_entropy(y, label, axis=2)")
    text = text.partition("  metrics")[0]
    given = {n: a.reshape(20, 5, *a.shape[1:]) for n, a in examples().items()}
    run = load(spec(text)).train(given, validate=given, batch=10, show=False)
    predicted = load(spec(text)).run({"x": given["x"]}, run.weights)["y"].argmax(2)
    assert run.confusion is not None and run.confusion.counts.sum() == 100
    assert run.confusion.accuracy == pytest.approx(np.mean(predicted == given["label"]))


def test_nothing_to_validate_on_is_told(spec):
    with pytest.raises(SpecError, match="no batches"):
        load(spec()).train([examples(20)], validate=[], show=False)


@pytest.mark.parametrize("bound", [{"epochs": 2}, {"steps": 3}])
def test_iterables_without_a_batch_end_with_a_message(spec, bound):
    with pytest.raises(SpecError, match="no batches"):
        load(spec()).train([], show=False, **bound)


def test_training_stops_early_and_keeps_the_best(spec, tmp_path):
    text = changed(
        early_stop="{metric: loss, patience: 2}",
        epochs="50",
        optimizer="sgd(lr=3.0)",
        schedule="step(99)",
    )
    rng = np.random.default_rng(5)
    noise = {**examples(60, 1), "label": rng.integers(0, 3, 60).astype(np.int32)}
    run = load(spec(text)).train(examples(), validate=noise, out=tmp_path / "run", show=False)
    assert run.reason == "early_stop" and run.epochs < 50
    losses = [values["loss"] for _, _, part, values in run.history if part == "validate"]
    assert losses.index(min(losses)) == len(losses) - 3
    best = read_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.state["loss"] == min(losses) and run.best is not None
    assert same(dict(run.best), dict(best.weights))
    updates = [made for made, _, part, _ in run.history if part == "validate"]
    assert run.best_score == ("loss", min(losses), updates[-3])


def test_a_number_that_is_not_finite_is_traced_to_its_layer(spec, tmp_path):
    text = SPEC.replace("y = h >> linear(3) as head", "y = log(h - 9) >> linear(3) as head")
    with pytest.raises(SpecError) as caught:
        load(spec(text)).train(examples(), out=tmp_path / "run", show=False)
    assert caught.value.diagnostics[0].code == "E810"
    assert re.search(r"the first came out of `log` of `y.*` at 6:7", str(caught.value))
    assert not (tmp_path / "run" / LAST).exists() and "checkpoint" not in str(caught.value)


def test_data_that_is_not_finite_is_told_as_such(spec):
    given = examples()
    given["x"][37, 2] = np.nan
    with pytest.raises(SpecError, match=r"E807\]: `x` of an example holds nan"):
        load(spec()).train(given, epochs=1, show=False)


def test_data_fills_the_inputs_by_its_form(spec):
    given = examples()
    dataset = ArrayDataset({"features": given["x"], "label": given["label"]})
    run = load(spec()).train(dataset, epochs=1, show=False)
    assert run.updates == 6


def test_batches_of_an_iterable_will_do(spec):
    given = examples()
    batches = [{n: a[i : i + 20] for n, a in given.items()} for i in range(0, 100, 20)]
    run = load(spec()).train(batches, epochs=2, show=False)
    assert run.updates == 10


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda d: {**d, "label": d["label"] + 1}, "E807", "there are 3 classes"),
        (lambda d: {"x": d["x"]}, "E802", "label"),
        (lambda d: {**d, "x": d["x"][:, :5]}, "E802", "x"),
        (lambda d: {n: a[:0] for n, a in d.items()}, "E807", "no examples"),
        (lambda d: "nowhere", "E807", "nowhere"),
        (lambda d: 3, "E807", "int"),
        (lambda d: None, "E807", "no data"),
    ],
)
def test_bad_data_gets_one_clear_message(spec, change, code, word):
    with pytest.raises(SpecError) as caught:
        load(spec()).train(change(examples()), show=False)
    assert [d.code for d in caught.value.diagnostics] == [code]
    assert word in str(caught.value)


def test_a_run_is_not_overwritten_nor_taken_up_by_another(spec, tmp_path):
    load(spec()).train(examples(), epochs=1, out=tmp_path / "run", show=False)
    with pytest.raises(SpecError, match="holds a run already"):
        load(spec()).train(examples(), out=tmp_path / "run", show=False)
    with pytest.raises(SpecError, match="another run"):
        load(spec()).train(examples(seed=9), out=tmp_path / "run", resume=True, show=False)


def test_a_spec_without_an_objective_is_told_what_it_lacks(spec):
    text = SPEC.partition("train:")[0]
    with pytest.raises(SpecError) as caught:
        load(spec(text)).train(examples(), show=False)
    assert caught.value.diagnostics[0].code == "E007" and "objective" in str(caught.value)


def test_compiled_steps_give_what_the_reference_gives(spec):
    text = SPEC.replace(" >> bn as norm >> tanh >> dropout(0.2)", " >> tanh")
    text = text.replace("input label : i32[N]", "input t : f32[N, 3]")
    text = text.replace("cross_entropy(y, label)", "mean((y - t) * (y - t))").partition(
        "  metrics"
    )[0]
    given = {"x": examples()["x"], "t": np.tanh(examples()["x"][:, :3])}
    reference, compiled = (
        load(spec(text)).train(given, epochs=2, engine=engine, show=False)
        for engine in ("reference", "cpu")
    )
    for path, weight in reference.weights.items():
        np.testing.assert_allclose(compiled.weights[path], weight, rtol=1e-4, atol=1e-6)


class Noting(Silent):
    """Keeps the lines that are said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_what_has_no_kernel_is_trained_by_the_reference_and_that_is_said(spec):
    text = SPEC.replace("    loss = ", "    u, s, v = svd(h)\n    loss = 0.01 * sum(s) + ")
    noting = Noting()
    run = load(spec(text)).train(examples(), epochs=2, show=noting)
    by = load(spec(text)).train(examples(), epochs=2, engine="reference", show=False)
    assert same(run.weights, by.weights)
    (line,) = [line for line in noting.lines if "reference" in line]
    assert "steps run in the reference interpreter" in line and "kernel for `svd`" in line
    with pytest.raises(SpecError, match="no CPU kernel for `svd`"):
        load(spec(text)).train(examples(), engine="cpu", show=False)


def test_a_wait_for_kernels_is_said_once(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(kernel_cache, "_loaded", {})  # what this process has met before
    text = SPEC.partition(">> bn")[0] + "\n  y = h >> linear(3) as head\n  output y\n"
    text += "train:\n  objective: mean(y * y)\n  batch: 16\n"
    said = []
    for _ in range(2):
        noting = Noting()
        load(spec(text)).train({"x": examples(16)["x"]}, epochs=1, show=noting)
        said.append([line for line in noting.lines if line.startswith("compiling kernels")])
    assert len(said[0]) == 1 and said[1] == []


def test_what_has_kernels_is_compiled_without_being_asked_for(spec):
    noting = Noting()
    run = load(spec()).train(examples(), show=noting)
    assert not any("reference" in line for line in noting.lines)
    assert same(run.weights, load(spec()).train(examples(), engine="cpu", show=False).weights)


def test_the_time_that_compiling_takes_is_told_apart(spec, monkeypatch):
    class Timing(Silent):
        waits, counts = (), ()

        def prepared(self, seconds):
            self.waits += (seconds,)

        def step(self, epoch, done, examples, values):
            self.counts += (len(self.waits),)

    def slowly(graph, options, note):
        time.sleep(0.2)
        return by_reference(graph, options, note)

    monkeypatch.setitem(ENGINES, "reference", slowly)
    timing = Timing()
    load(spec()).train(examples(), validate=examples(16), epochs=2, engine="reference", show=timing)
    slow = [place for place, seconds in enumerate(timing.waits) if seconds > 0.1]
    # The first batch of six, and the first validation.
    assert slow == [0, 6] and timing.counts == (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13)


def test_steps_of_many_shapes_are_not_all_kept(spec):
    noting, lengths = Noting(), [*range(2, KEPT + 4), 2, 3, KEPT + 3]
    text = SPEC.replace("f32[N, 6]", "f32[N, T, 6]").replace(" >> bn as norm", "")
    text = text.replace("i32[N]", "i32[N, T]").replace("label)", "label, axis=2)")
    program = load(spec(text), set={"train.epochs": 1})
    training, section = stated(program)
    made = {}

    def counting(graph, options, note):
        call = by_reference(graph, options, note)
        shape = graph.type_of(graph.operands(graph.of_op("tanh")[0][0])[0]).shape
        held = made.setdefault(shape[1], [])
        held.append(weakref.ref(call))
        return call

    batches = [
        {"x": np.zeros((4, t, 6), np.float32), "label": np.zeros((4, t), np.int32)} for t in lengths
    ]
    work = Work(program, training, section, feeding(program, training, section, batches, None))
    work.steps.compile = counting
    work.run(None, False, None, noting)
    gc.collect()
    kept = [t for t, calls in made.items() if any(call() is not None for call in calls)]
    # The two that came back after they had gone were compiled again.
    assert len(kept) == KEPT and {2, 3, KEPT + 3} <= set(kept)
    assert [t for t, calls in made.items() if len(calls) == 2] == [2, 3]
    (line,) = noting.lines
    assert f"more than {KEPT} shapes" in line


def test_scheduled_drop_path_is_compiled(spec):
    text = SPEC.replace(">> dropout(0.2)", ">> drop_path(0.3, ramp=10)").replace("adam", "sgd")
    compiled, reference = (
        load(spec(text)).train(examples(), engine=engine, epochs=2, show=False)
        for engine in ("cpu", "reference")
    )
    for path, weight in reference.weights.items():
        np.testing.assert_allclose(compiled.weights[path], weight, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- the command


def command(folder, *words):
    code = "import sys; from tilth.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_trains_and_overrides(spec, tmp_path):
    np.savez(tmp_path / "data.npz", **examples())
    words = ("train", str(spec()), "--data", "data.npz", "--out", "runs/x", "--json")
    done = command(
        tmp_path, *words, "--set", "train.epochs=2", "--set", "train.validate.fraction=0.2"
    )
    out, err = done.communicate()
    assert done.returncode == 0, err
    found = json.loads(out)
    assert found["epochs"] == 2 and found["updates"] == 10 and "val accuracy" in found["metrics"]
    assert set(found["accuracy_by_class"]) == {"0", "1", "2"}
    assert found["best"]["metric"] in ("loss", "accuracy") and found["best"]["updates"] in (5, 10)
    assert (tmp_path / "runs/x/metrics.csv").exists() and "epoch 2/2" in err and "\x1b" not in err


def test_ctrl_c_saves_and_resume_goes_on(spec, tmp_path):
    np.savez(tmp_path / "data.npz", **examples(4000))
    words = ("train", str(spec()), "--data", "data.npz", "--out", "runs/x")
    started = command(tmp_path, *words, "--set", "train.epochs=60")
    log = tmp_path / "runs/x/metrics.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130 and "--resume" in err, err
    saved = read_checkpoint(tmp_path / "runs/x" / LAST)
    assert 0 < saved.state["updates"] < 60 * 250
    again = command(tmp_path, *words, "--resume", "--set", "train.epochs=1")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0 and "going on" in err, err

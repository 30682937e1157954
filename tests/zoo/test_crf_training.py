"""A net with a dense field on top learns end to end: by command and in compiled steps."""

import csv

import numpy as np
import pytest
from tilth.cli.main import main
from tilth.program import load

OPTIONS = {
    "L": 2, "width": 4, "theta_alpha": 5, "theta_beta": 0.5, "theta_gamma": 1.5, "steps": 3,
    "train.optimizer": "adam(lr=0.02)", "train.batch": 6,
}  # fmt: skip


def discs(seed, count, size=10):
    """Pictures of a bright disc in strong noise, and which pixels are in it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    a, b = rng.uniform(3, size - 3, (2, count, 1, 1))
    masks = np.hypot(rows - a, columns - b) < rng.uniform(2.5, 4, (count, 1, 1))
    image = masks[:, None] + rng.normal(size=(count, 3, size, size)) * 0.6
    return {"image": image.astype(np.float32), "label": masks.astype(np.int32)}


def right(program, weights, data):
    found = program.run({"image": data["image"]}, weights)["q"].argmax(-1)
    return float(np.mean(found == data["label"]))


def test_the_command_line_trains_it(tmp_path):
    held_out = discs(1, 24)
    parts = {f"{name}_train": array for name, array in discs(0, 24).items()}
    parts |= {f"{name}_test": array for name, array in held_out.items()}
    np.savez(tmp_path / "discs.npz", **parts)
    words = [f"--set={name}={value}" for name, value in OPTIONS.items()]
    run = tmp_path / "run"
    data = str(tmp_path / "discs.npz")
    code = main(["train", "crf_as_rnn", "--data", data, "--out", str(run), *words,
                 "--set=train.epochs=20", "--set=train.seed=0"])  # fmt: skip
    assert code == 0
    with (run / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["part"] == "train"]
    assert losses[-1] < losses[0] / 5
    program = load("crf_as_rnn", set=OPTIONS)
    (best,) = run.glob("best*.safetensors")
    before = right(program, program.initial_weights(0), held_out)
    after = right(program, str(best), held_out)
    # As many pixels as there are outside of discs are right before.
    assert before < 0.75 and after > 0.88
    learnt = program.weights_for(str(best))
    assert all(np.ptp(learnt[name] - start) > 0.01 for name, start in
               program.initial_weights(0).items() if name in ("w", "mu"))  # fmt: skip


def test_compiled_steps_learn_the_same():
    program = load("crf_as_rnn", set=OPTIONS)
    runs = [
        program.train(discs(0, 24), epochs=3, seed=0, engine=engine, show=False)
        for engine in ("reference", "cpu")
    ]
    losses = [[row[3]["loss"] for row in run.history if "loss" in row[3]] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[1][-1] < 0.75 * losses[1][0]
    for path, want in runs[0].weights.items():
        np.testing.assert_allclose(runs[1].weights[path], want, atol=2e-4)

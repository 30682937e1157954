"""Steps of training in the bench: the problem, what is compared, and engines against it."""

import numpy as np
import pytest
from tilth.bench.compare import Row
from tilth.bench.engines import ENGINES
from tilth.bench.problem import Chosen, relative_error, write_problem
from tilth.bench.training import step_error
from tilth.cli.main import main
from tilth.compiler.ops.base import OpError

TINY = """\
tilth: 1
name: tiny
model: |
  input image : f32[N, 3, H, W]
  logits = image >> conv(18, 3, bias=false) as conv1 >> bn as bn1 >> relu
      >> maxpool(2) >> dropout(0.5) >> gap >> linear(5) as fc
  output logits
"""


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    folder = tmp_path / "problem"
    folder.mkdir()
    chosen = Chosen(str(path), sizes={"N": 4, "H": 9, "W": 8}, train=True)
    return write_problem(folder, chosen, onnx=False)


def test_loss_gradients_weights_and_statistics_are_compared(problem):
    again = type(problem)(problem.folder)
    assert again.chosen == problem.chosen
    learned = {"conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"}
    names = {f"{kind} {path}" for kind in ("gradient", "weight") for path in learned}
    names |= {"loss", "statistic bn1.running_mean", "statistic bn1.running_var"}
    assert set(again.reference) == names
    assert set(again.inputs) == {"image", "label"}
    assert again.inputs["label"].min() >= 0 and again.inputs["label"].max() < 5
    moved = again.reference["weight fc.bias"] - problem.weights["fc.bias"]
    np.testing.assert_allclose(moved, -1e-3 * again.reference["gradient fc.bias"], atol=1e-9)
    assert not again.graph.of_op("dropout"), "no two engines draw the same numbers"


def test_errors_are_those_of_the_worst_tensor():
    wanted = {"loss": np.ones(1), "gradient a": np.array([3.0, 4.0]), "gradient b": np.array([0.1]),
              "gradient zero": np.zeros(1), "weight a": np.ones(2)}  # fmt: skip
    assert step_error(wanted, wanted) == 0
    # A small tensor that is wrong is not hidden by large ones that are right.
    assert step_error({**wanted, "gradient b": np.array([0.2])}, wanted) == pytest.approx(1)
    assert step_error({**wanted, "loss": np.array([1.2])}, wanted) == pytest.approx(0.2)
    assert step_error({**wanted, "weight a": np.array([np.nan, 1])}, wanted) == np.inf
    assert step_error({**wanted, "gradient a": np.zeros(2)}, wanted) == pytest.approx(1.0)
    # What is zero but for rounding is measured by the size that gradients have.
    size = np.sqrt((25 + 0.01) / 4)
    close = {**wanted, "gradient zero": np.full(1, 1e-6)}
    assert step_error(close, wanted) == pytest.approx(1e-6 / (1e-3 * size))


def test_the_reference_engine_agrees(problem):
    call = ENGINES["reference"].prepare(problem, 1, "")
    assert relative_error(call(), problem.reference) < 1e-5


@pytest.mark.slow
def test_compiled_steps_agree_and_go_on(problem):
    engine = ENGINES["tilth"]
    assert engine.write is not None and engine.profile is not None
    assert engine.write(problem, 1) > 0
    call = engine.prepare(problem, 1, "")
    assert relative_error(call(), problem.reference) < 1e-5
    losses = [float(call()["loss"][0]) for _ in range(200)]
    assert losses[-1] < losses[0] - 1e-3, "states follow one another"
    assert engine.profile(problem, 1, "")


@pytest.mark.peer
@pytest.mark.parametrize("setting", ENGINES["torch"].training)
def test_pytorch_agrees(problem, setting):
    call = ENGINES["torch"].prepare(problem, 1, setting)
    assert relative_error(call(), problem.reference) < 1e-5


def test_a_model_without_scores_needs_an_objective(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("tilth: 1\nname: map\nmodel: |\n  input x : f32[N, 3, 4, 4]\n"
                    "  output y = x >> conv(2, 3) as c\n")  # fmt: skip
    with pytest.raises(OpError, match="no row of scores"):
        write_problem(tmp_path, Chosen(str(path), sizes={"N": 1}, train=True), onnx=False)


def test_rows_say_that_they_are_of_training():
    assert Row("tiny", 4, 2, "tilth", train=True).as_json()["train"] is True
    assert "train" not in Row("tiny", 4, 2, "tilth").as_json()


def test_engines_that_do_not_train_are_refused(capsys):
    assert main(["bench", "lenet", "--train", "--against", "openvino"]) == 2
    assert "does not train" in capsys.readouterr().err

"""What the bench does around the timing: problems, errors, workers, rows, results."""

import importlib.util
import json

import numpy as np
import pytest
import tilth
from tilth.bench import compare
from tilth.bench.compare import Row
from tilth.bench.engines import ENGINES, MEMORY, OWN, PEAK, PEERS, Engine
from tilth.bench.problem import Chosen, nominal_sizes, relative_error, write_problem
from tilth.bench.runner import Schedule, Spread
from tilth.bench.station import EngineFault, Station
from tilth.bench.torch_net import steps_of
from tilth.cli.main import main

TINY = """\
tilth: 1
name: tiny
model: |
  input image : f32[N, 3, H, W]
  logits = image >> conv(4, 3, bias=false) as conv1 >> bn as bn1 >> relu >> gap >> linear(5) as fc
  output logits
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def problem(spec, tmp_path):
    chosen = Chosen(spec, sizes={"N": 2, "H": 8, "W": 8})
    folder = tmp_path / "problem"
    folder.mkdir()
    return write_problem(folder, chosen, onnx=False)


def test_a_problem_is_the_same_everywhere(problem):
    again = type(problem)(problem.folder)
    assert again.chosen == problem.chosen
    assert again.graph == problem.graph
    assert again.weights.keys() == dict(problem.program.parameters()).keys()
    assert again.inputs["image"].shape == (2, 3, 8, 8)
    assert again.reference["logits"].dtype == np.float64
    variance = again.weights["bn1.running_var"]
    assert variance.min() > 0
    assert variance.std() > 0, "folding a norm of variance 1 would be no work"


def test_sizes_come_from_the_command_then_the_spec(spec):
    tiny = tilth.load(spec)
    assert nominal_sizes(tiny, 8, {}) == {"N": 8, "H": 224, "W": 224}
    assert nominal_sizes(tiny, 1, {"H": 64}) == {"N": 1, "H": 64, "W": 224}
    assert nominal_sizes(tiny, 1, {"image": (7, 3, 32, 16)}) == {"N": 1, "H": 32, "W": 16}
    inception = tilth.load("inception_v3")
    assert nominal_sizes(inception, 1, {}) == {"N": 1, "H": 299, "W": 299}


def test_relative_error():
    wanted = {"y": np.array([1.0, -4.0])}
    assert relative_error({"y": np.array([1.0, -4.0])}, wanted) == 0
    assert relative_error({"y": np.array([1.5, -4.0])}, wanted) == 0.125
    assert relative_error({"y": np.array([np.nan, -4.0])}, wanted) == float("inf")
    assert relative_error({"y": np.zeros(3)}, wanted) == float("inf")


def test_a_worker_starts_runs_and_ends(problem, tmp_path):
    with Station(problem, "reference", "", 1, tmp_path / "cache") as station:
        assert relative_error(station.outputs, problem.reference) < 1e-5
        assert station.start.first_s > 0
        assert station.start.peak is None or station.start.peak > 0
        seconds = station.turn(3)
        assert len(seconds) == 3
        assert min(seconds) > 0
        assert station.profile() == []
    assert station._process.returncode == 0


def test_an_engine_that_fails_says_why(problem):
    (problem.folder / "weights.safetensors").unlink()
    with pytest.raises(EngineFault, match="cannot read"):
        Station(problem, "reference", "", 1)


def test_torch_gets_folded_norms_and_work_in_place(problem):
    steps, arrays = steps_of(problem.graph, problem.weights)
    assert [step.op for step in steps] == ["conv", "relu_", "reduce", "linear"]
    kernel, bias = (arrays[v] for v in steps[0].operands[1:])
    w = problem.weights
    scale = w["bn1.weight"] / np.sqrt(w["bn1.running_var"] + 1e-5)
    assert np.allclose(kernel, w["conv1.weight"] * scale[:, None, None, None], rtol=1e-6)
    assert np.allclose(bias, w["bn1.bias"] - w["bn1.running_mean"] * scale, rtol=1e-5, atol=1e-6)
    assert steps[1].release == steps[0].results


ROW = Row("tiny", 1, 2, "reference", ms=Spread(1.5, 1.25, 2.0), max_rel_err=float("inf"))


def test_rows_as_json():
    row = ROW.as_json()
    asked = (
        "model", "batch", "threads", "engine", "median_ms", "peak_mb", "cold_s", "warm_s",
        "max_rel_err", "ratio_to_best_peer",
    )  # fmt: skip
    assert tuple(row) == asked
    assert row["median_ms"] == 1.5
    assert row["max_rel_err"] is None
    record = ROW.as_record()
    assert record.items() > row.items()
    assert record["quartiles_ms"] == [1.25, 2.0]
    json.dumps(record, allow_nan=False)


def test_ratio_and_share_are_paired(problem):
    taken = {"reference": [2.0, 4.0], "torch": [1.0, 2.0], "openvino": [3.0, 6.0]}
    row = compare._timed(ROW, taken, "reference", {})
    assert row.ms == Spread(3000.0, 2500.0, 3500.0)
    assert row.ratio == Spread(0.5, 0.5, 0.5)
    assert compare._shared(row, taken, 10, [10.0, 5.0]).peak_share == 0.5
    peer = compare._timed(Row("tiny", 1, 2, "torch"), taken, "reference", {})
    assert peer.ratio is None
    assert compare._timed(Row("tiny", 1, 2, "other"), taken, "reference", {}).ms is None


def test_the_table_of_engines():
    assert {*OWN, *PEERS, PEAK, MEMORY} == ENGINES.keys()
    assert not set(OWN) & set(PEERS)


def test_wrong_command_lines(spec, capsys):
    assert main(["bench", spec, "--against", "tensorflow"]) == 2
    assert "`tensorflow` is not one of" in capsys.readouterr().err
    assert main(["bench", spec, "--batch", "0"]) == 2
    assert main(["bench", spec, "--threads", "4096"]) == 2


def test_peers_that_are_missing_are_told_at_once(spec, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "installed", property(lambda engine: engine.package == "torch"))
    assert main(["bench", spec, "--against", "onnxruntime,openvino,torch"]) == 1
    said = capsys.readouterr().err
    assert "`onnxruntime`, `openvino` are not installed" in said
    assert "hint: pip install onnxruntime openvino" in said


@pytest.mark.slow
def test_the_whole_command(spec, tmp_path, capsys):
    words = ["bench", spec, "--against", "none", "--shape", "image=1x3x8x8", "--json"]
    assert main([*words, "--rounds", "2", "--seconds", "1", "--save", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["engine"] == "tilth"
    assert row["median_ms"] > 0
    assert row["max_rel_err"] < 1e-5
    assert row["ratio_to_best_peer"] is None
    (kept,) = json.loads(next(tmp_path.rglob("nets/tiny.json")).read_text())["rows"]
    assert kept["rounds"] >= 2
    assert 0 < kept["peak_share"] < 1


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("engine", PEERS)
def test_peers_agree(spec, engine, tmp_path):
    pytest.importorskip(engine, reason="the peer is not installed")
    pytest.importorskip("onnx", reason="peers read the model as ONNX")
    rows = compare.compare(
        Chosen(spec, sizes={"N": 2, "H": 16, "W": 16}),
        "tiny",
        [engine],
        "reference",
        [1],
        Schedule(rounds=2, seconds=0.0),
        lambda line: None,
    )
    ((own, peer),) = rows
    assert own.ratio is not None
    assert peer.note == ""
    assert peer.ms is not None
    assert peer.max_rel_err is not None
    assert peer.max_rel_err < 1e-5


@pytest.mark.parametrize("gone", ["openvino", "onnx"])
def test_a_missing_peer_gives_the_command_that_installs_it(spec, capsys, monkeypatch, gone):
    plain = importlib.util.find_spec

    def find(name, *rest):
        if name == gone:
            return None
        return plain("json") if name in (*PEERS, "onnx") else plain(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main(["bench", spec, "--against", "openvino"]) == 1
    assert f"pip install {gone}" in capsys.readouterr().err


def test_sizes_that_a_spec_states_by_an_inputs_shape_are_the_benchmarks():
    assert nominal_sizes(tilth.load("hourglass2"), 2, {}) == {"N": 2, "H": 256, "W": 256}

"""Outputs: class rankings, labels, files; and memory that is refused before it is taken."""

import numpy as np
import pytest
from tilth.runtime import machine
from tilth.runtime.faults import RuntimeFault, size_text
from tilth.runtime.outputs import read_labels, save_outputs, top_classes


def test_top_of_logits_is_a_softmax():
    logits = np.log(np.array([[1.0, 3.0, 6.0]])) + 5
    name, (ranking,) = top_classes({"h": np.zeros((1, 2, 3)), "y": logits.astype(np.float32)}, 2)
    assert name == "y"
    assert [c for c, _ in ranking] == [2, 1]
    np.testing.assert_allclose([p for _, p in ranking], [0.6, 0.3], rtol=1e-5)


def test_probabilities_are_left_alone():
    _, (ranking,) = top_classes({"p": np.array([0.25, 0.5, 0.25])}, 5)
    assert ranking == [(1, 0.5), (0, 0.25), (2, 0.25)]


def test_no_scores_is_E802():
    with pytest.raises(RuntimeFault) as caught:
        top_classes({"mask": np.zeros((1, 2, 4, 4)), "path": np.zeros((2, 3), np.int32)}, 5)
    assert caught.value.code == "E802"
    assert "mask [1, 2, 4, 4]" in caught.value.message


def test_outputs_round_trip_even_with_odd_names(tmp_path):
    outputs = {"h[T-1]": np.arange(3.0), "file": np.ones((2, 2), np.int32), "s": np.float32(1)}
    save_outputs(tmp_path / "o.npz", outputs)
    with np.load(tmp_path / "o.npz") as archive:
        assert set(archive.files) == set(outputs)
        for name, array in outputs.items():
            np.testing.assert_array_equal(archive[name], array)
            assert archive[name].dtype == array.dtype
    save_outputs(tmp_path / "o.npy", {"y": np.ones(2)})
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), [1, 1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.npy", "o.npz"]


def test_wrong_places_are_E806(tmp_path):
    outputs = {"a": np.ones(1), "b": np.ones(1)}
    for name in ("o.txt", "o.npy", "none/o.npz"):
        with pytest.raises(RuntimeFault) as caught:
            save_outputs(tmp_path / name, outputs)
        assert caught.value.code == "E806"
    assert list(tmp_path.iterdir()) == []


def test_labels(tmp_path):
    (tmp_path / "l.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert read_labels(tmp_path / "l.txt") == ["cat", "dog"]
    with pytest.raises(RuntimeFault) as caught:
        read_labels(tmp_path / "none.txt")
    assert caught.value.code == "E803"


def test_memory_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 2**30)
    machine.require_memory(2**29, "this run")
    with pytest.raises(RuntimeFault) as caught:
        machine.require_memory(3 * 2**30, "this run")
    assert caught.value.code == "E703"
    assert caught.value.message == "this run needs about 3.0 GiB, and 1.0 GiB are free"


def test_this_machine_answers():
    left = machine.available_memory()
    assert left is None or left > 0
    assert machine.cores() >= 1
    assert machine.versions()["numpy"] == np.__version__
    assert size_text(1536) == "1.5 KiB"
    assert size_text(12) == "12 B"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path / "deep" / "cache"))
    assert machine.cache_folder() == tmp_path / "deep" / "cache"
    assert machine.is_writable(machine.cache_folder())
    assert not (tmp_path / "deep").exists()
    (tmp_path / "file").write_text("")
    assert not machine.is_writable(tmp_path / "file" / "cache")

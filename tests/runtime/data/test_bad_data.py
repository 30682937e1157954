"""Data that cannot be used: one clear message for each fault."""

import numpy as np
import pytest
from tilth.runtime.data import ArrayDataset, Source, open_dataset


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "the data has no examples"),
        ({"x": np.empty((0, 3))}, "the data has no examples"),
        ({"x": np.ones(3), "label": np.ones(2, int)}, "differ in length: x has 3, label has 2"),
        ({"x": np.float64(3)}, "`x` of the data is one number"),
    ],
)
def test_sets_of_arrays(fault_of, arrays, said):
    fault = fault_of(lambda: ArrayDataset(arrays))
    assert fault.code == "E807" and said in fault.message


def test_missing_files_and_unknown_names(tmp_path, fault_of):
    fault = fault_of(lambda: open_dataset("none.npz", tmp_path))
    assert fault.code == "E803" and "no such file or folder" in fault.message
    fault = fault_of(lambda: open_dataset(Source(source="digit")))
    assert (fault.code, fault.hint) == ("E807", "did you mean `digits`?")
    (tmp_path / "data.xyz").write_text("")
    fault = fault_of(lambda: open_dataset("data.xyz", tmp_path))
    assert fault.code == "E807" and "npz" in fault.hint


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"\x93NUMPY cut", b"not numpy's at all"])
def test_broken_archives(tmp_path, fault_of, data, name):
    (tmp_path / name).write_bytes(data)
    fault = fault_of(lambda: open_dataset(name, tmp_path))
    assert fault.code == "E803" and "pickle" not in fault.message


def test_arrays_under_the_other_name(tmp_path, fault_of):
    with (tmp_path / "a.npy").open("wb") as stream:
        np.savez(stream, x=np.zeros(3))
    assert "as an .npz file does" in fault_of(lambda: open_dataset("a.npy", tmp_path)).message
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "as an .npy file does" in fault_of(lambda: open_dataset("a.npz", tmp_path)).message


def test_archives_are_never_unpickled(tmp_path, fault_of):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], object))
    fault = fault_of(lambda: open_dataset("a.npz", tmp_path))
    assert fault.code == "E803" and "pickle" in fault.message


def test_text_and_means_that_do_not_fit(tmp_path, fault_of):
    np.savez(tmp_path / "a.npz", x=np.array(["a", "b"]))
    assert "not numbers" in fault_of(lambda: open_dataset("a.npz", tmp_path)).message
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 4, 4), np.uint8))
    fault = fault_of(lambda: open_dataset(Source(path="b.npz", mean=(0.1, 0.2)), tmp_path))
    assert fault.message == "`mean` of `b.npz` has 2 values for 1 channels"

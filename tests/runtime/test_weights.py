"""Weights by name: strict matching, rules that cut and add, formats, messages."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.weights import Piece, Wanted, fit_weights, load_weights, read_arrays

F32 = np.dtype(np.float32)


def wanted(**shapes):
    return {name.replace("__", "."): Wanted(shape, F32) for name, shape in shapes.items()}


def fault_of(run):
    with pytest.raises(RuntimeFault) as caught:
        run()
    return caught.value


def test_safetensors_by_name_with_dtype_conversion(tmp_path):
    path = tmp_path / "w.safetensors"
    half = np.array([[1.5, -2.0]], np.float16)
    save_file({"fc.weight": half, "bn.num_batches_tracked": np.array(7)}, path)
    loaded = load_weights(path, wanted(fc__weight=(1, 2)))
    assert loaded.arrays["fc.weight"].dtype == np.float32
    np.testing.assert_array_equal(loaded.arrays["fc.weight"], half.astype(np.float32))
    assert loaded.lines == ()


def test_npz_and_float64(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, a=np.arange(3.0))
    loaded = load_weights(path, wanted(a=(3,)))
    assert loaded.arrays["a"].dtype == np.float32


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "b.safetensors"
    header = json.dumps({"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\x40")
    np.testing.assert_array_equal(read_arrays(path)["b"], np.array([1.0, 2.0], np.float32))


def test_strict_lists_missing_unexpected_and_mis_shaped_with_near_names():
    arrays = {
        "layer1.conv.weight": np.zeros((2, 2), np.float32),
        "fc.weight": np.zeros((10, 4), np.float32),
        "extra": np.zeros(1, np.float32),
    }
    need = wanted(layer1__conv1__weight=(2, 2), fc__weight=(1000, 4))
    fault = fault_of(lambda: fit_weights(arrays, need, file="w.npz"))
    assert fault.code == "E801"
    assert fault.message == (
        "`w.npz` does not match the model: 1 missing, 2 unexpected, 1 of another shape or type"
    )
    text = "\n".join(fault.details)
    assert "fc.weight: the model has [1000, 4], the file [10, 4]" in text
    assert "layer1.conv1.weight: missing; did you mean `layer1.conv.weight`?" in text
    assert "extra: not in the model" in text


def test_not_strict_keeps_what_fits():
    arrays = {"a": np.ones(2), "b": np.ones(3), "c": np.ones(1)}
    loaded = fit_weights(arrays, wanted(a=(2,), b=(2,), d=(1,)), strict=False)
    assert list(loaded.arrays) == ["a"]
    assert (loaded.missing, loaded.unexpected, loaded.mis_shaped) == (("d",), ("c",), ("b",))


def test_long_lists_are_cut():
    need = {f"w{i}": Wanted((1,), F32) for i in range(60)}
    fault = fault_of(lambda: fit_weights({}, need))
    assert len(fault.details) == 9
    assert fault.details[-1] == "and 52 more"


def test_complex_numbers_do_not_become_real():
    fault = fault_of(lambda: fit_weights({"a": np.ones(2, complex)}, wanted(a=(2,))))
    assert fault.details == ("a: the model has float32, the file complex128",)


def lstm_pieces():
    rows = [("W_i", 0), ("W_f", 1)]
    return [Piece("weight_ih_l0", (slice(2 * n, 2 * n + 2),), path) for path, n in rows]


def test_rules_cut_a_packed_weight():
    packed = np.arange(12, dtype=np.float32).reshape(4, 3)
    need = wanted(W_i=(2, 3), W_f=(2, 3))
    loaded = fit_weights({"weight_ih_l0": packed}, need, {"torch": lstm_pieces()})
    np.testing.assert_array_equal(loaded.arrays["W_i"], packed[:2])
    np.testing.assert_array_equal(loaded.arrays["W_f"], packed[2:])


def test_rules_onto_one_path_add():
    rules = [Piece("b_ih", (), "b"), Piece("b_hh", (), "b")]
    arrays = {"b_ih": np.array([1.0, 2.0]), "b_hh": np.array([10.0, 20.0])}
    loaded = fit_weights(arrays, wanted(b=(2,)), {"torch": rules})
    np.testing.assert_array_equal(loaded.arrays["b"], [11.0, 22.0])


def test_a_part_that_no_rule_reads_is_a_fault():
    arrays = {"weight_ih_l0": np.zeros((5, 3), np.float32)}
    need = wanted(W_i=(2, 3), W_f=(2, 3))
    fault = fault_of(lambda: fit_weights(arrays, need, {"torch": lstm_pieces()}))
    assert fault.details == ("weight_ih_l0: 3 of its numbers go nowhere",)


def test_a_cut_beyond_the_array_is_a_fault():
    arrays = {"weight_ih_l0": np.zeros((3, 3), np.float32)}
    need = wanted(W_i=(2, 3), W_f=(2, 3))
    fault = fault_of(lambda: fit_weights(arrays, need, {"torch": lstm_pieces()}))
    assert "weight_ih_l0[2:4]: the file's weight_ih_l0 is [3, 3]" in fault.details


def test_rules_of_another_format_are_left_alone():
    loaded = fit_weights({"a": np.ones(2)}, wanted(a=(2,)), {"torch": lstm_pieces()})
    assert list(loaded.arrays) == ["a"]


def test_the_format_with_most_names_is_used():
    pieces = {"timm": [Piece("other", (), "a")], "torch": [Piece("mine", (), "a")]}
    loaded = fit_weights({"mine": np.full(2, 3.0)}, wanted(a=(2,)), pieces)
    np.testing.assert_array_equal(loaded.arrays["a"], [3, 3])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("w.safetensors", b"nonsense", "header"),
        ("w.npz", b"nonsense", "cannot read"),
        ("w.npz", b"", "cannot read"),
        ("w.safetensors", b"", "cannot read"),
    ],
)
def test_broken_files_are_E803(tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    fault = fault_of(lambda: read_arrays(path))
    assert fault.code == "E803"
    assert said in fault.message


def test_missing_file_and_pickles_are_E803(tmp_path):
    assert "no such file" in fault_of(lambda: read_arrays(tmp_path / "no.npz")).message
    fault = fault_of(lambda: read_arrays("model.pth"))
    assert fault.code == "E803"
    assert "safetensors.torch.save_file" in fault.hint


def test_an_npz_with_objects_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, a=np.array([{"x": 1}], object), allow_pickle=True)
    assert fault_of(lambda: read_arrays(path)).code == "E803"


def test_an_npy_named_npz_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    with path.open("wb") as stream:
        np.save(stream, np.ones(2))
    assert fault_of(lambda: read_arrays(path)).code == "E803"

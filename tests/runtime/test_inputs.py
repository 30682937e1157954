"""Inputs from the command line: files, seeds, and what is said when they do not fit."""

import numpy as np
import pytest
from PIL import Image
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.inputs import Declared, check_input, parse_assignments, read_input

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
X = Declared(F32, ("N", 3))


def fault_of(run):
    with pytest.raises(RuntimeFault) as caught:
        run()
    return caught.value


def test_assignments():
    declared = {"x": X, "y": X}
    assert parse_assignments(["x=a.npz:k=v", "y=zeros"], declared) == {
        "x": "a.npz:k=v",
        "y": "zeros",
    }
    assert parse_assignments(["photo.jpg"], {"image": X}) == {"image": "photo.jpg"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["imag=zeros"], "no input is called `imag`"),
        (["zeros"], "`zeros` is not an input"),
        (["image="], "`image=` is not an input"),
        (["image=zeros", "image=random"], "given twice"),
    ],
)
def test_wrong_assignments_are_E802(texts, said):
    fault = fault_of(lambda: parse_assignments(texts, {"image": X, "label": X}))
    assert fault.code == "E802"
    assert said in fault.message


def test_the_nearest_input_is_suggested():
    fault = fault_of(lambda: parse_assignments(["imag=zeros"], {"image": X}))
    assert fault.hint == "did you mean `image`?"


def test_npy_is_converted_to_the_declared_type(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    array = read_input("x", str(tmp_path / "a.npy"), X)
    assert array.dtype == np.float32 and array.shape == (2, 3)


def test_npz_by_key_by_input_name_and_alone(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((1, 3)), other=np.ones((1, 3)))
    assert read_input("x", f"{path}:other", X)[0, 0] == 1
    assert read_input("x", str(path), X)[0, 0] == 0
    np.savez(path, lonely=np.full((1, 3), 2.0))
    assert read_input("x", str(path), X)[0, 0] == 2
    np.savez(path, a=np.ones(1), b=np.ones(1))
    fault = fault_of(lambda: read_input("x", str(path), X))
    assert fault.code == "E803" and fault.hint == "there is a, b"


def test_random_depends_on_seed_and_name_only():
    declared = Declared(F32, (4, 3))
    first = read_input("x", "random", declared, seed=1)
    assert np.array_equal(first, read_input("x", "random", declared, seed=1))
    assert not np.array_equal(first, read_input("x", "random", declared, seed=2))
    assert not np.array_equal(first, read_input("y", "random", declared, seed=1))
    whole = read_input("x", "random", Declared(I32, (50,)))
    assert set(np.unique(whole)) == {0, 1} and whole.dtype == np.int32
    flags = read_input("x", "random", Declared(np.dtype(bool), (50,)))
    assert flags.dtype == bool and flags.any() and not flags.all()


def test_zeros_and_open_sizes():
    assert not read_input("x", "zeros", Declared(F32, (2, 3))).any()
    fault = fault_of(lambda: read_input("x", "zeros", X))
    assert fault.code == "E805"
    assert "the size N" in fault.message and "--shape x=Nx3" in fault.hint


def test_a_picture_is_resized_to_the_declared_size(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(path)
    assert read_input("i", str(path), Declared(F32, ("N", 3, 16, 16))).shape == (1, 3, 16, 16)
    assert read_input("i", str(path), Declared(F32, ("N", 3, "H", "W"))).shape == (1, 3, 40, 30)
    fault = fault_of(lambda: read_input("i", str(path), X))
    assert fault.code == "E802" and "a picture is f32[N, C, H, W]" in fault.message


def test_shapes_that_do_not_fit_are_E802():
    fault = fault_of(lambda: check_input("x", np.zeros((2, 4)), X))
    assert fault.code == "E802"
    assert fault.message == "input `x` does not fit: expected f32[N, 3], found f64[2, 4]"
    fault = fault_of(lambda: check_input("x", np.zeros(3), X))
    assert "batch axis" in fault.hint


def test_element_types_that_would_lose_meaning_are_E802():
    token = Declared(I32, ("T",))
    assert fault_of(lambda: check_input("t", np.array([0.5]), token)).code == "E802"
    assert fault_of(lambda: check_input("t", np.array([2**40]), token)).code == "E802"
    assert fault_of(lambda: check_input("t", np.array(["a"]), token)).code == "E802"
    assert check_input("t", np.array([3], np.int64), token).dtype == np.int32
    assert check_input("x", np.ones((1, 3), np.uint8), X).dtype == np.float32


@pytest.mark.parametrize(("name", "data"), [("a.npy", b"junk"), ("a.npz", b"junk"), ("a.npy", b"")])
def test_broken_files_are_E803(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    assert fault_of(lambda: read_input("x", str(path), X)).code == "E803"


def test_other_values_are_E802():
    fault = fault_of(lambda: read_input("x", "photo.heic", X))
    assert fault.code == "E802" and "random" in fault.hint


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"x": 1}], object), allow_pickle=True)
    assert fault_of(lambda: read_input("x", str(path), X)).code == "E803"

"""Opening data: built-in, npz, arrays; parts, limits and sizes."""

import builtins

import numpy as np
import pytest
from tilth.runtime.data import ArrayDataset, Source, open_dataset
from tilth.runtime.data.dataset import require_labels


def test_digits_come_in_two_fixed_parts():
    data = open_dataset("digits")
    train, test = data.train, data.held_out
    assert (len(train), len(test)) == (1438, 359)
    field = train.fields["image"]
    assert field.shape == (1, 8, 8) and field.dtype == np.float32 and field.is_picture
    assert train.fields["label"].classes == tuple("0123456789")
    everything = np.concatenate(
        [part.take(np.arange(len(part)))["image"] for part in (train, test)]
    )
    assert len(np.unique(everything.reshape(1797, -1), axis=0)) == 1797
    assert (everything.min(), everything.max()) == (0, 1)
    for digit, count in enumerate(np.bincount(test.column("label"))):
        total = count + np.sum(train.column("label") == digit)
        assert abs(count - 0.2 * total) < 1
    assert open_dataset("digits").train.fingerprint == train.fingerprint


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data = open_dataset(Source(source="digits", split={"all": 1.0}))
    batch = data.train.take(np.arange(1797))
    np.testing.assert_array_equal(batch["image"][:, 0] * 16, load_digits().images)
    np.testing.assert_array_equal(batch["label"], load_digits().target)


def test_digits_scaled_and_normalised():
    source = Source(source="digits", size=(32, 32), mean=(0.3,), std=(0.5,))
    picture = open_dataset(source).train.take(np.array([5]))["image"]
    assert picture.shape == (1, 1, 32, 32) and picture.dtype == np.float32
    plain = open_dataset(Source(source="digits", size=(32, 32))).train.take(np.array([5]))["image"]
    np.testing.assert_allclose(picture, (plain - 0.3) / 0.5, atol=1e-6)
    small = open_dataset("digits").train.take(np.array([5]))["image"]
    # Bilinear scaling by four: the mean over each block of four by four stays close.
    assert np.abs(plain.reshape(1, 8, 4, 8, 4).mean((2, 4)) - small[0]).max() < 0.4


def test_a_missing_extra_says_how_to_install_it(monkeypatch, fault_of):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    fault = fault_of(lambda: open_dataset("digits"))
    assert (fault.code, fault.hint) == ("E804", "pip install 'tilth[data]'")


def test_npz_with_fields_and_with_parts(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (10, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "a.npz", image=pictures, label=np.arange(10))
    data = open_dataset("a.npz", tmp_path)
    batch = data.train.take(np.array([3, 1]))
    np.testing.assert_allclose(
        batch["image"], pictures[[3, 1]].transpose(0, 3, 1, 2) / np.float32(255), rtol=1e-6
    )
    assert batch["label"].tolist() == [3, 1] and data.held_out is None
    np.savez(tmp_path / "b.npz", x_train=pictures[:7, ..., 0], y_train=np.arange(7),
             x_test=pictures[7:, ..., 0], y_test=np.arange(3))  # fmt: skip
    data = open_dataset(tmp_path / "b.npz")
    assert (len(data.train), len(data.held_out)) == (7, 3)
    assert data.train.fields["x"].shape == (1, 6, 5)


def test_splits_limits_and_parts(tmp_path, fault_of):
    np.savez(tmp_path / "a.npz", x=np.arange(20.0))

    def opened(**settings):
        return open_dataset(Source(path="a.npz", **settings), tmp_path)

    data = opened(split={"train": 0.5, "validate": 0.25, "test": 0.25})
    assert {name: len(part) for name, part in data.parts.items()} == {
        "train": 10, "validate": 5, "test": 5,
    }  # fmt: skip
    seen = np.concatenate([part.column("x") for part in data.parts.values()])
    np.testing.assert_array_equal(np.sort(seen), np.arange(20))
    assert data.held_out is data.parts["validate"]
    assert len(opened(limit=7).train) == 7 and len(opened(limit=70).train) == 20
    other = opened(split={"train": 0.5, "validate": 0.25, "test": 0.25}, seed=1)
    assert other.train.fingerprint != data.train.fingerprint
    assert fault_of(lambda: opened(split="test")).message == "`a.npz` has no part `test`"
    assert "would be empty" in fault_of(lambda: opened(split={"train": 0.01})).message


def test_parts_are_chosen_but_not_split_again(fault_of):
    assert len(open_dataset(Source(source="digits", split="test")).train) == 359
    fault = fault_of(lambda: open_dataset(Source(source="digits", split="tset")))
    assert fault.hint == "did you mean `test`?"


def test_holding_out_keeps_classes(numbered):
    data = open_dataset(numbered(60)).hold_out(0.2, 1)
    assert (len(data.train), len(data.held_out)) == (48, 12)
    assert np.bincount(data.held_out.column("label")).tolist() == [6, 4, 2]


def test_arrays_by_name_and_sets_are_taken_as_they_are(numbered):
    data = open_dataset({"x": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]})
    assert data.train.take(np.array([1]))["x"].tolist() == [[3, 4]]
    whole = numbered()
    assert open_dataset(whole).train is whole
    assert open_dataset(data) is data


def test_fingerprints_tell_contents():
    first = ArrayDataset({"x": np.arange(4.0)})
    assert first.fingerprint == ArrayDataset({"x": np.arange(4.0)}).fingerprint
    for other in (np.arange(4.0)[::-1], np.arange(4), np.arange(4.0)[:, None]):
        assert ArrayDataset({"x": other}).fingerprint != first.fingerprint


def test_labels_must_have_a_class(numbered, fault_of):
    whole = numbered()
    require_labels(whole, "label", 3)
    fault = fault_of(lambda: require_labels(whole, "label", 2))
    assert fault.code == "E807"
    assert fault.message == (
        "`label` of example 5 is 2, and there are 2 classes (3 examples are like that)"
    )
    assert fault.hint == "labels count from 0"
    fault = fault_of(lambda: require_labels(whole, "lable", 2))
    assert fault.hint == "did you mean `label`?"
    with pytest.raises(Exception, match="is -1, and there are 2 classes"):
        ArrayDataset({"label": np.array([0, -1])}, {"label": ("a", "b")})

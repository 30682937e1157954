"""Fields of data as inputs of a model."""

import numpy as np
import pytest
from tilth.runtime.data import ArrayDataset, IterableLoader, Loader, Source, feed, open_dataset
from tilth.runtime.data.augment import Step, fitted
from tilth.runtime.data.feed import checked
from tilth.runtime.inputs import Declared

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
IMAGE, LABEL = Declared(F32, ("N", 1, 4, 4)), Declared(I32, ("N",))
ALL = np.arange(6)


@pytest.fixture
def dataset():
    image = np.arange(96, dtype=np.float64).reshape(6, 1, 4, 4)
    label = np.array([0, 1, 2, 0, 0, 1])
    return ArrayDataset({"image": image, "label": label}, {"label": ("a", "b", "c")})


def test_fields_by_name_in_declared_types(dataset):
    batch = feed(dataset, {"image": IMAGE, "label": LABEL}).take(ALL)
    assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"], [0, 1, 2, 0, 0, 1])
    assert feed(dataset, {"image": IMAGE}).take(ALL).keys() == {"image"}


def test_other_names_are_matched_where_there_is_one_way(dataset):
    fed = feed(dataset, {"x": IMAGE, "y": LABEL})
    np.testing.assert_array_equal(fed.take(ALL)["y"], dataset.column("label"))
    np.testing.assert_array_equal(fed.column("y"), dataset.column("label"))
    assert fed.fields["y"].classes == ("a", "b", "c") and len(fed) == 6


def test_two_ways_are_none(dataset, fault_of):
    fault = fault_of(lambda: feed(dataset, {"x": IMAGE, "y": LABEL, "z": LABEL}))
    assert fault.code == "E802"
    assert fault.message == "no field of the data fills the input `y`, i32[N]"
    assert fault.hint == (
        "the data has `image` f64[N, 1, 4, 4], `label` i64[N]; `columns: {y: FIELD}` says which "
        "one it is"
    )


def test_classes_become_one_hot_rows(dataset, fault_of):
    batch = feed(dataset, {"image": IMAGE, "label": Declared(F32, ("N", 3))}).take(ALL)
    np.testing.assert_array_equal(batch["label"], np.eye(3)[[0, 1, 2, 0, 0, 1]])
    assert batch["label"].dtype == np.float32
    fault = fault_of(lambda: feed(dataset, {"image": IMAGE, "label": Declared(F32, ("N", 2))}))
    assert (fault.code, fault.hint) == ("E807", "labels count from 0")


def test_mixup_through_a_loader(dataset):
    declared = {"image": IMAGE, "label": Declared(F32, ("N", 3))}
    fed = feed(dataset, declared)
    chain = fitted([Step("mixup", {"alpha": 0.5})], fed)
    (batch,) = Loader(feed(dataset, declared, chain), 6, change=chain).epoch(0)
    np.testing.assert_allclose(batch["label"].sum(1), 1, atol=1e-6)
    assert np.any((batch["label"] > 0) & (batch["label"] < 1))


def test_shapes_that_do_not_fit(dataset, fault_of):
    fault = fault_of(lambda: feed(dataset, {"image": Declared(F32, ("N", 1, 32, 32))}))
    assert fault.message == (
        "input `image` does not fit: expected f32[N, 1, 32, 32], and the data has f32[N, 1, 4, 4]"
    )
    assert fault.hint == "scale the pictures: `size: [32, 32]` under `data:`"
    cropping = fitted([Step("crop", {"size": 3, "pad": 0})], feed(dataset, {"image": IMAGE}))
    fault = fault_of(lambda: feed(dataset, {"image": IMAGE}, cropping))
    assert "the data has f32[N, 1, 3, 3]" in fault.message
    feed(dataset, {"image": Declared(F32, ("N", 1, 3, 3))}, cropping)
    feed(dataset, {"image": Declared(F32, ("N", "C", "H", "W"))})


def test_weights_of_classes(dataset, fault_of):
    each = Declared(F32, ("N",))
    declared = {"image": IMAGE, "label": LABEL, "class_weight": each}
    batch = feed(dataset, declared).take(ALL)
    np.testing.assert_allclose(batch["class_weight"], 6 / 3 / np.array([3, 2, 1, 3, 3, 2]))
    table = feed(dataset, declared | {"class_weight": Declared(F32, (3,))}).take(ALL[:2])
    np.testing.assert_allclose(table["class_weight"], [6 / 9, 1, 2], rtol=1e-6)
    assert table["class_weight"].dtype == np.float32
    wrong = declared | {"class_weight": Declared(I32, ("N",))}
    assert fault_of(lambda: feed(dataset, wrong)).code == "E802"


def test_class_numbers_without_names_are_weighed_too(fault_of):
    declared = {"x": Declared(F32, ("N", 2)), "y": LABEL, "class_weight": Declared(F32, (2,))}
    x = np.zeros((6, 2), np.float32)
    plain = ArrayDataset({"x": x, "y": np.array([0, 0, 0, 0, 1, 1], np.int32)})
    batch = feed(plain, declared).take(np.arange(6))
    np.testing.assert_allclose(batch["class_weight"], [6 / 8, 6 / 4])
    numbers = ArrayDataset({"x": x, "y": np.arange(6, dtype=np.int32)})
    fault = fault_of(lambda: feed(numbers, declared))
    assert fault.code == "E807" and "no classes that `class_weight` could weigh" in fault.message


def test_batches_of_an_iterable_are_checked(fault_of):
    declared = {"x": Declared(F32, ("N", 2)), "y": LABEL}

    def loaded(*batches):
        return list(IterableLoader(batches, change=checked(declared)).epoch(0))

    (batch,) = loaded({"x": np.ones((3, 2)), "y": [1, 2, 3], "more": [0, 0, 0]})
    assert batch.keys() == {"x", "y"}
    assert (batch["x"].dtype, batch["y"].dtype) == (F32, I32)
    fault = fault_of(lambda: loaded({"x": np.ones((3, 2))}))
    assert (fault.message, fault.hint) == ("the batches have no `y`", "they have x")
    assert "expected f32[N, 2]" in fault_of(lambda: loaded({"x": [1.0], "y": [1]})).message


DIGITS = {"image": Declared(F32, ("N", 1, 8, 8)), "label": Declared(F32, ("N", 10))}


def test_crops_may_make_the_declared_size():
    data = open_dataset(Source(source="digits", size=(12, 12)))
    chain = fitted([Step("crop", {"size": 8, "pad": 0}), Step("zscore", {})], data.train)
    for part, change in ((data.train, chain), (data.held_out, chain.evaluating)):
        batch = next(Loader(feed(part, DIGITS, change), 8, change=change).epoch(0))
        assert batch["image"].shape == (8, 1, 8, 8)


@pytest.mark.parametrize("balance", [None, "label"])
def test_an_epoch_of_digits_taken_up_anywhere_goes_on_to_the_bit(balance):
    settings = {"rotate": {"degrees": 10}, "cutout": {"size": 2}, "mixup": {"alpha": 0.3}}
    steps = [Step(name, given) for name, given in settings.items()]

    def opened():
        fed = feed(open_dataset("digits").train, DIGITS)
        return Loader(fed, 100, seed=9, balance=balance, change=fitted(steps, fed), drop_last=True)

    whole = list(opened().epoch(4))
    assert len(whole) == 14
    for start in (3, 13):
        for got, want in zip(opened().epoch(4, start), whole[start:], strict=True):
            assert got["image"].tobytes() == want["image"].tobytes()
            assert got["label"].tobytes() == want["label"].tobytes()

"""From a spec's words to batches: parts, augmentation, streams."""

import numpy as np
import pytest
from tilth.runtime.data import Source, open_batches
from tilth.runtime.data.augment import Step
from tilth.runtime.inputs import Declared

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
DIGITS = {"image": Declared(F32, ("N", 1, 8, 8)), "label": Declared(I32, ("N",))}


def test_digits_to_batches():
    batches = open_batches("digits", DIGITS, batch=64)
    assert (len(batches.train), len(batches.held_out)) == (22, 6)
    first = next(batches.train.epoch(0))
    assert first["image"].shape == (64, 1, 8, 8) and first["label"].dtype == np.int32
    held = np.concatenate([batch["label"] for batch in batches.held_out.epoch(0)])
    assert len(held) == 359
    assert batches.classes["label"] == tuple("0123456789")
    assert batches.fingerprint == open_batches("digits", DIGITS, batch=8).fingerprint
    other = open_batches("digits", DIGITS, batch=8, fraction=0.1, held_batch=100)
    assert other.held_out.batch == 100 and other.held_out.examples == 143
    assert other.fingerprint != batches.fingerprint


def test_augmentation_is_for_training_alone():
    steps = [Step("crop", {"size": 8, "pad": 1}), Step("zscore", {})]
    batches = open_batches("digits", DIGITS, batch=64, augment=steps, seed=1)
    plain = open_batches("digits", DIGITS, batch=64, augment=steps[1:], seed=1)
    one, two = (next(b.train.epoch(0))["image"] for b in (batches, plain))
    assert not np.array_equal(one, two)
    one, two = (next(b.held_out.epoch(0))["image"] for b in (batches, plain))
    np.testing.assert_array_equal(one, two)
    whole = np.concatenate([b["image"] for b in plain.train.epoch(0)])
    assert abs(whole.mean()) < 0.01 and abs(whole.std() - 1) < 0.01


def test_crops_may_make_the_declared_size():
    source = Source(source="digits", size=(12, 12))
    batches = open_batches(source, DIGITS, batch=8, augment=[Step("crop", {"size": 8, "pad": 0})])
    for loader in (batches.train, batches.held_out):
        assert next(loader.epoch(0))["image"].shape == (8, 1, 8, 8)


def test_data_of_its_own_to_validate_on():
    batches = open_batches("digits", DIGITS, batch=8, held_out=Source(source="digits", limit=50))
    assert batches.held_out.examples == 50


def test_streams(fault_of):
    items = [{"image": np.zeros((4, 1, 8, 8)), "label": np.arange(4)}]

    class Stream:
        def __iter__(self):
            return iter(items)

    batches = open_batches(Stream(), DIGITS, batch=4, held_out="digits")
    for epoch in (0, 1):
        (batch,) = batches.train.epoch(epoch)
        assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32
    assert batches.held_out.examples == 359 and batches.fingerprint == ""
    (batch,) = open_batches(lambda epoch: items, DIGITS, batch=4).train.epoch(0)
    assert batch["label"].tolist() == [0, 1, 2, 3]
    for settings in ({"augment": [Step("hflip", {"p": 0.5})]}, {"fraction": 0.1}):
        fault = fault_of(lambda s=settings: open_batches(Stream(), DIGITS, batch=4, **s))
        assert fault.code == "E807"


@pytest.mark.parametrize("balance", [None, "label"])
def test_an_epoch_taken_up_anywhere_goes_on_to_the_bit(balance):
    declared = DIGITS | {"label": Declared(F32, ("N", 10))}
    steps = [
        Step("rotate", {"degrees": 10}),
        Step("cutout", {"size": 2}),
        Step("mixup", {"alpha": 0.3}),
    ]

    def opened():
        return open_batches(
            "digits", declared, batch=100, augment=steps, seed=9, balance=balance
        ).train

    whole = list(opened().epoch(4))
    assert len(whole) == 14
    for start in (3, 13):
        for got, want in zip(opened().epoch(4, start), whole[start:], strict=True):
            assert got["image"].tobytes() == want["image"].tobytes()
            assert got["label"].tobytes() == want["label"].tobytes()

"""Batches: the same from any start, with any threads; faults where they belong."""

import threading
import time

import numpy as np
import pytest
from tilth.runtime.data import IterableLoader, Loader
from tilth.runtime.faults import RuntimeFault


def add_noise(batch, examples, seed, epoch):
    """A change by (seed, epoch, example)."""
    return batch | {"noise": examples * 1000 + seed * 10 + epoch}


def texts(batches):
    return [{name: array.tolist() for name, array in batch.items()} for batch in batches]


def test_an_epoch_gives_every_example_once(numbered):
    loader = Loader(numbered(20), 6, seed=1)
    assert (len(loader), loader.examples) == (4, 20)
    batches = list(loader.epoch(0))
    assert [len(batch["x"]) for batch in batches] == [6, 6, 6, 2]
    seen = np.concatenate([batch["x"] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(20))
    assert not np.array_equal(seen, np.arange(20))
    assert all(batch["label"][0] == [0, 0, 0, 1, 1, 2][int(batch["x"][0]) % 6] for batch in batches)


def test_the_rest_may_be_left_out_and_the_order_kept(numbered):
    loader = Loader(numbered(20), 6, shuffle=False, drop_last=True)
    assert (len(loader), loader.examples) == (3, 18)
    seen = np.concatenate([batch["x"] for batch in loader.epoch(0)])
    np.testing.assert_array_equal(seen, np.arange(18))


@pytest.mark.parametrize("balance", [None, "label"])
def test_any_start_and_any_threads_give_the_same_batches(numbered, balance):
    settings = {"seed": 3, "balance": balance, "change": add_noise}
    plain = Loader(numbered(50), 7, ahead=0, **settings)
    for ahead, threads in ((1, 1), (2, 2), (5, 4)):
        other = Loader(numbered(50), 7, ahead=ahead, threads=threads, **settings)
        for epoch in (0, 3):
            whole = texts(plain.epoch(epoch))
            for start in (0, 1, 5, 8):
                assert texts(other.epoch(epoch, start)) == whole[start:]
    assert texts(plain.epoch(0)) != texts(plain.epoch(1))


def test_balanced_epochs_have_equal_classes(numbered):
    loader = Loader(numbered(600), 60, balance="label")
    labels = np.concatenate([batch["label"] for batch in loader.epoch(0)])
    assert len(labels) == 600 and np.bincount(labels).min() > 150


def test_batches_are_made_while_the_caller_works(numbered):
    made = threading.Event()

    def note(batch, examples, seed, epoch):
        if batch["x"][0] >= 4:
            made.set()
        return batch

    batches = Loader(numbered(20), 4, shuffle=False, change=note).epoch(0)
    next(batches)
    assert made.wait(10)
    batches.close()


def test_closing_ends_the_threads(numbered):
    before = threading.active_count()
    batches = Loader(numbered(40), 2, threads=3, ahead=3).epoch(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_a_fault_comes_where_its_batch_would(numbered):
    def fail(batch, examples, seed, epoch):
        if 9 in batch["x"]:
            raise RuntimeFault("E803", "cannot read `nine.png`")
        return batch

    batches = Loader(numbered(20), 4, shuffle=False, change=fail).epoch(0)
    assert [next(batches)["x"][0], next(batches)["x"][0]] == [0, 4]
    with pytest.raises(RuntimeFault, match=r"nine\.png"):
        next(batches)


def test_fewer_examples_than_a_batch(numbered, fault_of):
    assert len(Loader(numbered(3), 4)) == 1
    fault = fault_of(lambda: Loader(numbered(3), 4, drop_last=True))
    assert (fault.code, fault.hint) == ("E807", "give a smaller `batch`")
    assert fault.message == "3 examples are fewer than a batch of 4"


def dictionaries(count):
    return [{"x": np.full(2, i), "y": [i, i]} for i in range(count)]


def test_an_iterable_of_batches():
    loader = IterableLoader(dictionaries(5))
    whole = texts(loader.epoch(0))
    assert [batch["y"] for batch in whole] == [[i, i] for i in range(5)]
    assert texts(loader.epoch(1, 2)) == whole[2:]


def test_a_function_of_the_epoch():
    loader = IterableLoader(lambda epoch: dictionaries(epoch + 1))
    assert len(list(loader.epoch(0))) == 1
    assert len(list(loader.epoch(2))) == 3


def test_a_generator_lasts_one_epoch(fault_of):
    loader = IterableLoader(batch for batch in dictionaries(2))
    assert len(list(loader.epoch(0))) == 2
    fault = fault_of(lambda: list(loader.epoch(1)))
    assert fault.code == "E807" and "generator" in fault.hint


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (np.ones(3), "gave a ndarray"),
        ({}, "gave a dict"),
        ({"x": np.ones(3), "y": np.ones(2)}, "differ in length: x has 3, y has 2"),
    ],
)
def test_other_items_are_refused(fault_of, item, said):
    fault = fault_of(lambda: list(IterableLoader([item]).epoch(0)))
    assert fault.code == "E807" and said in fault.message


def test_a_slow_iterable_is_gone_through_in_the_background():
    def slow():
        for batch in dictionaries(4):
            time.sleep(0.05)
            yield batch

    batches = IterableLoader(lambda epoch: slow()).epoch(0)
    next(batches)
    time.sleep(0.5)
    start = time.perf_counter()
    next(batches)
    assert time.perf_counter() - start < 0.04
    batches.close()

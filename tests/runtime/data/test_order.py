"""Orders and parts: laws of permutations, of fairness, of what each depends on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tilth.runtime.data.order import (
    balanced,
    class_weights,
    sample,
    shares,
    shuffled,
    stratified,
)


def test_a_shuffle_is_a_permutation_that_seed_and_epoch_change():
    orders = [shuffled(100, seed, epoch) for seed in range(3) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert len({tuple(order) for order in orders}) == 9
    np.testing.assert_array_equal(shuffled(100, 1, 2), shuffled(100, 1, 2))


def test_every_place_of_a_shuffle_is_equally_likely():
    first = np.bincount([shuffled(8, 0, epoch)[0] for epoch in range(4000)], minlength=8)
    assert stats.chisquare(first).pvalue > 1e-3


def test_balanced_draws_classes_equally_often_and_their_members_too():
    labels = np.repeat([0, 4, 7], [900, 90, 10])
    drawn = np.concatenate([balanced(labels, 3, epoch) for epoch in range(30)])
    counts = np.bincount(labels[drawn])[[0, 4, 7]]
    assert stats.chisquare(counts).pvalue > 1e-3
    members = np.bincount(drawn[labels[drawn] == 7])[990:]
    assert len(members) == 10 and stats.chisquare(members).pvalue > 1e-3


def test_a_split_keeps_shares_and_loses_nothing():
    labels = np.random.default_rng(0).choice(5, 1000, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    parts = stratified(labels, {"train": 0.8, "test": 0.2}, 0)
    both = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))
    for value in range(5):
        count = np.sum(labels == value)
        assert abs(np.sum(labels[parts["test"]] == value) - 0.2 * count) < 1
    other = stratified(labels, {"train": 0.8, "test": 0.2}, 1)
    assert not np.array_equal(parts["test"], other["test"])


def test_what_fractions_leave_is_in_no_part():
    parts = stratified(np.zeros(10, int), {"a": 0.3, "b": 0.5}, 0)
    assert [len(part) for part in parts.values()] == [3, 5]
    assert not set(parts["a"]) & set(parts["b"])


@given(st.integers(0, 500), st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_shares_are_near_and_add_up(count, weights):
    fractions = [weight / sum(weights) for weight in weights]
    found = shares(count, fractions)
    assert sum(found) == count
    assert all(abs(n - count * f) < 1 + 1e-6 for n, f in zip(found, fractions, strict=True))


@pytest.mark.parametrize("count", [1, 7, 50, 99])
def test_a_sample_has_exactly_as_many(count):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = sample(labels, count, 0)
    assert len(chosen) == count == len(set(chosen))
    for value, share in enumerate((0.6, 0.3, 0.1)):
        assert abs(np.sum(labels[chosen] == value) - share * count) < 1


def test_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], [60, 30, 10])
    want = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3), want, rtol=1e-6)
    np.testing.assert_allclose(class_weights(labels, 4)[:3], want, rtol=1e-6)
    assert class_weights(labels, 4)[3] == 0

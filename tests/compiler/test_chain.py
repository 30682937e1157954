"""The chain op's reference against enumeration, and where scaled probabilities would lie."""

import itertools

import numpy as np
import pytest
from tilth.compiler.ops.base import OPS
from tilth.runtime.philox import stream

chain = OPS["chain"].reference
assert chain is not None


def enumerate_chain(init, transition, emission):
    steps, states = emission.shape
    scores = {}
    for path in itertools.product(range(states), repeat=steps):
        score = init[path[0]] + sum(emission[t, k] for t, k in enumerate(path))
        for t in range(1, steps):
            table = transition[t if len(transition) > 1 else 0]
            score += table[path[t - 1], path[t]]
        scores[path] = score
    return scores


def tables(seed, steps=4, states=3, shared=True, zeros=False):
    rng = np.random.default_rng(seed)
    transition = rng.normal(size=(1 if shared else steps, states, states))
    if zeros:
        transition[rng.random(transition.shape) < 0.4] = -np.inf
    return rng.normal(size=states), transition, rng.normal(size=(steps, states))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_modes_agree_with_enumeration(shared, zeros, steps):
    init, transition, emission = tables(steps, steps, 3, shared or steps == 1, zeros)
    scores = enumerate_chain(init, transition, emission)
    values = np.array(list(scores.values()))
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(values)))
    assert chain(init, transition, emission, mode="sum") == pytest.approx(total, abs=1e-12)
    assert chain(init, transition, emission, mode="max") == pytest.approx(values.max(), abs=1e-12)
    weights = np.exp(values - total)
    marginals, pairs, log_z = chain(init, transition, emission, mode="posterior")
    assert log_z == pytest.approx(total, abs=1e-12)
    want, want_pairs = np.zeros(emission.shape), np.zeros(transition.shape)
    for path, weight in zip(scores, weights, strict=True):
        for t, k in enumerate(path):
            want[t, k] += weight
        for t in range(1, steps):
            want_pairs[t if len(transition) > 1 else 0, path[t - 1], path[t]] += weight
    np.testing.assert_allclose(marginals, want, atol=1e-12)
    np.testing.assert_allclose(pairs, want_pairs, atol=1e-12)
    best = chain(init, transition, emission, mode="path")
    assert scores[tuple(best.tolist())] == pytest.approx(values.max(), abs=1e-12)


def test_of_equal_paths_the_first_is_taken():
    path = chain(np.zeros(3), np.zeros((1, 3, 3)), np.zeros((4, 3)), mode="path")
    np.testing.assert_array_equal(path, 0)


def test_an_impossible_chain_has_no_nan():
    init, transition = np.array([0.0, -np.inf]), np.array([[[-np.inf, 0.0], [-np.inf, -np.inf]]])
    emission = np.zeros((4, 2))
    assert chain(init, transition, emission, mode="sum") == -np.inf
    marginals, pairs, log_z = chain(init, transition, emission, mode="posterior")
    assert log_z == -np.inf
    assert np.all(marginals == 0) and np.all(pairs == 0)


def test_a_batch_broadcasts():
    init, transition, emission = tables(5)
    other = tables(6)[2]
    both = chain(init, transition, np.stack([emission, other]), mode="sum")
    alone = [chain(init, transition, e, mode="sum") for e in (emission, other)]
    np.testing.assert_allclose(both, alone, atol=1e-13)


def test_samples_have_the_posteriors_frequencies():
    init, transition, emission = tables(7)
    many = np.broadcast_to(emission, (4000, *emission.shape))
    key = np.array([3, 0], np.uint64)
    paths = chain(init, transition, many, key, mode="sample", path="z")
    assert stream(key, "z").seed == 3
    marginals = chain(init, transition, emission, mode="posterior")[0]
    found = np.stack([(paths == k).mean(axis=0) for k in range(3)], axis=-1)
    assert np.max(np.abs(found - marginals)) < 4 * np.sqrt(0.25 / 4000)
    scores = enumerate_chain(init, transition, emission)
    total = np.log(np.sum(np.exp(list(scores.values()))))
    top = max(scores, key=scores.__getitem__)
    share = np.mean(np.all(paths == np.array(top), axis=1))
    assert abs(share - np.exp(scores[top] - total)) < 4 * np.sqrt(0.25 / 4000)


def test_log_space_is_right_where_scaled_single_precision_is_not():
    # A state that all but dies out and then explains everything: the truth is one path.
    steps = 40
    with np.errstate(divide="ignore"):
        transition = np.log(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    emission = np.zeros((steps, 2))
    emission[: steps // 2, 1] = -200.0 / (steps // 2) * 2
    emission[steps // 2 :, 0] = -200.0 / (steps // 2) * 3
    init = np.log([0.5, 0.5])
    found = chain(init, transition, emission, mode="sum")
    assert found == pytest.approx(np.logaddexp(-400, -600) + np.log(0.5), abs=1e-9)

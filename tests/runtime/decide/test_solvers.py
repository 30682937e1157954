"""Solvers against dense linear algebra, and the relations between V and Q as properties."""

import numpy as np
import pytest
from tilth.runtime.decide import solvers
from tilth.runtime.decide.process import INDEX, Process
from tilth.runtime.decide.solvers import METHODS, Settings, solve
from tilth.runtime.decide.sweeps import Sweeper
from tilth.runtime.faults import RuntimeFault


def random_process(seed, states=23, actions=4, outcomes=3, gamma=0.9, ragged=True, ends=True):
    rng = np.random.default_rng(seed)
    allowed = rng.random((states, actions)) < (0.7 if ragged else 1.1)
    allowed[:, 0] = True
    counts = allowed.sum(axis=1)
    if ends:
        counts[-1] = 0
        allowed[-1] = False
    rows = int(counts.sum())
    chances = rng.dirichlet(np.ones(outcomes), rows)
    if ends:
        chances[rng.random((rows, outcomes)) < 0.1] = 0.0
    chances[:, 0] = np.maximum(chances[:, 0], 1e-3)
    return Process(
        (states,),
        actions,
        np.append(0, np.cumsum(counts)).astype(INDEX),
        np.nonzero(allowed)[1].astype(INDEX),
        (np.arange(rows + 1) * outcomes).astype(INDEX),
        rng.integers(0, states, rows * outcomes).astype(INDEX),
        gamma * chances.reshape(-1),
        rng.normal(size=rows),
    )


def dense(process):
    moves = np.zeros((process.rows, process.states))
    np.add.at(moves, (process.row_of_entry, process.next), process.weight)
    return moves


def optimum(process):
    """By policy iteration on dense matrices."""
    moves, state = dense(process), process.state_of_row
    rows = process.first[:-1].copy()
    acting = np.diff(process.first) > 0
    while True:
        chain = np.zeros((process.states, process.states))
        reward = np.zeros(process.states)
        chain[acting], reward[acting] = moves[rows[acting]], process.reward[rows[acting]]
        values = np.linalg.solve(np.eye(process.states) - chain, reward)
        q = process.reward + moves @ values
        better = rows.copy()
        for s in np.flatnonzero(acting):
            span = slice(process.first[s], process.first[s + 1])
            best = process.first[s] + int(q[span].argmax())
            if q[best] > q[rows[s]] + 1e-12:
                better[s] = best
        if np.array_equal(better, rows):
            assert (state[rows[acting]] == np.flatnonzero(acting)).all()
            return values, q
        rows = better


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_the_optimum_within_their_bound(method, seed):
    gamma = [0.5, 0.9, 0.99][seed % 3]
    process = random_process(seed, gamma=gamma, ragged=seed % 2 == 0, ends=seed > 2)
    values, _ = optimum(process)
    tol = 1e-6 if method == "linear_program" else 1e-9
    answer = solve(process, Settings(method, tol=tol))
    assert answer.error_bound is not None
    assert np.abs(answer.values - values).max() <= answer.error_bound + 1e-11
    if method != "linear_program":
        assert answer.error_bound <= tol


@pytest.mark.parametrize("evaluation", ["direct", "iterative"])
def test_policy_iteration_both_ways(evaluation):
    process = random_process(3, gamma=0.97)
    answer = solve(process, Settings("policy_iteration", tol=1e-9, evaluation=evaluation))
    np.testing.assert_allclose(answer.values, optimum(process)[0], atol=1e-8)


def test_bounds_hold_at_every_sweep():
    """The interval that a sweep proves contains the optimum, however early it is."""
    for seed in range(8):
        process = random_process(seed, gamma=0.95, ends=seed % 2 == 0)
        wanted, _ = optimum(process)
        sweeper = Sweeper(process, 1)
        lasting = sweeper.lasting.view(bool)
        values = np.where(lasting, np.random.default_rng(seed).normal(size=23) * 10, wanted)
        new = np.empty_like(values)
        widths = []
        for _ in range(30):
            low, high = sweeper.bounds(*sweeper.backup(values, new))
            assert (wanted >= new + low - 1e-10)[lasting].all()
            assert (wanted <= new + high + 1e-10)[lasting].all()
            widths.append(high - low)
            values, new = new, values
        assert widths[-1] < widths[0]


def test_the_bound_is_the_span_where_all_rows_discount_alike():
    """A reward for everything moves all values alike, and the bound does not see it."""
    process = random_process(1, gamma=0.99, ends=False)
    sweeper = Sweeper(process, 1)
    np.testing.assert_allclose(sweeper.discounts, (0.99, 0.99))
    low, high = sweeper.bounds(3.0, 3.0)
    assert low == pytest.approx(high) == pytest.approx(3 * 99)


def test_undiscounted_values_have_a_bound_where_every_policy_ends():
    process = random_process(4, gamma=1.0, ends=True)
    process.next[::3] = 22  # every action may end
    sweeper = Sweeper(process, 1)
    assert sweeper.life is not None and not sweeper.trap().any()
    answer = solve(process, Settings(tol=1e-9))
    wanted, _ = optimum(process)
    assert np.abs(answer.values - wanted).max() <= answer.error_bound + 1e-10


def test_four_relations_between_v_and_q():
    """For a policy and for the optimum: V from Q, Q from V, V from V, Q from Q."""
    for seed in range(10):
        process = random_process(seed, gamma=0.9)
        state, moves = process.state_of_row, dense(process)
        rng = np.random.default_rng(seed)
        weights = rng.random(process.rows)
        policy = weights / np.bincount(state, weights, process.states)[state]
        mixed = process.followed(policy)
        v = solvers.evaluate(mixed, Settings(tol=1e-12)).values
        q = process.rows_of(Sweeper(process, 1).action_values(v))
        by_state = np.bincount(state, policy * q, process.states)
        np.testing.assert_allclose(v, by_state, atol=1e-10)
        np.testing.assert_allclose(q, process.reward + moves @ v, atol=1e-10)
        chain = np.bincount(state, policy * (process.reward + moves @ v), process.states)
        np.testing.assert_allclose(v, chain, atol=1e-10)
        np.testing.assert_allclose(q, process.reward + moves @ by_state, atol=1e-10)

        best = solve(process, Settings(tol=1e-12)).values
        q = process.rows_of(Sweeper(process, 1).action_values(best))
        top = np.full(process.states, -np.inf)
        np.maximum.at(top, state, q)
        top[np.diff(process.first) == 0] = 0
        np.testing.assert_allclose(best, top, atol=1e-10)
        np.testing.assert_allclose(q, process.reward + moves @ best, atol=1e-10)
        np.testing.assert_allclose(q, process.reward + moves @ top, atol=1e-10)
        assert (best >= v - 1e-10).all()


def test_evaluation_directly_and_by_sweeps():
    process = random_process(2, actions=1, ragged=False)
    one = solvers.evaluate(process, Settings(tol=1e-12)).values
    two = solvers.evaluate(process, Settings(evaluation="direct")).values
    np.testing.assert_allclose(one, two, atol=1e-10)
    np.testing.assert_allclose(one, optimum(process)[0], atol=1e-10)


def test_a_finite_horizon_is_backward_induction():
    process = random_process(5, gamma=1.0)
    values, rows = solvers.finite_horizon(process, Settings(), 7)
    wanted = np.zeros(process.states)
    moves, state = dense(process), process.state_of_row
    for step in range(6, -1, -1):
        q = process.reward + moves @ wanted
        wanted = np.full(process.states, -np.inf)
        np.maximum.at(wanted, state, q)
        acting = np.diff(process.first) > 0
        wanted[~acting] = 0
        np.testing.assert_allclose(values[step], wanted)
        np.testing.assert_allclose(q[rows[step][acting]], wanted[acting])


def test_the_average_reward_is_what_long_runs_earn():
    process = random_process(6, gamma=1.0, ends=False, ragged=False)
    answer = solvers.average_reward(process, Settings(tol=1e-10))
    low, high = answer.gain
    assert high - low <= 2e-10
    chain = dense(process)[answer.rows]
    stationary = np.linalg.matrix_power(chain, 4096)[0]
    assert stationary @ process.reward[answer.rows] == pytest.approx(low, abs=1e-8)
    bias = process.reward[answer.rows] + chain @ answer.values - low
    np.testing.assert_allclose(bias, answer.values, atol=1e-7)


def test_a_periodic_chain_has_an_average_too():
    ring = Process(
        (2,), 1, np.array([0, 1, 2], INDEX), np.zeros(2, INDEX), np.array([0, 1, 2], INDEX),
        np.array([1, 0], INDEX), np.ones(2), np.array([3.0, 0.0]),
    )  # fmt: skip
    low, high = solvers.average_reward(ring, Settings(tol=1e-9)).gain
    assert low == pytest.approx(1.5) and high == pytest.approx(1.5)


def test_threads_do_not_change_a_bit():
    process = random_process(7, states=40_000, actions=3, outcomes=4)
    answers = [solve(process, Settings(tol=1e-8, threads=n)) for n in (1, 2)]
    assert Sweeper(process, 2).tasks > 4
    np.testing.assert_array_equal(answers[0].values, answers[1].values)
    np.testing.assert_array_equal(answers[0].rows, answers[1].rows)


def test_what_does_not_converge_says_so():
    process = random_process(0, gamma=0.999)
    with pytest.raises(RuntimeFault) as refusal:
        solve(process, Settings(tol=1e-9, max_steps=5))
    assert refusal.value.code == "E408"
    assert "not solved within 5 sweeps" in refusal.value.message


def test_endless_states_are_found():
    """0 -> 0, 1 -> 1 or 2, 2 ends."""
    process = Process(
        (3,), 2, np.array([0, 1, 3, 4], INDEX), np.array([0, 0, 1, 0], INDEX),
        np.array([0, 1, 2, 3, 3], INDEX), np.array([0, 1, 2], INDEX), np.ones(3), np.ones(4),
    )  # fmt: skip
    sweeper = Sweeper(process, 1)
    assert sweeper.endless().tolist() == [True, False, False]
    assert sweeper.trap().tolist() == [True, True, False]
    assert solvers.require_end(sweeper) == 0
    assert sweeper.lasting.tolist() == [1, 1, 0]

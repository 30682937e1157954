"""Learning rules on recorded experience against goldens; simulators against solved values."""

from pathlib import Path

import numpy as np
import pytest
from tilth.runtime.decide import learners
from tilth.runtime.decide.learners import Lesson, Simulator
from tilth.runtime.decide.solvers import Settings, evaluate, solve
from tilth.runtime.decide.sweeps import Sweeper
from tilth.runtime.kernels import temporal as td

GOLDEN = Path(__file__).parents[2] / "golden" / "rl"


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def process_of(name, **options):
    from tilth.compiler.decisions.extract import extract
    from tilth.program import load

    program = load(name, set=[f"{key}={value}" for key, value in options.items()])
    return extract(program.graph, {}, outcomes=True).process


def lesson(method, episodes, alpha=0.1, epsilon=0.1, temperature=0.0, **rest):
    tables = [np.full(episodes, float(x)) for x in (alpha, epsilon, temperature)]
    return Lesson(method, *tables, **rest)


def walk_episodes():
    arrays = golden("random_walk19")
    flat, lengths = arrays["episodes_flat"], arrays["episode_lengths"]
    for states in np.split(flat, np.cumsum(lengths)[:-1]):
        rewards = np.array([1.0 if s == 20 else -1.0 if s == 0 else 0.0 for s in states[1:]])
        factors = np.ones(len(rewards))
        factors[-1] = 0.0
        yield states.astype(np.int32), rewards, factors


def learn_walk(kind):
    values, rows = np.zeros(21), []
    traces, active, first = np.zeros(21), np.zeros(400, np.int32), np.zeros(21, np.int64)
    for states, rewards, factors in walk_episodes():
        count = len(rewards)
        if kind == "td0_a0p1":
            td.n_step(values, states, rewards, factors, count, 0.1, 1)
        elif kind == "nstep4_a0p1":
            td.n_step(values, states, rewards, factors, count, 0.1, 4)
        elif kind.startswith("td_lambda"):
            how = td.REPLACING if "repl" in kind else td.ACCUMULATING
            td.with_traces(
                values, states, rewards, factors, count, 0.05, 0.8, how, traces, active
            )  # fmt: skip
            assert not traces.any()
        else:
            visits = td.FIRST_VISIT if "first" in kind else td.EVERY_VISIT
            td.monte_carlo(values, states, rewards, factors, count, 0.02, visits, first)
        rows.append(values[1:20].copy())
    return np.array(rows)


@pytest.mark.parametrize(
    "kind",
    ["td0_a0p1", "nstep4_a0p1", "td_lambda0p8_acc_a0p05", "td_lambda0p8_repl_a0p05",
     "mc_every_a0p02", "mc_first_a0p02"],
)  # fmt: skip
def test_prediction_on_recorded_walks(kind):
    wanted = golden("random_walk19")[kind]
    np.testing.assert_allclose(learn_walk(kind), wanted, atol=1e-9)


@pytest.mark.parametrize("name", learners.CONTROL)
def test_control_on_recorded_steps(name):
    arrays = golden("q_learning_replay_cliff")
    method = learners.CONTROL.index(name)
    q, other = np.zeros(192), np.zeros(192)
    steps = arrays["trajectory"]
    for place, (s, a, reward, there, ended) in enumerate(steps):
        then = int(steps[place + 1][1]) if place + 1 < len(steps) else 0
        begin = int(there) * 4
        td.step_update(
            method, q, other, int(s) * 4 + int(a), reward, 0.0 if ended else 0.99, begin,
            begin + 4, begin + then, 0.5, 0.1, 0.0, arrays["coin"][place],
        )  # fmt: skip
    keys = {"expected_sarsa": "expected_sarsa_eps0p1", "double_q": "double_q_0"}
    wanted = arrays[keys.get(name, name)]
    assert np.abs(q.reshape(48, 4) - wanted).max() < 1e-8
    if name == "double_q":
        assert np.abs(other.reshape(48, 4) - arrays["double_q_1"]).max() < 1e-8


def test_the_random_stream_is_splitmix64():
    """The first outputs for seed 1234567 in the literature, and a fair coin."""
    random = np.array([1234567], np.uint64)
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for number in wanted:
        assert td.uniform(random) == (number >> 11) * 2.0**-53
    draws = np.array([td.uniform(random) for _ in range(4000)])
    assert draws.min() >= 0 and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.02


def greedy_chances(process, q, epsilon=0.0):
    """Chances by row of the policy that is greedy (or epsilon-greedy) for ``q``."""
    counts = np.diff(process.first)[process.state_of_row]
    chances = np.full(process.rows, epsilon) / counts
    for s in range(process.states):
        if process.first[s] < process.first[s + 1]:
            rows = slice(process.first[s], process.first[s + 1])
            chances[process.first[s] + q[rows].argmax()] += 1 - epsilon
    return chances


@pytest.mark.parametrize("method", ["q_learning", "double_q"])
def test_off_policy_control_finds_the_optimum_of_a_lake_without_wind(method):
    """Without noise the learned values are exact; every seed is on its own."""
    process = process_of("frozen_lake_firm", gamma=0.95)
    best = solve(process, Settings(tol=1e-10)).values
    plan = lesson(method, 20_000, alpha=0.2, epsilon=0.5, seeds=(0, 1, 2))
    found = learners.control(Simulator(process), plan)
    assert found.q.shape == (3, 64) and not np.array_equal(found.lengths[0], found.lengths[1])
    truth = process.rows_of(Sweeper(process).action_values(best))
    for q in found.q:
        assert np.abs(q - truth).max() < 1e-3


def test_expected_sarsa_learns_the_values_of_what_it_does():
    process = process_of("frozen_lake_firm", gamma=0.95)
    plan = lesson("expected_sarsa", 20_000, alpha=0.2, epsilon=0.2)
    (q,) = learners.control(Simulator(process), plan).q
    values = evaluate(process.followed(greedy_chances(process, q, 0.2)), Settings(tol=1e-12)).values
    assert np.abs(q - process.rows_of(Sweeper(process).action_values(values))).max() < 1e-3


def test_q_learning_on_the_cliff_takes_the_shortest_way_and_sarsa_the_safe_one():
    """Sutton, Barto, example 6.6: while learning, SARSA falls less often."""
    process = process_of("cliff_walking", gamma=1.0)
    simulator = Simulator(process, [36])
    seeds = tuple(range(20))
    online = {}
    for method in ("sarsa", "q_learning"):
        plan = lesson(method, 500, alpha=0.5, epsilon=0.1, seeds=seeds)
        online[method] = learners.control(simulator, plan).returns[:, 200:].mean()
    assert -35 < online["sarsa"] < -20
    assert -60 < online["q_learning"] < -38


@pytest.mark.parametrize("method", ["td0", "td_n", "td_lambda", "monte_carlo"])
def test_prediction_reaches_the_true_values(method):
    process = process_of("random_walk")
    truth = evaluate(process, Settings(tol=1e-10)).values
    truth[[0, 20]] = np.nan
    settings = {
        "td_n": {"n": 4}, "td_lambda": {"decay": 0.8}, "monte_carlo": {"visits": "first"}
    }.get(method, {})  # fmt: skip
    alpha = {"monte_carlo": 0.01, "td_lambda": 0.02}.get(method, 0.05)
    plan = lesson(method, 2000, alpha=alpha, seeds=tuple(range(8)), **settings)
    found = learners.predict(Simulator(process, [10]), plan, np.ones(process.rows), truth)
    assert found.errors.shape == (8, 2000)
    assert found.errors[:, 0].mean() > 0.4
    assert found.errors[:, -200:].mean() < 0.15
    assert found.values[:, [0, 20]].max() == 0


def test_monte_carlo_control_and_importance_sampling():
    process = process_of("frozen_lake", gamma=0.9)
    plan = lesson("monte_carlo", 30_000, alpha=0.02, epsilon=0.3, seeds=(0, 1))
    found = learners.monte_carlo_control(Simulator(process), plan)
    uniform = np.full(process.rows, 0.25)
    by_chance = evaluate(process.followed(uniform), Settings(tol=1e-10)).values.mean()
    for q in found.q:
        greedy = process.followed(greedy_chances(process, q))
        assert evaluate(greedy, Settings(tol=1e-10)).values.mean() > 1.5 * by_chance
    skewed = np.tile([0.4, 0.3, 0.2, 0.1], process.states)
    truth = evaluate(process.followed(skewed), Settings(tol=1e-12)).values
    wanted = process.rows_of(Sweeper(process).action_values(truth))
    for importance in learners.IMPORTANCE:
        plan = lesson("monte_carlo", 60_000, seeds=(0, 1, 2, 3), importance=importance)
        q = learners.monte_carlo_control(Simulator(process), plan, skewed).q.mean(axis=0)
        lasting = process.state_of_row[np.abs(wanted) > 0]
        rows = np.isin(process.state_of_row, lasting)
        assert np.abs(q - wanted)[rows].max() < 0.06


def test_learning_does_not_depend_on_threads():
    process = process_of("frozen_lake")
    plans = [lesson("q_learning", 200, seeds=(0, 1, 2, 3, 4), threads=n) for n in (1, 2)]
    one, two = (learners.control(Simulator(process), plan) for plan in plans)
    np.testing.assert_array_equal(one.q, two.q)
    np.testing.assert_array_equal(one.returns, two.returns)


def test_softmax_exploration_draws_by_exp_of_q():
    q, other = np.array([0.0, 1.0, 2.0]), np.zeros(3)
    random = np.array([7], np.uint64)
    rows = [td.choose(q, other, 0, 3, 0.0, 0.5, random) for _ in range(6000)]
    wanted = np.exp(q / 0.5) / np.exp(q / 0.5).sum()
    np.testing.assert_allclose(np.bincount(rows, minlength=3) / 6000, wanted, atol=0.02)
    assert td.expected_value(q, 0, 3, 0.0, 0.5) == pytest.approx(float(wanted @ q))
    assert td.expected_value(q, 0, 3, 0.3, 0.0) == pytest.approx(0.7 * 2 + 0.3)


def test_a_real_environment():
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    plan = lesson("q_learning", 300, alpha=0.5, epsilon=0.3, longest=100)
    found = learners.in_environment(env, 16, 4, 0.95, plan)
    assert found.returns[0, -100:].mean() > 0.4
    assert found.q[0].max() == pytest.approx(1.0, abs=0.05)

"""Decision processes: optimal values and actions through ``fix``, in float64."""

import numpy as np
import pytest
from seeded import CORPUS, ZOO, error, golden, model_of
from tilth.compiler.interpret import interpret


def solve(name, variant=None, overrides=(), inputs=None):
    model = model_of(ZOO / "decision" / f"{name}.yaml", variant, overrides)
    return interpret(model.graph, inputs or {}, {})


def check(found, arrays, gamma, tolerance=1e-8):
    states = found["V"].size
    assert error(found["V"].reshape(-1), arrays[f"V_{gamma}"]) < tolerance
    assert error(found["Q"].reshape(states, -1), arrays[f"Q_{gamma}"]) < tolerance
    best = arrays[f"optimal_actions_{gamma}"]
    assert best[np.arange(states), found["policy"].reshape(-1)].all()


@pytest.mark.parametrize("gamma", ["95", "99"])
@pytest.mark.parametrize(
    ("name", "variant", "case"),
    [
        ("cliff_walking", None, "cliffwalking"),
        ("frozen_lake", "frozen_lake", "frozenlake4x4"),
        ("frozen_lake", "frozen_lake_firm", "frozenlake4x4_det"),
        ("frozen_lake", "frozen_lake_8x8", "frozenlake8x8"),
    ],
)
def test_gymnasium_worlds(name, variant, case, gamma):
    arrays, _ = golden("rl", f"mdp_{case}")
    check(solve(name, variant, [f"gamma=0.{gamma}"]), arrays, gamma)


@pytest.mark.parametrize("gamma", ["95", "99"])
def test_taxi_from_a_table(gamma):
    arrays, _ = golden("rl", "mdp_taxi")
    table = {f"P.{key}": np.zeros((500, 6, 1)) for key in ("probability", "next", "reward", "done")}
    table["P.next"] = table["P.next"].astype(np.int32)
    for state, action, *outcome in arrays["transitions"]:
        for key, value in zip(table, outcome, strict=True):
            table[key][int(state), int(action), 0] = value
    check(solve("taxi", None, [f"gamma=0.{gamma}"], table), arrays, gamma)


def test_random_walk():
    arrays, _ = golden("rl", "random_walk19")
    values = solve("random_walk")["V"]
    assert values[0] == values[20] == 0
    assert error(values[1:20], arrays["true_values"]) < 1e-9


def value_iteration(transitions, reward, gamma, terminal=()):
    """Plain value iteration on ``transitions[s][a] = [(p, next), ...]``."""
    values = np.zeros(len(transitions))
    for _ in range(2000):
        q = np.array(
            [
                [
                    reward[s][a] + gamma * sum(p * values[n] for p, n in outcomes)
                    for a, outcomes in enumerate(row)
                ]
                for s, row in enumerate(transitions)
            ]
        )
        new = q.max(axis=1)
        new[list(terminal)] = 0
        if np.max(np.abs(new - values)) < 1e-11:
            break
        values = new
    return values, q


def test_gridworld_with_walls():
    model = model_of(ZOO / "decision" / "gridworld.yaml")
    wall = np.array(model.options["wall"])
    steps = [(-1, 0), (0, 1), (1, 0), (0, -1)]

    def move(state, action):
        row, column = divmod(state, 12)
        to = (
            min(max(row + steps[action][0], 0), 3),
            min(max(column + steps[action][1], 0), 11),
        )
        return state if wall[to] else to[0] * 12 + to[1]

    def outcomes(state, action):
        turns = ((0.8, 0), (0.1, 3), (0.1, 1))
        return [(p, move(state, (action + turn) % 4)) for p, turn in turns]

    transitions = [[outcomes(s, a) for a in range(4)] for s in range(48)]
    reward = [[0.0 if s == 47 else -1.0] * 4 for s in range(48)]
    values, q = value_iteration(transitions, reward, 0.95, terminal=[47])
    found = interpret(model.graph, {}, {})
    assert error(found["V"].reshape(-1), values) < 1e-7
    assert error(found["Q"].reshape(48, 4), q) < 1e-7


def test_gamblers_problem():
    """Bold play is optimal; from 50 it wins with the coin's probability."""
    found = solve("gamblers_problem")
    values = found["V"]
    assert values[50] == pytest.approx(0.4)
    assert values[25] == pytest.approx(0.16)
    assert values[75] == pytest.approx(0.4 + 0.6 * 0.4)
    assert found["stake"][50] == 50
    for s in range(1, 100):
        after = values.copy()
        after[100] = 1
        best = max(0.4 * after[s + a] + 0.6 * after[s - a] for a in range(1, min(s, 100 - s) + 1))
        assert values[s] == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("path", [ZOO / "decision" / "inventory.yaml",
                                  CORPUS / "inventory_sketch.yaml"])  # fmt: skip
def test_inventory(path):
    counts = np.arange(21)
    weights = 3.0**counts / np.cumprod(np.maximum(counts, 1)).astype(float)
    chances = weights / weights.sum()
    stock = np.minimum(20, counts[:, None] + counts)
    transitions = [
        [[(p, max(0, stock[s, a] - d)) for d, p in enumerate(chances)] for a in counts]
        for s in counts
    ]
    sold = np.minimum(counts, stock[..., None]) @ chances
    reward = 5 * sold - 2 * counts - counts[:, None]
    gains = np.zeros((21, 21, 21))
    for s in counts:
        for a in counts:
            for p, n in transitions[s][a]:
                gains[s, a, n] += p
    values = np.zeros(21)
    for _ in range(2000):
        values = (reward + 0.95 * gains @ values).max(axis=1)
    found = interpret(model_of(path).graph, {}, {})
    assert error(found["V"], values) < 1e-7


def test_policy_evaluation():
    """A given policy's values solve a linear system."""
    pi = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0], [0.3, 0.7], [0.6, 0.4]])
    chain = np.zeros((5, 5))
    for s in range(5):
        for a in range(2):
            chain[s, min(max(s + 2 * a - 1, 0), 4)] += pi[s, a] * 0.9
            chain[s, s] += pi[s, a] * 0.1
    wanted = np.linalg.solve(np.eye(5) - 0.9 * chain, np.eye(5)[4])
    model = model_of(CORPUS / "policy_eval.yaml")
    assert error(interpret(model.graph, {"pi": pi}, {})["V"], wanted) < 1e-7

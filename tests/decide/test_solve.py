"""Specs solved from their model: goldens, tables, policies, the command line, messages."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tilth.cli.main import main
from tilth.program import SpecError, load
from tilth.runtime.decide.tables import from_outcomes
from tilth.runtime.faults import RuntimeFault
from tilth.view.decision import _round_numbers

GOLDEN = Path(__file__).parents[1] / "golden" / "rl"
BAD = Path(__file__).parents[1] / "bad" / "decisions"
CASES = {
    "cliff_walking": "cliffwalking",
    "frozen_lake": "frozenlake4x4",
    "frozen_lake_firm": "frozenlake4x4_det",
    "frozen_lake_8x8": "frozenlake8x8",
}
METHODS = ("value_iteration", "gauss_seidel", "prioritised", "policy_iteration",
           "modified_policy_iteration", "linear_program")  # fmt: skip


def golden(case):
    with np.load(GOLDEN / f"mdp_{case}.npz") as file:
        return dict(file)


def taxi_outcomes():
    table = {}
    for state, action, *outcome in golden("taxi")["transitions"]:
        table.setdefault(int(state), {}).setdefault(int(action), []).append(tuple(outcome))
    return table


def check(solution, arrays, gamma, tolerance=1e-8):
    states = solution.values.size
    assert np.abs(solution.values.reshape(-1) - arrays[f"V_{gamma}"]).max() < tolerance
    table = solution.action_values.reshape(states, -1)
    wanted = arrays[f"Q_{gamma}"]
    acting = ~np.isnan(table)
    assert np.abs(table - wanted)[acting].max() < tolerance
    assert np.abs(solution.outputs["Q"].reshape(states, -1) - wanted).max() < tolerance
    policy = solution.policy.reshape(-1)
    best = arrays[f"optimal_actions_{gamma}"]
    here = policy >= 0
    assert best[np.flatnonzero(here), policy[here]].all()
    assert np.nanmax(solution.advantage) < tolerance


@pytest.mark.parametrize("gamma", ["95", "99"])
@pytest.mark.parametrize("name", CASES)
def test_gymnasium_worlds(name, gamma):
    program = load(name, set=[f"gamma=0.{gamma}"])
    for method in METHODS:
        check(program.solve(method=method, tol=1e-9), golden(CASES[name]), gamma)


@pytest.mark.parametrize("gamma", ["95", "99"])
def test_taxi_from_a_dictionary(gamma):
    program = load("taxi", set=[f"gamma=0.{gamma}"])
    check(program.solve({"P": taxi_outcomes()}), golden("taxi"), gamma)


def test_taxi_from_files(tmp_path):
    table = from_outcomes(taxi_outcomes())
    np.savez(tmp_path / "taxi.npz", **table)
    listed = {
        s: {a: list(map(list, r)) for a, r in of.items()} for s, of in taxi_outcomes().items()
    }
    (tmp_path / "taxi.json").write_text(json.dumps(listed))
    for file in ("taxi.npz", "taxi.json"):
        check(load("taxi").solve({"P": str(tmp_path / file)}), golden("taxi"), "99")


def test_tables_and_policies_from_gymnasium():
    """The policy earns in the real environment what V promises."""
    gymnasium = pytest.importorskip("gymnasium")
    for name, spec, source in (("FrozenLake-v1", "frozen_lake", None), ("Taxi-v3", "taxi", "P")):
        inputs = {source: f"gym:{name}"} if source else {}
        solution = load(spec).solve(inputs)
        policy, values = solution.policy.reshape(-1), solution.values.reshape(-1)
        newest = name if name in gymnasium.registry else "Taxi-v4"
        env = gymnasium.make(newest, max_episode_steps=1000)
        difference = []
        for seed in range(400):
            state, _ = env.reset(seed=seed)
            first, total, factor = state, 0.0, 1.0
            while True:
                state, reward, ended, cut, _ = env.step(max(0, int(policy[state])))
                total, factor = total + factor * reward, factor * 0.99
                if ended or cut:
                    break
            difference.append(total - values[first])
        error = np.std(difference) / np.sqrt(len(difference))
        assert abs(np.mean(difference)) <= 4 * error + 1e-9


def test_random_walk_has_the_golden_values():
    with np.load(GOLDEN / "random_walk19.npz") as file:
        wanted = file["true_values"]
    values = load("random_walk").solve().values
    assert values[0] == values[20] == 0
    assert np.abs(values[1:20] - wanted).max() < 1e-9


def test_a_given_policy_is_evaluated(tmp_path):
    program = load("frozen_lake")
    best = program.solve()
    uniform = np.full((4, 4, 4), 0.25)
    np.save(tmp_path / "pi.npy", uniform)
    found = program.solve(policy=str(tmp_path / "pi.npy"))
    assert found.method == "policy_evaluation"
    acting = ~np.isnan(found.action_values).any(axis=-1)
    mean = found.action_values.mean(axis=-1)
    np.testing.assert_allclose(found.values[acting], mean[acting], atol=1e-9)
    assert (found.values <= best.values + 1e-9).all()
    greedy = program.solve(policy=np.maximum(best.policy, 0))
    np.testing.assert_allclose(greedy.values, best.values, atol=1e-9)


def test_a_policy_that_is_none_is_refused():
    program = load("frozen_lake")
    with pytest.raises(SpecError, match=r"sums to 0.9 in state \[0, 0\]"):
        program.solve(policy=np.full((16, 4), 0.225))
    with pytest.raises(SpecError, match="the policy has the shape"):
        program.solve(policy=np.ones(3))


def test_a_horizon_and_the_average_reward():
    timed = load("frozen_lake").solve(horizon=20)
    assert timed.values.shape == (21, 4, 4) and timed.policy.shape == (20, 4, 4)
    assert (np.diff(timed.values, axis=0) <= 1e-12).all()
    average = load("inventory", set=["gamma=1"]).solve(average=True)
    near = load("inventory", set=["gamma=0.9999"]).solve()
    assert average.gain == pytest.approx(near.values[0] * 1e-4, rel=1e-3)


def test_the_spec_chooses_method_tolerance_and_discount(tmp_path):
    text = (Path(load("gridworld").model.envelope.document.file)).read_text(encoding="utf-8")
    text = text.replace("  gamma: 0.95\n", "")
    assert "gamma: 0.95" not in text
    section = "solve: {method: policy_iteration, evaluation: direct, tol: 1e-6, gamma: 0.9}\n"
    path = tmp_path / "gridworld.yaml"
    path.write_text(text.replace("model: |", section + "model: |"))
    found = load(path).solve()
    assert found.method == "policy_iteration"
    wanted = load("gridworld", set=["gamma=0.9"]).solve(tol=1e-10)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)


def test_the_command_prints_saves_and_draws(tmp_path, capsys):
    paths = [str(tmp_path / "found.npz"), str(tmp_path / "policy.svg")]
    assert main(["solve", "gridworld", "--output", paths[0], "--plot", paths[1]]) == 0
    out = capsys.readouterr().out
    assert "48, 1 of them ended" in out and "→" in out
    with np.load(paths[0]) as file:
        assert {"V", "Q", "policy", "advantage", "action_values"} <= set(file.files)
    drawing = Path(paths[1]).read_text(encoding="utf-8")
    assert drawing.count("<rect") == 49 and drawing.count("rotate(") == 47
    assert main(["solve", "frozen_lake", "--method", "policy_iteration", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["states"] == 16 and found["values"][0][0] == pytest.approx(0.5420, abs=1e-4)
    assert found["action_values"][1][1] == [0.0] * 4


def test_convergence_and_backup_diagrams(tmp_path):
    solution = load("frozen_lake").solve(tol=1e-6)
    solution.plot(tmp_path / "error.svg", "convergence")
    assert "<polyline" in (tmp_path / "error.svg").read_text(encoding="utf-8")
    solution.plot(tmp_path / "backup.svg", "backup", (2, 1))
    text = (tmp_path / "backup.svg").read_text(encoding="utf-8")
    assert text.count('r="6"') == 4 and text.count('ry="14"') > 8 and "[2, 1]" in text
    with pytest.raises(RuntimeFault, match=r"no state is at \[4, 0\]"):
        load("frozen_lake").solve().plot(tmp_path / "none.svg", "backup", (4, 0))


def test_gymnasium_that_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SpecError, match=r"pip install 'tilth\[gym\]'"):
        load("taxi").solve({"P": "gym:Taxi-v4"})


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda p: p.stem)
def test_bad_models_get_located_messages(path, monkeypatch):
    monkeypatch.chdir(BAD)
    with pytest.raises(SpecError) as refusal:
        load(path.name).solve()
    expected = path.with_suffix(".expected")
    if os.environ.get("TILTH_UPDATE") == "1":
        expected.write_text(str(refusal.value) + "\n", encoding="utf-8")
    assert str(refusal.value) + "\n" == expected.read_text(encoding="utf-8")


def test_the_corpus_meets_every_code_of_decisions():
    codes = {p.read_text().split("error[")[1][:4] for p in BAD.glob("*.expected")}
    assert {"E408", "E504", "E603", "E621", "E622"} <= codes


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1269, 45, [-1200, -1000, -800, -600, -400, -200, 0]),
        (107.7, 138, [110, 115, 120, 125, 130, 135]),
    ],
)
def test_axes_have_round_numbers(low, high, wanted):
    assert _round_numbers(low, high) == pytest.approx(wanted)

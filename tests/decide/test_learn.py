"""``tilth learn`` and ``Program.learn``: settings, seeds, curves, messages."""

import json
from pathlib import Path

import numpy as np
import pytest
from tilth.cli.main import main
from tilth.program import SpecError, load


def test_the_spec_says_how_to_learn():
    found = load("cliff_walking").learn(seeds=4, episodes=300)
    assert found.method == "q_learning" and found.returns.shape == (4, 300)
    assert found.action_values is not None and found.action_values.shape == (4, 4, 12, 4)
    assert found.policy is not None and found.policy.shape == (4, 4, 12)
    assert found.returns[:, -50:].mean() > found.returns[:, :20].mean()
    assert found.optimum is not None and found.optimum[3, 0] == pytest.approx(-12.2, abs=0.1)
    assert (found.lengths > 0).all() and found.steps == found.lengths.sum()
    again = load("cliff_walking").learn(seeds=(2,), episodes=300)
    np.testing.assert_array_equal(again.returns[0], found.returns[2])


def test_prediction_measures_its_error():
    found = load("random_walk").learn(seeds=8, episodes=200)
    assert found.method == "td_lambda" and found.action_values is None
    assert found.errors is not None and found.errors[:, -1].mean() < found.errors[:, 0].mean()
    middle, low, high = found.curve(10)
    assert len(middle) == 20 and (low <= middle).all() and (middle <= high).all()
    uniform = load("frozen_lake").learn(method="td0", seeds=2, episodes=10_000, alpha=0.02)
    assert uniform.errors is not None
    assert uniform.errors[:, -1000:].mean() < 0.2 * uniform.errors[:, 0].mean()
    by_policy = load("frozen_lake").learn(
        method="monte_carlo", policy=np.full((16, 4), 0.25), seeds=2, episodes=500
    )
    assert by_policy.errors is not None


def test_exploration_falls_and_step_sizes_follow_a_schedule(tmp_path):
    text = Path(load("cliff_walking").model.envelope.document.file).read_text(encoding="utf-8")
    head, _, model = text.partition("learn:")
    section = (
        "learn:\n  method: sarsa\n  episodes: 40\n  alpha: 0.5\n"
        "  explore: epsilon_greedy(0.5, final=0.1, episodes=21)\n  schedule: cosine(40)\n"
    )
    path = tmp_path / "cliff_walking.yaml"
    path.write_text(head + section + model[model.index("model: |") :])
    from tilth.learning import _lesson, _section

    lesson = _lesson(_section(load(path), {}), None)
    assert lesson.epsilon[[0, 10, 20, 39]].tolist() == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert lesson.alpha[0] == 0.5 and lesson.alpha[39] < 0.01
    assert load(path).learn(max_steps=200).lengths.max() <= 200


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"method": "td_n"}, "`td_n` needs `n`"),
        ({"method": "magic"}, "no method `magic`"),
        ({"start": (9, 9)}, r"no state is at \[9, 9\]"),
        ({"method": "q_learning", "start": (1, 1)}, "nothing to do"),
    ],
)
def test_settings_that_do_not_fit(how, message):
    name = "gridworld" if how.get("start") == (1, 1) else "cliff_walking"
    options = ["goal=[1,1]"] if name == "gridworld" else []
    with pytest.raises(SpecError, match=message):
        load(name, set=options).learn(episodes=5, **how)


def test_equations_that_draw_nothing_cannot_be_learned(tmp_path):
    path = tmp_path / "sums.yaml"
    path.write_text(
        "tilth: 1\nname: sums\nmodel: |\n  index s : 0..4\n"
        "  fix { V[s] = s + 0.4 * V[(s + 1) % 4] + 0.4 * V[(s + 2) % 4] }\n  output V\n"
    )
    with pytest.raises(SpecError, match="are not drawn by `~`"):
        load(path).learn(method="td0")


def test_the_command_prints_saves_and_draws(tmp_path, capsys):
    paths = [str(tmp_path / "found.npz"), str(tmp_path / "curve.svg")]
    words = ["learn", "cliff_walking", "--method", "expected_sarsa", "--episodes", "60"]
    assert main([*words, "--seeds", "3", "--output", paths[0], "--plot", paths[1]]) == 0
    assert "expected_sarsa, 3 seeds, 60 episodes each" in capsys.readouterr().out
    with np.load(paths[0]) as file:
        assert file["returns"].shape == (3, 60)
    assert Path(paths[1]).read_text(encoding="utf-8").count("<poly") == 2
    assert main(["learn", "random_walk", "--json", "--episodes", "50", "--seeds", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "td_lambda" and 0 < found["error"] < 1


def test_learning_in_gymnasium():
    pytest.importorskip("gymnasium")
    found = load("frozen_lake_firm").learn(
        env="FrozenLake-v1", method="q_learning", episodes=50, seeds=1, epsilon=0.5
    )
    assert found.returns.shape == (1, 50) and found.policy is not None
    with pytest.raises(SpecError, match="the environment has 500 states"):
        load("frozen_lake").learn(env="Taxi-v4", method="q_learning", episodes=1)
    with pytest.raises(SpecError, match="does not learn in an environment"):
        load("frozen_lake").learn(env="FrozenLake-v1", method="td0", episodes=1)


def test_every_setting_of_a_section_may_be_given_in_its_place():
    small = {"episodes": 300, "seeds": 2, "method": "q_learning"}
    plain = load("cliff_walking").learn(**small)
    soft = load("cliff_walking", set=["learn.explore=softmax(0.5)"]).learn(**small)
    greedy = load("cliff_walking", set={"learn.epsilon": 0.0}).learn(**small)
    assert not np.array_equal(soft.returns, plain.returns)
    np.testing.assert_array_equal(
        greedy.returns, load("cliff_walking").learn(**small, epsilon=0.0).returns
    )
    loose = load("frozen_lake", set=["solve.tol=1e-3"]).solve()
    assert loose.steps < load("frozen_lake").solve().steps
    with pytest.raises(SpecError, match=r"unknown key `explor` in `learn`"):
        load("cliff_walking", set=["learn.explor=greedy"])

"""Bellman equations become sparse processes that mean what the reference interpreter computes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilth.compiler.decisions import extract as module
from tilth.compiler.decisions.extract import extract
from tilth.compiler.decisions.faults import DecisionFault
from tilth.compiler.decisions.frames import Cut, reshape_cut
from tilth.compiler.interpret import interpret
from tilth.program import load
from tilth.runtime.decide import patterns
from tilth.runtime.decide.solvers import Settings, solve
from tilth.runtime.decide.sweeps import Sweeper

HEAD = "tilth: 1\nname: example\nmodel: |\n"


def graph_of(tmp_path, text):
    path = tmp_path / "example.yaml"
    path.write_text(HEAD + "\n".join("  " + line for line in text.strip().splitlines()) + "\n")
    return load(path).graph


def iterate(process, sweeps=4000):
    """Plain value iteration in numpy."""
    values = np.zeros(process.states)
    entry_row, row_state = process.row_of_entry, process.state_of_row
    for _ in range(sweeps):
        flow = np.bincount(entry_row, process.weight * values[process.next], process.rows)
        new = np.full(process.states, -np.inf)
        np.maximum.at(new, row_state, process.reward + flow)
        new[np.diff(process.first) == 0] = 0
        if np.array_equal(new, values):
            break
        values = new
    return process.sign * values


def assert_means_the_same(graph, feeds=None):
    found = extract(graph, feeds or {})
    values = iterate(found.process)
    wanted = interpret(graph, feeds or {}, {})
    names = [name for name, _ in graph.node(found.fix).regions[0].outputs]
    compared = 0
    for place, name in enumerate(names):
        if name in wanted:
            np.testing.assert_allclose(found.values(place, values), wanted[name], atol=1e-6)
            compared += 1
    assert compared
    return found.process


FORMS = {
    "one equation": """
        index s : 0..6
        index a : 0..3
        s' ~ choice(0.5: clamp(s + a, 0, 5), 0.5: clamp(s - a, 0, 5))
        fix { V[s] = max{a} (s - a + 0.9 * E{s'} V[s']) }
        output V
    """,
    "action values alone": """
        index s : 0..6
        index a : 0..3
        s' ~ choice(0.5: clamp(s + a, 0, 5), 0.5: clamp(s - a, 0, 5))
        fix { Q[s, a] = E{s'} (s' - a + 0.9 * max{b in 0..3} Q[s', b]) }
        output Q
    """,
    "costs": """
        index s : 0..6
        index a : 1..3
        s' = clamp(s - a, 0, 5)
        fix { V[s] = if s == 0 then 0 else min{a} (a * a + 0.9 * V[s']) }
        output V
    """,
    "stopping": """
        index s : 0..8
        s' ~ choice(0.5: clamp(s - 1, 0, 7), 0.5: clamp(s + 1, 0, 7))
        fix { V[s] = max(s * (7 - s), 0.95 * E{s'} V[s']) }
        output V
    """,
    "actions of a state": """
        index s : 0..9
        index a : 0..9
        fix {
          Q[s, a] = if a > s then 0 else 1 + 0.8 * V[s - a]
          V[s] = max{a in 0..s+1} Q[s, a]
        }
        output V
    """,
    "two indices of states and of actions": """
        index i : 0..3
        index j : 0..4
        index a : 0..2
        index b : 0..2
        fix { V[i, j] = max{a, b} (i * a - j * b + 0.7 * V[(i + a) % 3, (j + b) % 4]) }
        output V
    """,
    "a matrix of chances": """
        index s : 0..3
        index a : 0..2
        P = [[[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]], [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]],
             [[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]]]
        R = [[1.0, 0.0], [0.5, 2.0], [0.0, -1.0]]
        index n : 0..3
        fix {
          Q[s, a] = R[s, a] + 0.9 * sum{n} P[s, a, n] * V[n]
          V[s] = max{a} Q[s, a]
        }
        output V, Q
    """,
    "a chain without choice": """
        index s : 0..5
        s' ~ choice(0.3: clamp(s - 1, 0, 4), 0.7: clamp(s + 1, 0, 4))
        fix {
          W[s] = 0.5 * V[s]
          V[s] = s + 0.5 * E{s'} (V[s'] + 0.5 * W[s'])
        }
        output V, W
    """,
    "rewards of outcomes and weights by formula": """
        index s : 0..5
        index a : 0..2
        s' ~ choice(1 / (s + 2): 0, 1 - 1 / (s + 2): clamp(s + a, 0, 4))
        fix { V[s] = max{a} E{s'} ((if s' == 0 then -1 else s' / 2) + 0.9 * V[s']) }
        output V
    """,
    "noise": """
        index s : 0..6
        index a : 0..3
        d ~ truncate(poisson(1), 0, 4)
        s' = clamp(s + a - d, 0, 5)
        fix { V[s] = max{a} (E{d} (2 * min(s + a, d) - a) + 0.9 * E{d} V[s']) }
        output V
    """,
    "a neighbour outside counts nothing": """
        index s : 0..6
        fix { V[s] = s + 0.4 * V[s + 1] + 0.4 * V[s - 1] }
        output V
    """,
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_bellmans_equation(tmp_path, name):
    assert_means_the_same(graph_of(tmp_path, FORMS[name]))


@pytest.mark.parametrize("part", [1, 7, 40, 1 << 18])
def test_parts_of_the_states_make_the_same_process(tmp_path, monkeypatch, part):
    graph = load("gridworld").graph
    whole = extract(graph, {}).process
    monkeypatch.setattr(module, "PART", part)
    found = extract(graph, {}).process
    for field in ("first", "action", "start", "next", "weight", "reward"):
        np.testing.assert_array_equal(getattr(found, field), getattr(whole, field), err_msg=field)


def test_states_with_a_value_of_their_own_have_no_actions():
    process = extract(load("gridworld").graph, {}).process
    counts = np.diff(process.first)
    assert counts[47] == 0 and (counts[:47] == 4).all()
    gambler = extract(load("gamblers_problem").graph, {}).process
    assert np.diff(gambler.first)[[0, 1, 50, 99, 100]].tolist() == [0, 1, 50, 1, 0]


def test_the_dense_table_is_never_made(tmp_path):
    """A hundred thousand states: a dense table would hold 10^10 numbers an action."""
    graph = graph_of(
        tmp_path,
        """
        index s : grid(400, 250)
        index a : {up, right, down, left}
        step = [[-1, 0], [0, 1], [1, 0], [0, -1]]
        s' ~ choice(0.9: clamp(s + step[a]), 0.1: s)
        fix { V[s] = if s == [0, 0] then 0 else max{a} (0.9 * E{s'} V[s'] - 1) }
        output V
        """,
    )
    process = extract(graph, {}).process
    assert process.states == 100_000 and process.entries <= 800_000
    assert process.bytes < 20e6


def test_outcomes_are_kept_apart_for_a_simulator():
    process = extract(load("frozen_lake").graph, {}, outcomes=True).process
    outcomes = process.outcomes
    assert outcomes is not None
    sums = np.bincount(process.row_of_entry, outcomes.chance, process.rows)
    np.testing.assert_allclose(sums, 1)
    rewards = np.bincount(process.row_of_entry, outcomes.chance * outcomes.reward, process.rows)
    np.testing.assert_allclose(rewards, process.reward)
    np.testing.assert_allclose(outcomes.chance * outcomes.discount, process.weight)
    assert set(np.unique(outcomes.discount)) == {0.0, 0.99}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_of_a_reshape_holds_the_same_elements(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    total = int(np.prod(sizes))
    splits = [(a, total // a) for a in range(1, total + 1) if total % a == 0]
    target = data.draw(st.sampled_from([tuple(sizes), (total,), *splits]))
    array = np.arange(total)
    axis = data.draw(st.integers(0, len(target) - 1))
    first = data.draw(st.integers(0, target[axis] - 1))
    cut = Cut(axis, first, data.draw(st.integers(first + 1, target[axis])))
    inner = reshape_cut(tuple(sizes), target, cut)
    if inner is not None:
        part = inner.of(array.reshape(sizes)).reshape(cut.shape(target))
        np.testing.assert_array_equal(part, cut.of(array.reshape(target)))


def test_a_table_whose_chances_do_not_sum_to_one_is_refused():
    graph = load("taxi").graph.bind({"P_outcomes": 1})
    shape = (500, 6, 1)
    feeds = {
        "P.probability": np.ones(shape),
        "P.next": np.zeros(shape, np.int32),
        "P.reward": np.zeros(shape),
        "P.done": np.zeros(shape),
    }
    feeds["P.probability"][7, 2] = 0.75
    with pytest.raises(DecisionFault) as refusal:
        extract(graph, feeds)
    assert refusal.value.code == "E603"
    assert refusal.value.found == "they sum to 0.75 at [7, 2]"
    feeds["P.probability"][7, 2] = 1
    feeds["P.next"][3, 1] = 500
    with pytest.raises(DecisionFault) as refusal:
        extract(graph, feeds)
    assert refusal.value.code == "E504" and "500" in refusal.value.found


SHARED = (
    """
    index s : grid(9, 7)
    index a : {up, right, down, left}
    step = [[-1, 0], [0, 1], [1, 0], [0, -1]]
    s' ~ choice(0.7: clamp(s + step[a]), 0.2: clamp(s + step[(a + 1) % 4]), 0.1: s)
    R[s, a] = if s == [8, 6] then 3 else a - 2
    fix { V[s] = if s == [0, 0] then 0 else max{a} (R[s, a] + 0.9 * E{s'} V[s']) }
    output V
    """,
    FORMS["actions of a state"],
    FORMS["costs"],
)


@pytest.mark.parametrize("text", SHARED)
def test_states_that_differ_only_in_their_place_share_rows(tmp_path, monkeypatch, text):
    graph = graph_of(tmp_path, text)
    wanted = extract(graph, {}).process
    monkeypatch.setattr(module, "SHARED_FROM", 1)
    monkeypatch.setattr(module, "PART", 40)
    shared = extract(graph, {}).process
    assert shared.pattern is not None and wanted.pattern is None
    assert len(shared.action) <= wanted.rows
    assert (shared.states, shared.rows, shared.entries) == (
        wanted.states, wanted.rows, wanted.entries)  # fmt: skip
    plain = shared.plain
    for field in ("first", "action", "reward"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(wanted, field))
    flows = [
        np.bincount(p.row_of_entry * p.states + p.next, p.weight, p.rows * p.states)
        for p in (plain, wanted)
    ]
    np.testing.assert_allclose(*flows, rtol=1e-15)
    for method in ("value_iteration", "gauss_seidel", "prioritised", "policy_iteration",
                   "modified_policy_iteration", "linear_program"):  # fmt: skip
        one, two = (solve(p, Settings(method, tol=1e-7)) for p in (shared, wanted))
        np.testing.assert_allclose(one.values, two.values, atol=1e-6)
    tables = [Sweeper(p, 1).action_values(one.values) for p in (shared, wanted)]
    np.testing.assert_allclose(*tables, atol=1e-12)


def test_too_many_patterns_make_rows_of_their_own(tmp_path, monkeypatch):
    graph = load("garnet").graph
    wanted = extract(graph, {}).process
    monkeypatch.setattr(module, "SHARED_FROM", 1)
    monkeypatch.setattr(patterns, "MOST", 16)
    found = extract(graph, {}).process
    assert found.pattern is None
    np.testing.assert_array_equal(found.next, wanted.next)

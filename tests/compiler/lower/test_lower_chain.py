"""Compiled chains against the log-space reference, also where scaled numbers would lie."""

import numpy as np
import pytest
from graphs import Build, compiled
from tilth.compiler.ops.base import OPS
from tilth.compiler.ops.chain import backward, forward
from tilth.runtime.simd import lanes

chain = OPS["chain"].reference
assert chain is not None
INF = np.inf


def ask(mode, init, transition, emission, key=None, threads=2, width=0):
    """The compiled answer, as a tuple of arrays."""
    b = Build()
    arrays = [init, transition, emission]
    operands = [b.input(a.shape, "f32" if a.dtype == np.float32 else "f64", a) for a in arrays]
    if key is not None:
        operands.append(b.input(key.shape, "u64", key))
    made = b("chain", *operands, mode=mode, path="z")
    count = 3 if mode == "posterior" else 1
    b.output(*(type(made)(made.node, place) for place in range(count)))
    module = compiled(b.graph, {}, threads, width)
    module.run(b.inputs)
    for frame in module._pool:
        # Nothing may rely on what memory holds.
        frame.arena.view(np.float64)[:] = np.nan
        frame.scratch.view(np.float64)[:] = np.nan
    return tuple(module.run(b.inputs).values())


def agree(mode, *tables, **how):
    found = ask(mode, *tables, **how)
    with np.errstate(all="ignore"):
        wanted = chain(*tables, mode=mode)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for a, b in zip(found, wanted, strict=True):
        if mode == "path":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def tables(states, steps, varying=False, zeros=0.0, lead=(), seed=0):
    rng = np.random.default_rng(seed)
    shape = (*lead, steps if varying else 1, states, states)
    transition = rng.normal(size=shape) * 2
    transition[rng.random(shape) < zeros] = -INF
    return rng.normal(size=(*lead, states)), transition, rng.normal(size=(*lead, steps, states)) * 3


MODES = ("sum", "max", "posterior", "path")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("varying", [False, True])
def test_few_states(mode, zeros, varying):
    for steps in (1, 2, 70):
        agree(mode, *tables(3, steps, varying, zeros))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("states", [16, pytest.param(37, marks=pytest.mark.slow)])
def test_many_states(mode, zeros, states):
    agree(mode, *tables(states, 45, False, zeros))


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("states", [1, 2, 5, 8, 12, 19])
@pytest.mark.parametrize("varying", [False, True])
def test_every_layout(width, states, varying):
    if width > lanes():
        pytest.skip(f"this machine has {lanes()} lanes")
    for mode in MODES:
        for zeros in (0.0, 0.3):
            agree(mode, *tables(states, 45, varying, zeros), width=width)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_the_best_path_at_every_width(width):
    if width > lanes():
        pytest.skip(f"this machine has {lanes()} lanes")
    for states in (1, 3, 11):
        agree("path", *tables(states, 30), width=width)


@pytest.mark.parametrize("states", [2, 3, 7, 16, 17, 21, pytest.param(37, marks=pytest.mark.slow)])
def test_the_first_of_equal_paths_wins(states):
    # Small whole numbers: most steps have several best sources, in every run of them.
    rng = np.random.default_rng(states)
    for high in (1, 2, 3):
        shown = [rng.integers(0, high, shape).astype(float)
                 for shape in ((states,), (1, states, states), (60, states))]  # fmt: skip
        agree("path", *shown)
    agree("path", shown[0], np.full((1, states, states), -INF), shown[2])


def test_a_batch_broadcasts():
    init, transition, emission = tables(3, 9, lead=(2, 3))
    for mode in MODES:
        agree(mode, init[:, :1], transition[0, 0], emission)
        agree(mode, init[0, 0], transition, emission[0])


def test_a_float32_chain_is_worked_on_in_float64():
    init, transition, emission = (a.astype(np.float32) for a in tables(3, 400))
    (found,) = ask("sum", init, transition, emission)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, chain(init, transition, emission, mode="sum"), rtol=1e-6)


@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_paths_are_drawn_as_the_reference_draws_them(zeros):
    key = np.array([3, 5], np.uint64)
    for varying in (False, True):
        shown = tables(3, 40, varying, zeros, lead=(2,))
        (found,) = ask("sample", *shown, key=key)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(found, chain(*shown, key, mode="sample", path="z"))


def test_the_number_of_threads_changes_nothing():
    shown = tables(16, 300)
    for a, b in zip(ask("posterior", *shown, threads=1), ask("posterior", *shown), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- where scaling lies


def exact(init, transition, emission):
    """Log Z, marginals and transitions agree with log space."""
    with np.errstate(all="ignore"):
        alpha = forward(init, transition, emission)
        total = np.logaddexp.reduce(alpha[-1])
        log_marginals = alpha + backward(transition, emission) - total
    (found,) = ask("sum", init, transition, emission)
    np.testing.assert_allclose(found, total, rtol=1e-12)
    marginals, pairs, log_z = ask("posterior", init, transition, emission)
    np.testing.assert_allclose(log_z, total, rtol=1e-12)
    np.testing.assert_allclose(marginals, np.exp(log_marginals), atol=1e-9)
    with np.errstate(all="ignore"):
        wanted = chain(init, transition, emission, mode="posterior")[1]
    np.testing.assert_allclose(pairs, wanted, atol=1e-9 * len(emission))
    return float(found)


@pytest.mark.parametrize("run", [120, 2000])
def test_what_falls_far_behind_comes_back(run):
    # Two states that never change: one loses a nat a step, then the other loses two.
    emission = np.zeros((2 * run, 2))
    emission[:run, 0], emission[run:, 1] = -1, -2
    apart = np.array([[[0, -INF], [-INF, 0.0]]])
    assert exact(np.log([0.5, 0.5]), apart, emission) == pytest.approx(-run - np.log(2))


def test_left_right_chains():
    states, steps = 5, 1200
    transition = np.full((states, states), -INF)
    for k in range(states):
        transition[k, k] = np.log(0.999) if k + 1 < states else 0.0
        if k + 1 < states:
            transition[k, k + 1] = np.log(0.001)
    init = np.full(states, -INF)
    init[0] = 0
    emission = np.random.default_rng(0).normal(size=(steps, states)) * 4
    exact(init, transition[None], emission)
    # The last step can only be the first state's, which all others have long outweighed.
    emission[:, 0] -= 2
    emission[-1] = [0, -INF, -INF, -INF, -INF]
    exact(init, transition[None], emission)


@pytest.mark.parametrize("least", [1e-60, 1e-300, 0.0])
def test_tiny_transitions(least):
    with np.errstate(divide="ignore"):
        transition = np.log(np.array([[1 - 1e-9, least, 1e-9], [0.5, 0.5, least], [0.2, 0.3, 0.5]]))
    emission = np.random.default_rng(1).normal(size=(600, 3)) * 20
    exact(np.log([0.2, 0.3, 0.5]), transition[None], emission)
    deep = transition.copy()
    deep[0, 1] = -900.0  # exp of it is 0 in float64
    exact(np.log([0.2, 0.3, 0.5]), deep[None], emission)


def test_long_runs_that_favour_one_state():
    transition = np.log(np.full((4, 4), 0.001) + np.eye(4) * 0.996)
    emission = np.zeros((1600, 4))
    emission[:800, 1:] = -400
    emission[800:, :3] = -800
    exact(np.log(np.full(4, 0.25)), transition[None], emission)


def test_states_that_cannot_be_reached():
    init, transition, emission = tables(6, 200)
    init[4:] = -INF
    transition[:, :, 4:] = -INF
    emission[50:60, 1] = -INF
    exact(init, transition, emission)
    marginals, pairs, _ = ask("posterior", init, transition, emission)
    assert not marginals[:, 4:].any() and not pairs[:, :, 4:].any() and not pairs[:, 4:].any()


def test_an_impossible_chain_has_no_nan():
    init, transition = np.array([0.0, -INF]), np.array([[[-INF, 0.0], [-INF, -INF]]])
    emission = np.zeros((4, 2))
    assert ask("sum", init, transition, emission)[0] == -INF
    marginals, pairs, log_z = ask("posterior", init, transition, emission)
    assert log_z == -INF
    assert not marginals.any() and not pairs.any()
    dense = np.zeros((1, 2, 2))
    emission[2] = -INF
    assert ask("sum", np.zeros(2), dense, emission)[0] == -INF
    assert not ask("posterior", np.zeros(2), dense, emission)[0].any()


@pytest.mark.parametrize("dense", [True, False])
def test_a_million_steps(dense):
    # All states emit alike, so the sums are known: log Z is that of the emissions, and the states
    # follow their own law.
    steps = 1_000_000
    emission = np.repeat(np.random.default_rng(2).normal(size=(steps, 1)) - 3, 2, axis=1)
    change = np.array([[0.9, 0.1], [0.3, 0.7]] if dense else [[1.0, 0.0], [0.0, 1.0]])
    with np.errstate(divide="ignore"):
        shown = (np.log([0.75, 0.25]), np.log(change)[None], emission)
    (found,) = ask("sum", *shown)
    assert float(found) == pytest.approx(float(np.sum(emission[:, 0])), abs=1e-6)
    marginals, pairs, log_z = ask("posterior", *shown)
    assert float(log_z) == pytest.approx(float(np.sum(emission[:, 0])), abs=1e-6)
    np.testing.assert_allclose(marginals, np.broadcast_to([0.75, 0.25], (steps, 2)), atol=1e-12)
    wanted = np.array([0.75, 0.25])[:, None] * change * (steps - 1)
    np.testing.assert_allclose(pairs[0], wanted, rtol=1e-10)

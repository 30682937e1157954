"""Schedules against PyTorch's tables (base rate 0.1, one value a step) and against their claims."""

from pathlib import Path

import numpy as np
import pytest
from tilth.runtime.train.schedules import RULES, Schedule
from tilth.spec.diagnostics import Reporter, render_all
from tilth.spec.envelope import read_envelope
from tilth.spec.section_calls import SCHEDULES

GOLDEN = Path(__file__).parents[2] / "golden" / "training" / "lr_schedules.npz"
BASE = "tilth: 1\nname: tiny\nmodel: |\n  x = 1\ntrain:\n  schedule: "


def calls(text):
    reporter = Reporter()
    envelope = read_envelope(BASE + text + "\n", "f.yaml", reporter)
    assert not reporter.failed, render_all(reporter.diagnostics, reporter.sources)
    assert envelope is not None and envelope.train is not None
    return envelope.train.schedule


def fault(text):
    reporter = Reporter()
    read_envelope(BASE + text + "\n", "f.yaml", reporter)
    return [(d.code, str(d.span)) for d in reporter.diagnostics]


ONE = "one_cycle(60, max=1.0, momentum=[0.85, 0.95])"
THREE = "one_cycle(61, max=1.0, rise=0.4, shape=linear, phases=3, momentum=[0.85, 0.95])"


@pytest.mark.parametrize(
    ("golden", "text"),
    [
        ("step_20_0p1", "step(20)"),
        ("multistep_30_45", "multistep([30, 45])"),
        ("exponential_0p95", "exponential(0.95)"),
        ("cosine_tmax60", "cosine(60, min=1e-3)"),
        ("cosine_restarts_10_2", "cosine_restarts(10, factor=2)"),
        ("poly_0p9", "poly(60, power=0.9)"),
        ("warmup5_linear_then_cosine", "warmup(5, start=0.2) >> cosine(55)"),
        ("cyclic_triangular", "cyclic(0.01, 0.1, up=8, down=12)"),
        ("cyclic_triangular2", "cyclic(0.01, 0.1, up=10, mode=triangular2)"),
        ("cyclic_exp_range", "cyclic(0.01, 0.1, up=10, mode=exp_range, gamma=0.99)"),
        ("onecycle_cos_lr", ONE),
        ("onecycle_lin3_lr", THREE),
    ],
)
def test_agrees_with_pytorch(golden, text):
    expected = np.load(GOLDEN)[golden]
    found = Schedule(calls(text), 0.1).table(60)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("golden", "text"), [("cos", ONE), ("lin3", THREE)])
def test_momentum_goes_against_the_rate(golden, text):
    expected = np.load(GOLDEN)[f"onecycle_{golden}_momentum"]
    schedule = Schedule(calls(text), 0.1)
    found = [schedule.at(step).momentum for step in range(60)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_linear_scaling_with_gradual_warmup():
    """Goyal et al. 2017: 8 times the batch, 8 times the rate, reached after a ramp."""
    text = "linear_scaling(base_batch=32) >> warmup(20, start=0.125) >> multistep([20])"
    expected = np.load(GOLDEN)["linear_scaling_k8_warmup20_step40"]
    found = Schedule(calls(text), 0.1, batch=256).table(60)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rates_change_within_an_epoch():
    coarse = Schedule(calls("warmup(2) >> cosine(3)"), 0.4).table(6)
    fine = Schedule(calls("warmup(2) >> cosine(3)"), 0.4, unit=10).table(60)
    np.testing.assert_allclose(fine[::10], coarse, rtol=1e-12)
    assert np.all(np.diff(fine[:20]) > 0) and np.all(np.diff(fine[20:50]) < 0)


def test_a_schedule_keeps_its_last_rate():
    found = Schedule(calls("cosine(10, min=0.01)"), 0.1).table(20)
    np.testing.assert_allclose(found[10:], 0.01)


def test_no_schedule_is_a_constant_rate():
    assert Schedule((), 0.3).at(1000).lr == 0.3


def test_what_has_no_end_stands_last():
    assert fault("step(5) >> cosine(10)") == [("E016", "6:13")]
    assert fault("constant(0.1) >> cosine(10)") == [("E016", "6:13")]
    assert fault("constant(0.1, epochs=3) >> cosine(10)") == []


def test_every_schedule_of_the_language_has_a_formula():
    assert set(SCHEDULES.names) == {*RULES, "linear_scaling"}

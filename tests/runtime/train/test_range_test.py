"""The learning-rate range test: what follows from a curve, and that training makes one."""

import numpy as np
import pytest
from test_loop import SPEC, examples
from tilth.program import SpecError, load
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.train.plot import plot_runs
from tilth.runtime.train.range_test import RangeTest, is_over, read_range_test, require_steps
from tilth.runtime.train.schedules import Sweep
from tilth.training import range_test


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return load(path)


def valley(steps=200):
    """A loss that falls as a sigmoid of the rate's logarithm about 1e-3 and rises from 1e-1 on."""
    rates = np.geomspace(1e-6, 1, steps)
    at = np.log10(rates)
    return RangeTest(rates, 1 + 1 / (1 + np.exp(4 * (at + 3))) + np.maximum(at + 1, 0) ** 2)


def test_rates_of_a_valley():
    found = valley()
    # Smoothing comes late by a few of the 33 steps that a power of ten takes.
    assert 1e-3 <= found.steepest <= 10**-2.5
    assert 0.05 <= found.largest <= 0.2 and found.suggested == found.largest / 10


def test_a_smoothed_constant_is_that_constant():
    np.testing.assert_allclose(RangeTest(np.ones(30), np.full(30, 2.5)).smoothed, 2.5, rtol=1e-12)


def test_rates_grow_by_the_same_factor():
    rates = np.array([Sweep(1e-4, 1, 9).at(step).lr for step in range(11)])
    np.testing.assert_allclose(rates[:9], np.geomspace(1e-4, 1, 9), rtol=1e-12)
    assert (rates[9:] == 1).all()


def test_it_ends_when_the_loss_has_risen():
    losses = [1.0] * 20 + [50.0] * 5
    assert not is_over(losses[:20]) and is_over(losses) and not is_over([1.0, 99.0])


def test_a_table_comes_back_and_others_are_refused(tmp_path):
    found = valley(40)
    again = read_range_test(found.save(tmp_path))
    assert (again.rates == found.rates).all() and (again.losses == found.losses).all()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RuntimeFault, match="not the table of a range test"):
        read_range_test(tmp_path / "other.csv")


def test_a_net_is_tested_until_it_diverges(program, tmp_path):
    found = range_test(program, examples(), low=1e-5, high=1e6, steps=90, out=tmp_path / "run")
    assert found.diverged and 10 < len(found.rates) < 90
    assert 1e-4 < found.steepest < found.largest < 100
    assert found.rates[0] == pytest.approx(1e-5)
    names = {path.name for path in plot_runs([tmp_path / "run"])}
    assert names == {"range_test.png", "range_test.svg"}
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_rates_out_of_order_and_hopeless_ones(program):
    with pytest.raises(SpecError, match="from a rate above 0 to a larger one, not 1 to"):
        range_test(program, examples(), low=1, high=0.1)
    with pytest.raises(RuntimeFault, match="diverged after 1 steps, at a rate of 5"):
        require_steps(RangeTest(np.array([5.0]), np.array([1e30]), True))

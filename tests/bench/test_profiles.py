"""Profiles against the roofline, and a module's profile row by row."""

import numpy as np
import pytest
import tilth
from tilth.bench.own import _owners, prepare_tilth, profile_tilth, write_tilth
from tilth.bench.problem import Chosen, relative_error, write_problem
from tilth.bench.profiles import Machine, Profiled, total
from tilth.compiled import lowered
from tilth.compiler.cost import cost
from tilth.compiler.passes import split_batch
from tilth.runtime import walker

SPEC = """\
tilth: 1
name: tiny
model: |
  input image : f32[N, 16, H, W]
  y = image >> conv(32, 3) as conv1 >> relu >> gap >> linear(5) as fc
  output y
"""


def test_the_roofline_is_what_arithmetic_or_memory_needs_at_the_least():
    machine = Machine(flops=100e9, bytes=10e9)
    dense = Profiled("dense", 2.0, flops=100_000_000, moved=1_000_000)
    moving = Profiled("moving", 2.0, flops=0, moved=10_000_000)
    assert machine.roofline(dense) == pytest.approx(0.5)
    assert machine.bound(dense) == "arithmetic"
    assert machine.roofline(moving) == pytest.approx(0.5)
    assert machine.bound(moving) == "memory"
    assert machine.roofline(Profiled("unknown", 2.0)) is None
    assert dense.gflops == pytest.approx(50.0)
    assert moving.gbytes == pytest.approx(5.0)
    both = total([dense, moving])
    assert (both.ms, both.flops, both.moved) == (4.0, 100_000_000, 11_000_000)


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    folder = tmp_path / "problem"
    folder.mkdir()
    made = write_problem(folder, Chosen(str(path), sizes={"N": 1, "H": 9, "W": 9}), onnx=False)
    write_tilth(made, 1)
    return made


def test_each_op_has_its_arithmetic_and_its_bytes(problem):
    assert relative_error(prepare_tilth(problem, 1, "")(), problem.reference) < 1e-5
    ops = profile_tilth(problem, 1, "")
    conv = next(op for op in ops if "conv1" in op.name)
    assert conv.flops == 2 * 32 * 16 * 9 * 9 * 9
    assert conv.moved == 4 * (16 * 81 + 32 * 16 * 9 + 32 + 32 * 81)
    assert any("fc" in op.name and op.flops == 2 * 32 * 5 for op in ops)
    assert all(op.ms > 0 for op in ops)


def test_a_profile_that_fails_gives_its_memory_back(problem, monkeypatch):
    from tilth.bench.own import _module

    module = _module(problem, 1)
    inputs = problem.inputs
    module.run(inputs)
    assert len(module._pool) == 1

    def fail(*args):
        raise RuntimeError("a row that fails")

    with monkeypatch.context() as patch:
        patch.setattr(walker.Walk, "run_row", fail)
        with pytest.raises(RuntimeError):
            module.profile(inputs)
    assert len(module._pool) == 1
    assert np.isfinite(module.run(inputs)["y"]).all()


@pytest.mark.parametrize("name", ["lstm", "squeezenet1_1"])
def test_arithmetic_in_loops_counts_every_turn(name, monkeypatch):
    """The ops of a plan, those in loops over steps or parts of a batch too, do the net's work."""
    monkeypatch.setattr(split_batch, "LAST_LEVEL", 0)
    monkeypatch.setattr(split_batch, "WEIGHTS", 0)
    program = tilth.load(name)
    sizes = {size: {"N": 4, "T": 5}.get(size, 64) for size in program.graph.symbols}
    plan, graph = lowered(program, sizes, threads=2)
    owners = {tuple(path): (flops, turns) for path, _, flops, _, turns in _owners(plan, graph)}
    assert sum(flops or 0 for flops, _ in owners.values()) == 2 * cost(graph).macs
    assert max(turns for _, turns in owners.values()) > 1

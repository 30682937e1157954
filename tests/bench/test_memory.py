"""What a compiled module needs beyond a bare process: packed weights and what a call holds."""

import pytest
from tilth.bench.own import write_tilth
from tilth.bench.problem import Chosen, write_problem
from tilth.bench.station import Station

WIDE = """\
tilth: 1
name: wide
model: |
  input x : f32[N, 4096]
  y = x >> linear(3072) as fc
  output y
"""
MIB = 2**20
SLACK = 8 * MIB
"""Machine code of the kernels, and weights rounded up to the system's large pages."""


def test_memory_is_the_packed_weights_and_what_a_call_holds(tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(WIDE)
    folder = tmp_path / "problem"
    folder.mkdir()
    problem = write_problem(folder, Chosen(str(path), sizes={"N": 1}), onnx=False)
    bound = write_tilth(problem, 1)
    assert 48 * MIB < bound < 49 * MIB
    with Station(problem, "tilth", "", 1, tmp_path / "cache"):
        pass  # it compiles the kernels, which takes memory of its own
    with Station(problem, "tilth", "", 1, tmp_path / "cache") as warm:
        if warm.start.peak is None:
            pytest.skip("this system does not tell a process's memory")
        assert 48 * MIB < warm.start.peak < bound + SLACK

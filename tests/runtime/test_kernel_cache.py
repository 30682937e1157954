"""The kernel cache is right after an edit, survives damage, and can be read-only or cleared."""

import os
import subprocess
import sys

import pytest
from tilth.runtime import kernel_cache

ADD = """
from tilth.runtime.simd import load_i64, store_i64


def kernel(row, task, slot):
    store_i64(load_i64(row), load_i64(row + 8) + {constant})
"""

PROGRAM = """
import numpy as np
from tilth.runtime import kernel_cache
from tilth.runtime.walker import walk

made = kernel_cache.kernel("add", {source!r})
cell = np.zeros(1, np.int64)
row = np.array([made.address, 1, cell.ctypes.data, 40], np.int64)
walk(row, np.zeros(1, np.int64), np.zeros(16, np.int64), 1)
print(int(cell[0]), made.compiled)
"""


def run(folder, constant: int) -> str:
    source = ADD.format(constant=constant)
    environment = {**os.environ, "TILTH_CACHE": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(source=source)],
        capture_output=True, text=True, env=environment, check=True, cwd=folder,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_second_process_finds_the_kernel_and_an_edit_makes_a_new_one(tmp_path):
    assert run(tmp_path, 2) == "42 True"
    assert run(tmp_path, 2) == "42 False"
    assert run(tmp_path, 3) == "43 True"


def test_a_damaged_file_counts_as_absent(tmp_path):
    assert run(tmp_path, 2) == "42 True"
    for path in tmp_path.rglob("*.bin"):
        path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    assert run(tmp_path, 2) == "42 True"
    assert run(tmp_path, 2) == "42 False"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_cache_that_cannot_be_written_still_works(tmp_path):
    assert run(tmp_path, 2) == "42 True"
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    source = ADD.format(constant=5)
    environment = {**os.environ, "TILTH_CACHE": str(blocker)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(source=source)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "45 True"


def test_clear_deletes_what_is_cached(tmp_path, monkeypatch):
    run(tmp_path, 2)
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path))
    assert kernel_cache.clear() > 0
    assert not list(tmp_path.rglob("*.bin"))
    assert run(tmp_path, 2) == "42 True"

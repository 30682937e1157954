"""The kernel cache is right after an edit, survives damage, and can be read-only or cleared."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from queue import SimpleQueue

import pytest
from tilth.runtime import disk_cache, kernel_cache

ADD = """
from tilth.runtime.simd import load_i64, store_i64


def kernel(row, task, slot):
    store_i64(load_i64(row), load_i64(row + 8) + {constant})
"""

PROGRAM = """
import numpy as np
from tilth.runtime import kernel_cache
from tilth.runtime.walker import Walk

made = kernel_cache.kernel("add", {source!r})
cell = np.zeros(1, np.int64)
row = np.array([made.address, 1, cell.ctypes.data, 40], np.int64)
Walk(row, np.zeros(1, np.int64), 1).run()
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


class Spec:
    """What a plan's row knows of its kernel."""

    name = "add"

    def __init__(self, constant):
        self.constant = constant

    def source(self):
        return ADD.format(constant=self.constant)


def test_kernels_of_one_name_and_different_sources_are_two():
    first, second, again = kernel_cache.kernels([Spec(2), Spec(3), Spec(2)])
    assert first.address == again.address != second.address


def test_a_helper_compiles_what_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path))
    jobs = [("add", ADD.format(constant=constant)) for constant in (40, 41)]
    waiting = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    kernel_cache._feed_helper(waiting)
    assert waiting.empty() and all(kernel_cache.is_cached(*job) for job in jobs)
    assert not kernel_cache.kernel(*jobs[0]).compiled, "this process found it on disk"


def start(folder, constant: int, **more: str) -> subprocess.Popen:
    environment = {**os.environ, "TILTH_CACHE": str(folder), **more}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(source=ADD.format(constant=constant))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def read_only(root, monkeypatch):
    """Let every write below a folder fail, also for a user whom permissions do not stop."""
    plain = tempfile.mkstemp

    def refuse(*args, dir=None, **options):
        if dir is not None and Path(dir).is_relative_to(root):
            raise PermissionError(13, "Permission denied", str(dir))
        return plain(*args, dir=dir, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refuse)


@pytest.fixture
def forgetful(monkeypatch):
    """This process as one that has loaded no kernel and owns no folder."""
    monkeypatch.setattr(kernel_cache, "_loaded", {})
    kernel_cache._own.cache_clear()
    yield
    kernel_cache._own.cache_clear()


def test_two_processes_compile_the_same_kernel_at_the_same_time(tmp_path):
    team = [start(tmp_path, 2) for _ in range(2)]
    answers = [process.communicate()[0].strip() for process in team]
    assert {answer.split()[0] for answer in answers} == {"42"}
    assert run(tmp_path, 2) == "42 False"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_read_only_cache_gives_what_it_holds_without_a_word(tmp_path, monkeypatch, forgetful):
    assert run(tmp_path, 2) == "42 True"
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path))
    read_only(tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = kernel_cache.kernel("add", ADD.format(constant=2))
    assert not made.compiled


def test_a_read_only_cache_keeps_new_kernels_elsewhere_and_says_so_once(
    tmp_path, monkeypatch, forgetful
):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path))
    read_only(tmp_path, monkeypatch)
    with pytest.warns(RuntimeWarning, match="cannot be written.*TILTH_CACHE") as told:
        for constant in (20, 21):
            source = ADD.format(constant=constant)
            assert kernel_cache.kernel("add", source).compiled
    assert len(told) == 1
    assert not list(tmp_path.rglob("*.bin"))
    # Another look finds them in the process's own folder, which its helper shares.
    monkeypatch.setattr(kernel_cache, "_loaded", {})
    assert kernel_cache.is_cached("add", ADD.format(constant=20))
    assert not kernel_cache.kernel("add", ADD.format(constant=20)).compiled


def test_a_cache_that_cannot_be_made_still_works_and_leaves_nothing(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start(blocker, 5, TMPDIR=str(temporary))
    output, told = process.communicate()
    assert output.strip() == "45 True"
    assert told.count("cannot be written") == 1
    assert not list(temporary.glob("tilth-*"))


def test_an_edit_of_the_library_changes_the_key_of_new_processes_only(tmp_path):
    """A copy of the runtime is edited while a process that imported it lives."""
    root = Path(kernel_cache.__file__).parents[1]
    copy = tmp_path / "tilth"
    for part in ("__init__.py", "runtime"):
        source = root / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir()
            shutil.copy(source, copy / part)
    program = """
import sys
from tilth.runtime import kernel_cache, simd
from pathlib import Path

assert Path(simd.__file__).is_relative_to(sys.argv[1]), simd.__file__
if len(sys.argv) > 2:
    with open(Path(simd.__file__).parent / sys.argv[2], "a") as file:
        file.write("# edited")
print(kernel_cache.library_key())
"""

    def key(*edited: str) -> str:
        command = [sys.executable, "-c", program, str(tmp_path), *edited]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path
        )
        return done.stdout.strip()

    for edited in ("simd.py", "kernels/masks.py"):
        before = key()
        assert key(edited) == before, "code that is loaded must not be kept under the new key"
        assert key() != before


def test_generated_kernels_import_only_what_the_key_covers():
    folder = Path(kernel_cache.__file__).parent
    covered = {
        *(name.removesuffix(".py") for name in kernel_cache.COVERED),
        *(f"kernels.{p.stem}" for p in folder.glob("kernels/*.py")),
        "kernels",
    }
    for path in [folder / "walker.py", *folder.glob("kernels/*.py")]:
        for name in re.findall(r"from tilth\.runtime\.([\w.]+) import", path.read_text()):
            assert name in covered, f"{path.name}: {name} is not part of the key"
    for path in [folder / "simd.py", folder / "abi.py", *folder.glob("kernels/*.py")]:
        for name in re.findall(r"(?m)^\s*from \.\.([\w.]+) import", path.read_text()):
            assert name in covered, f"{path.name}: {name} is not part of the key"


def test_clear_deletes_what_is_cached(tmp_path, monkeypatch):
    run(tmp_path, 2)
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path))
    assert disk_cache.clear() > 0
    assert disk_cache.clear() == 0
    assert not list(tmp_path.rglob("*.bin"))
    assert run(tmp_path, 2) == "42 True"

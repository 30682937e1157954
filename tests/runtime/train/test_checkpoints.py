"""Checkpoints: what comes back, and that no fault costs an earlier one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tilth.runtime import files
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.train import checkpoints
from tilth.runtime.train.checkpoints import (
    Checkpoint,
    load_checkpoint,
    read_checkpoint,
    save_best,
    save_checkpoint,
)
from tilth.runtime.weights import Wanted, load_weights


def checkpoint(step):
    rng = np.random.default_rng(step)
    weights = {"fc.weight": rng.standard_normal((3, 5)).astype(np.float32), "n": np.array(step)}
    slots = {"momentum/fc.weight": rng.standard_normal((5, 3)).T}
    return Checkpoint(weights, slots, {"step": step, "loss": 0.1, "best": [1, None, "x"]})


def fault_of(run):
    with pytest.raises(RuntimeFault) as caught:
        run()
    return caught.value


def same(found, wanted):
    assert found.state == wanted.state
    for got, want in ((found.weights, wanted.weights), (found.slots, wanted.slots)):
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
            assert (got[name].dtype, got[name].shape) == (want[name].dtype, want[name].shape)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path / "run", checkpoint(1))
    same(load_checkpoint(tmp_path / "run"), checkpoint(1))


def test_the_newest_is_last_and_the_one_before_is_kept(tmp_path):
    for step in range(4):
        save_checkpoint(tmp_path, checkpoint(step))
    assert names(tmp_path) == ["last.safetensors", "previous.safetensors"]
    same(read_checkpoint(tmp_path / "previous.safetensors"), checkpoint(2))
    same(load_checkpoint(tmp_path), checkpoint(3))


def test_more_are_kept_and_fewer_later(tmp_path):
    for step in range(6):
        save_checkpoint(tmp_path, checkpoint(step), keep=4)
    kept = ["last", "previous", "previous-2", "previous-3"]
    for name, step in zip(kept, (5, 4, 3, 2), strict=True):
        same(read_checkpoint(tmp_path / f"{name}.safetensors"), checkpoint(step))
    assert len(names(tmp_path)) == 4
    save_checkpoint(tmp_path, checkpoint(6), keep=1)
    assert names(tmp_path) == ["last.safetensors", "previous.safetensors"]


def test_weights_load_by_name_from_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    save_best(tmp_path, checkpoint(1).weights, {"accuracy": 0.5})
    wanted = {
        name: Wanted(array.shape, array.dtype) for name, array in checkpoint(1).weights.items()
    }
    for name in ("last", "best"):
        loaded = load_weights(tmp_path / f"{name}.safetensors", wanted)
        np.testing.assert_array_equal(
            loaded.arrays["fc.weight"], checkpoint(1).weights["fc.weight"]
        )
    assert load_file(tmp_path / "best.safetensors").keys() == checkpoint(1).weights.keys()


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_cut_off_checkpoint_is_told_and_the_previous_one_used(tmp_path, size):
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:size])
    said = []
    same(load_checkpoint(tmp_path, said.append), checkpoint(1))
    assert said == [
        f"the checkpoint `{last}` is damaged: it is cut off or not a safetensors file; "
        "going on from `previous.safetensors` instead"
    ]


def test_equal_checkpoints_are_equal_files(tmp_path):
    # Many times, since safetensors orders the keys of its metadata by chance.
    files = {save_checkpoint(tmp_path, checkpoint(1)).read_bytes() for _ in range(12)}
    assert len(files) == 1


def test_a_wrong_bit_anywhere_in_the_header_is_found(tmp_path):
    last = save_checkpoint(tmp_path, checkpoint(1))
    whole = last.read_bytes()
    for at in range(8 + int.from_bytes(whole[:8], "little")):
        last.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert fault_of(lambda: read_checkpoint(last)).code == "E808", at


def test_one_wrong_bit_is_found(tmp_path):
    last = save_checkpoint(tmp_path, checkpoint(1))
    data = bytearray(last.read_bytes())
    data[-3] ^= 1
    last.write_bytes(data)
    assert "checksum" in fault_of(lambda: read_checkpoint(last)).message
    fault = fault_of(lambda: load_checkpoint(tmp_path))
    assert fault.code == "E808" and fault.hint
    assert len(fault.details) == 1


def test_other_files_are_no_checkpoints(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "a.safetensors")
    fault = fault_of(lambda: read_checkpoint(tmp_path / "a.safetensors"))
    assert (fault.code, "not a checkpoint" in fault.message) == ("E808", True)
    assert fault_of(lambda: read_checkpoint(tmp_path / "none.safetensors")).code == "E803"


def test_another_run_is_refused(tmp_path):
    found = Checkpoint({}, {}, {"spec": "a", "data": "b"})
    found.require({"spec": "a"})
    fault = fault_of(lambda: found.require({"spec": "a", "data": "c"}, "last.safetensors"))
    assert fault.code == "E808" and fault.details == ("data: b there, c here",)


@pytest.mark.parametrize("place", ["write", "synchronise"])
def test_a_full_disk_costs_no_earlier_checkpoint(tmp_path, monkeypatch, place):
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))

    def full(arrays, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place == "write":
        monkeypatch.setattr(checkpoints, "save_file", full)
    else:
        monkeypatch.setattr(files, "synchronise", lambda path: full({}, path, {}))
    fault = fault_of(lambda: save_checkpoint(tmp_path, checkpoint(3)))
    assert fault.code == "E806" and "no space left on device" in fault.message
    assert fault.hint == "free some space; what was there before is unchanged"
    monkeypatch.undo()
    assert names(tmp_path) == ["last.safetensors", "previous.safetensors"]
    same(load_checkpoint(tmp_path), checkpoint(2))
    same(read_checkpoint(tmp_path / "previous.safetensors"), checkpoint(1))


@pytest.mark.skipif(os.name == "nt", reason="limits of files are those of POSIX")
def test_writes_that_the_system_refuses_cost_nothing_either(tmp_path):
    """No file may grow beyond 64 KiB here, so real writes fail in the middle."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from tilth.runtime.faults import RuntimeFault\n"
        "from tilth.runtime.train.checkpoints import Checkpoint, save_checkpoint\n"
        "from tilth.runtime.train.logging import MetricsLog\n"
        "def save(size):\n"
        "    weights = {'w': np.full(size, size, np.float32)}\n"
        "    save_checkpoint(sys.argv[1], Checkpoint(weights, {}, {'size': size}))\n"
        "save(1000), save(2000)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    save(30000)\n"
        "except RuntimeFault as fault:\n"
        "    print(fault.code, fault.message)\n"
        "try:\n"
        "    with MetricsLog(sys.argv[1], ['loss']) as log:\n"
        "        while True:\n"
        "            log.write(1, 1, 'train', {'loss': 0.1})\n"
        "except RuntimeFault as fault:\n"
        "    print(fault.code, fault.message)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.splitlines() == [
        f"E806 cannot write `{tmp_path}/next.safetensors`: file too large",
        f"E806 cannot write `{tmp_path}/metrics.csv`: file too large",
    ]
    assert load_checkpoint(tmp_path).state == {"size": 2000}
    assert read_checkpoint(tmp_path / "previous.safetensors").state == {"size": 1000}
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    fault = fault_of(lambda: save_checkpoint(tmp_path / "file", checkpoint(1)))
    assert fault.code == "E806"


@pytest.mark.parametrize("renames", range(4))
def test_a_kill_between_renames_costs_nothing(tmp_path, monkeypatch, renames):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    real, left = Path.replace, [renames]

    def replace(self, target):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(4), keep=3)
    monkeypatch.undo()
    # Once the new file has its name, it counts; before, the one that was the last does.
    same(load_checkpoint(tmp_path), checkpoint(4 if renames else 3))
    save_checkpoint(tmp_path, checkpoint(5), keep=3)
    same(load_checkpoint(tmp_path), checkpoint(5))


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """A process that does nothing but save is killed at several moments."""
    code = (
        "import sys, numpy as np\n"
        "from tilth.runtime.train.checkpoints import Checkpoint, save_checkpoint\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1\n"
        "    weights = {'w': np.full(200_000, step, np.float32)}\n"
        "    save_checkpoint(sys.argv[1], Checkpoint(weights, {}, {'step': step}))\n"
        "    print(step, flush=True)\n"
    )
    for moment in range(4):
        folder = tmp_path / str(moment)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
        )
        try:
            done = [int(process.stdout.readline()) for _ in range(3 + moment)]
        finally:
            process.kill()
            rest = process.communicate()[0]
        last = max([*done, *map(int, rest.split())])
        found = load_checkpoint(folder)
        assert found.state["step"] in (last, last + 1)
        np.testing.assert_array_equal(found.weights["w"], found.state["step"])

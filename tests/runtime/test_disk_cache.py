"""Files of the cache are whole or absent."""

import os

import pytest
from tilth.runtime.disk_cache import read_entry, write_entry


def test_what_was_written_is_read_and_damage_counts_as_absent(tmp_path):
    path = tmp_path / "deep" / "entry.bin"
    assert read_entry(path) is None
    write_entry(path, b"payload")
    assert read_entry(path) == b"payload"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_entry(path) is None
    assert [p.name for p in path.parent.iterdir()] == ["entry.bin"]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError("no space left on device")

    path = tmp_path / "entry.bin"
    write_entry(path, b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_entry(path, b"new")
    assert read_entry(path) == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["entry.bin"]

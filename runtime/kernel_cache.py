"""Kernels on disk: generated sources compiled once a machine, found again by content.

A kernel's source and object code are files under the cache directory, in a folder named by the
hash of everything that could change its machine code: the kernel library's own sources, the
versions of numba and llvmlite, the processor and the vector width. So an edit can never meet a
stale kernel, and several processes may share one cache. ``TILTH_CACHE`` moves it; a cache that
cannot be written is used for what it holds, and new kernels are then compiled in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys as numba_runtime

from .machine import cache_folder
from .simd import lanes

SIGNATURE = "void(int64, int64, int64)"
COMPILE: dict[str, Any] = {"nopython": True, "error_model": "numpy"}


def clear() -> int:
    """Delete every cached kernel; the number of bytes freed."""
    root = cache_folder() / "kernels"
    if not root.exists():
        return 0
    freed = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
    shutil.rmtree(root, ignore_errors=True)
    return freed


@cache
def library_key() -> str:
    """Hash of all that machine code depends on besides a kernel's own source."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in [
        folder / "simd.py",
        folder / "kernel_cache.py",
        *sorted(folder.glob("kernels/*.py")),
    ]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    facts = (
        numba.__version__, llvmlite.__version__, sys.version_info[:3], llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(), lanes(),
    )  # fmt: skip
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:20]


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel; ``address`` is what plans hold, ``library`` keeps its code alive."""

    name: str
    address: int
    library: Any
    compiled: bool


_loaded: dict[str, Kernel] = {}
_lock = threading.RLock()


def kernel(name: str, source: str) -> Kernel:
    """The kernel of a source that defines ``kernel(row, task, slot)``.

    ``name`` makes the file readable; the source's hash makes it unique.
    """
    key = f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(key) or _compile(key, source)
        return _loaded[key]


def is_cached(name: str, source: str) -> bool:
    """Whether the kernel needs no compilation."""
    key = f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    return key in _loaded or (_folder() / f"{key}.bin").exists()


def _folder() -> Path:
    return cache_folder() / "kernels" / library_key()


def _load(key: str) -> Kernel | None:
    """The kernel from its object file; a damaged file counts as absent."""
    try:
        blob = (_folder() / f"{key}.bin").read_bytes()
    except OSError:
        return None
    digest, payload = blob[:32], blob[32:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    symbol, state = pickle.loads(payload)
    # Object code may name Numba's runtime, whose symbols exist only once it is initialised.
    context: Any = cpu_target.target_context
    numba_runtime.initialize(context)
    library = context.codegen().unserialize_library(state)
    return Kernel(key, library.get_pointer_to_function(symbol), library, False)


def _compile(key: str, source: str) -> Kernel:
    module = ModuleType(f"tilth_kernels.{key}")
    path = _folder() / f"{key}.py"
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    made: Any = numba.cfunc(SIGNATURE, **COMPILE)(module.kernel)
    library = made._library
    state = library.serialize_using_object_code()
    payload = pickle.dumps((made._wrapper_name, state))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, source.encode())
        blob = hashlib.sha256(payload).digest() + payload
        _write_atomically(path.with_suffix(".bin"), blob)
    except OSError:
        pass  # a cache that cannot be written only costs the next process its compile time
    return Kernel(key, made.address, made, True)


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def kernels(specs: Sequence[Any]) -> list[Kernel]:
    """Kernels for specs with ``name`` and ``source()``; missing ones compile in two processes.

    The other process writes to the cache, so this helps only where the cache can be written.
    """
    sources = {}
    for spec in specs:
        sources.setdefault(spec.name, spec.source())
    missing = [(name, text) for name, text in sources.items() if not is_cached(name, text)]
    if len(missing) >= PARALLEL_FROM and writable():
        _compile_elsewhere(missing[1::2], lambda: [kernel(*pair) for pair in missing[::2]])
    return [kernel(spec.name, sources[spec.name]) for spec in specs]


PARALLEL_FROM = 4
"""Missing kernels from which a second process pays for its start."""


def writable() -> bool:
    """Whether new kernels can be kept."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(_folder(), os.W_OK)


def _compile_elsewhere(pairs: Sequence[tuple[str, str]], meanwhile: Callable[[], Any]) -> None:
    """Compile into the cache in a fresh process while ``meanwhile`` runs here.

    A helper that fails costs nothing but time: what it did not write is compiled here later.
    """
    command = [sys.executable, "-m", f"{__package__}.compile_worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdin is not None
    try:
        with worker.stdin as pipe:
            pipe.write(json.dumps(list(pairs)).encode())
    except BrokenPipeError:
        pass
    meanwhile()
    worker.wait()

"""Kernels on disk: generated sources compiled once a machine, found again by content.

A kernel's source and object code are files under the cache directory, in a folder named by the
hash of everything that could change its machine code: the kernel library's own sources, the
versions of numba and llvmlite, the processor and the vector width. So an edit can never meet a
stale kernel, and several processes may share one cache. ``TILTH_CACHE`` moves it; a cache that
cannot be written is used for what it holds, and new kernels go to a folder that lives as long as
the process, which a warning says once.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys as numba_runtime

from .disk_cache import read_entry, write_entry, write_whole
from .faults import RuntimeFault
from .kernel_compiler import compiler_of
from .machine import cache_folder, cores
from .simd import lanes

SIGNATURE = "void(int64, int64, int64)"
COMPILE: dict[str, Any] = {"nopython": True, "error_model": "numpy"}


COVERED = ("simd.py", "atomics.py", "abi.py", "kernel_cache.py", "kernel_compiler.py")
"""What machine code depends on besides ``kernels/``."""


def _sources_digest() -> bytes:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in [*(folder / name for name in COVERED), *sorted(folder.glob("kernels/*.py"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.digest()


# Read when the library is imported: a process that lives through an edit of the files keeps to the
# code it has, and must not store that under the new files' key.
_SOURCES = _sources_digest()


@cache
def library_key() -> str:
    """Hash of all that machine code depends on besides a kernel's own source."""
    facts = (
        numba.__version__, llvmlite.__version__, sys.version_info[:3], llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(), lanes(),
    )  # fmt: skip
    return hashlib.sha256(_SOURCES + repr(facts).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel; ``address`` is what plans hold, ``library`` keeps its code alive."""

    name: str
    address: int
    library: Any
    compiled: bool


_loaded: dict[str, Kernel] = {}
_lock = threading.RLock()


def kernel(name: str, source: str, signature: str = SIGNATURE, parallel: bool = False) -> Kernel:
    """The kernel of a source that defines ``kernel(row, task, slot)``.

    ``name`` makes the file readable; the source's hash makes it unique.
    """
    key = key_of(name, source)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(key) or _compile(key, source, signature, parallel)
        return _loaded[key]


def key_of(name: str, source: str) -> str:
    """The kernel's name in the cache."""
    return f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def is_cached(name: str, source: str) -> bool:
    """Whether the kernel needs no compilation."""
    key = key_of(name, source)
    return key in _loaded or any((f / f"{key}.bin").exists() for f in _folders())


# ---------------------------------------------------------------- folders


def _folder() -> Path:
    return cache_folder() / "kernels" / library_key()


def _folders() -> list[Path]:
    """Where kernels are looked for: the cache, then this process's own folder if it has one."""
    return [_folder(), *([_own().folder] if _own.cache_info().currsize else [])]


@dataclass(frozen=True)
class _Own:
    """A folder that is deleted when the process ends."""

    holder: Any
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "kernels" / library_key()


@cache
def _own() -> _Own:
    """The process's own folder, made at the first need; that is told once."""
    try:
        holder = tempfile.TemporaryDirectory(prefix="tilth-")
    except OSError as error:
        message = f"no temporary folder can be made for new kernels: {error}"
        raise RuntimeFault("E806", message, "let TILTH_CACHE name a folder to write to") from error
    message = (
        f"the kernel cache {cache_folder()} cannot be written: new kernels are kept for this "
        "process only, and the next compiles them again; TILTH_CACHE names another folder"
    )
    warnings.warn(message, RuntimeWarning, stacklevel=2)
    return _Own(holder, Path(holder.name))


def _root() -> Path:
    """The folder that new kernels go to: the cache, or this process's own where it is read-only."""
    if _own.cache_info().currsize:
        return _own().root
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=_folder(), suffix=".tmp")
        os.close(handle)
        os.unlink(probe)
    except OSError:
        return _own().root
    return cache_folder()


# ---------------------------------------------------------------- one kernel


def _load(key: str) -> Kernel | None:
    """The kernel from its object file; a damaged file counts as absent."""
    for folder in _folders():
        payload = read_entry(folder / f"{key}.bin")
        if payload is not None:
            return _linked(key, payload)
    return None


def _linked(key: str, payload: bytes) -> Kernel:
    symbol, code = pickle.loads(payload)
    linker = _linker()
    linker.add_object_file(llvm.ObjectFileRef.from_data(code))
    linker.finalize_object()
    return Kernel(key, linker.get_function_address(symbol), linker, False)


@cache
def _linker() -> Any:
    """Links object code, and nothing else: Numba's own way keeps every library's bitcode too."""
    # Object code may name Numba's runtime, whose symbols exist only once it is initialised.
    numba_runtime.initialize(cpu_target.target_context)
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _compile(key: str, source: str, signature: str, parallel: bool) -> Kernel:
    made = compiled(key, source, signature, parallel)
    _, _, (code, _) = made._library.serialize_using_object_code()
    payload = pickle.dumps((made._wrapper_name, code))
    try:
        _store(_root(), key, source, payload)
    except OSError:
        # Full, or cleared by another process just now; a second failure is a fault to be told.
        _store(_own().root, key, source, payload)
    return Kernel(key, made.address, made, True)


def compiled(key: str, source: str, signature: str = SIGNATURE, parallel: bool = False) -> Any:
    """Numba's C function of a kernel's source, compiled here and now."""
    module = ModuleType(f"tilth_kernels.{key}")
    sys.modules[module.__name__] = module
    exec(compile(source, str(_folder() / f"{key}.py"), "exec"), module.__dict__)
    if parallel:
        # Asking starts the threads, whose symbols the code needs.
        numba.get_num_threads()
        return numba.cfunc(signature, parallel=True, **COMPILE)(module.kernel)
    return numba.cfunc(signature, pipeline_class=compiler_of(module), **COMPILE)(module.kernel)


def _store(root: Path, key: str, source: str, payload: bytes) -> None:
    folder = root / "kernels" / library_key()
    write_whole(folder / f"{key}.py", source.encode())
    write_entry(folder / f"{key}.bin", payload)


# ---------------------------------------------------------------- many kernels


Job = tuple[Any, ...]
"""What :func:`kernel` takes: a name, a source and, where they are not the usual ones, the rest."""


def kernels(specs: Sequence[Any], more: Sequence[Job] = ()) -> list[Kernel]:
    """Kernels of specs, which have ``name`` and ``source()``.

    Those that are not in the cache, and of ``more``, are compiled first, by several processes when
    there are many.
    """
    jobs = [(spec.name, spec.source()) for spec in specs]
    missing = [job for job in dict.fromkeys([*more, *jobs]) if not is_cached(*job[:2])]
    _compile_missing(missing)
    return [kernel(*job) for job in jobs]


EACH = 4
"""Missing kernels a process, for which its start pays."""


def _compile_missing(jobs: Sequence[Job]) -> None:
    """Compile into the cache, in this process and in fresh ones that take what is next.

    Long sources come first, so that all end at about the same time. A helper that fails costs
    nothing but time: what it did not write is compiled here later.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in sorted(jobs, key=_effort, reverse=True):
        waiting.put(job)
    helpers = [
        threading.Thread(target=_feed_helper, args=(waiting,))
        for _ in range(min(cores() - 1, len(jobs) // EACH))
    ]
    for helper in helpers:
        helper.start()
    try:
        while not waiting.empty():
            kernel(*waiting.get_nowait())
    except Empty:  # a helper was faster
        pass
    finally:
        with suppress(Empty):  # after a fault nothing more is compiled
            while True:
                waiting.get_nowait()
        for helper in helpers:
            helper.join()


def _effort(job: Job) -> tuple[bool, int]:
    """What orders jobs by their time, about: parallel ones, which are few, then the long ones."""
    return len(job) > 2, len(job[1])


def _feed_helper(waiting: SimpleQueue[Job]) -> None:
    """Start a process and hand it one job after another, until none is left or it fails."""
    command = [sys.executable, "-m", f"{__package__}.compile_worker"]
    environment = os.environ | {"TILTH_CACHE": str(_root())}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        command, **pipes, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            while process.stdout.readline():  # it is ready for the next
                process.stdin.write(json.dumps(waiting.get_nowait()) + "\n")
                process.stdin.flush()
        except (Empty, BrokenPipeError):
            pass

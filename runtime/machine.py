"""Facts about this machine: memory that is left, processor features, CUDA, caches."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from .faults import RuntimeFault, size_text

PACKAGES = ("lark", "networkx", "numba", "numpy", "pillow", "pyyaml", "rich", "safetensors")
FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni",
            "asimd", "asimddp", "sve")  # fmt: skip


def available_memory() -> int | None:
    """Bytes that can still be allocated, by the system and by the container; ``None`` unknown."""
    found = [n for n in (_free_memory(), _container_memory()) if n is not None]
    return min(found) if found else None


def require_memory(needed: int, what: str) -> None:
    """Raise :class:`RuntimeFault` E703 when ``needed`` bytes are more than are left."""
    left = available_memory()
    if left is not None and needed > left:
        message = f"{what} needs about {size_text(needed)}, and {size_text(left)} are free"
        hint = "nothing was allocated; use a smaller batch or smaller sizes"
        raise RuntimeFault("E703", message, hint)


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library keeps it for later (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def cpu_features() -> tuple[str, ...]:
    """Vector extensions that the processor reports (Linux only; empty elsewhere)."""
    info = _first_lines("/proc/cpuinfo", ("flags", "Features"))
    return tuple(name for name in FEATURES if name in info.split())


def cpu_name() -> str:
    """The processor's name."""
    return _first_lines("/proc/cpuinfo", ("model name",)) or platform.processor() or "unknown"


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_sizes() -> tuple[int, int]:
    """Bytes of the first- and second-level data caches of a core; cautious values if unknown."""
    found = [32 << 10, 1 << 20]
    base = "/sys/devices/system/cpu/cpu0/cache"
    for place in range(8):
        kind = _text(f"{base}/index{place}/type").strip()
        level = _text(f"{base}/index{place}/level").strip()
        size = _text(f"{base}/index{place}/size").strip()
        if kind in ("Data", "Unified") and level in ("1", "2") and size.endswith("K"):
            found[int(level) - 1] = int(size[:-1]) << 10
    return found[0], found[1]


def cuda_driver() -> str | None:
    """The CUDA driver's library or tool when there is one."""
    return ctypes.util.find_library("cuda") or shutil.which("nvidia-smi")


def cache_folder() -> Path:
    """Where compiled kernels go: ``TILTH_CACHE``, else the user's cache folder."""
    if own := os.environ.get("TILTH_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tilth"


def is_writable(folder: Path) -> bool:
    """Whether the folder can be written to, or be made; nothing is made here."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def versions() -> dict[str, str | None]:
    """Installed versions of what Tilth depends on; ``None`` for what is missing."""
    return {name: _version(name) for name in PACKAGES}


# ---------------------------------------------------------------- helpers


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _free_memory() -> int | None:
    kilobytes = _first_lines("/proc/meminfo", ("MemAvailable",))
    if kilobytes:
        return int(kilobytes.split()[0]) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf") else {}
    if "SC_AVPHYS_PAGES" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container_memory() -> int | None:
    """What a control group (version 2, then 1) leaves."""
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, now = (_text(f"{folder}/{name}").strip() for name in (limit, used))
        if most.isdigit() and now.isdigit():
            # File pages count as used but are given back on demand.
            cached = _first_lines(f"{folder}/memory.stat", ("inactive_file",), " ")
            return max(int(most) - int(now) + int(cached or 0), 0)
    return None


def _first_lines(path: str, keys: tuple[str, ...], separator: str = ":") -> str:
    """What stands after the first of ``keys`` at the start of a line."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(separator)
        if key.strip() in keys:
            return value.strip()
    return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Files of the kernel: absent on other systems, which is an answer.
        return ""

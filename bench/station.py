"""The parent's side of a worker process: start it, order calls, read answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .problem import Arrays, Problem, read_arrays
from .profiles import Profiled

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


class EngineFault(Exception):
    """An engine that cannot run the model; the message is what it said."""


@dataclass(frozen=True)
class Start:
    """What a start showed: seconds to the first result, and bytes beyond a bare process."""

    first_s: float
    peak: int | None


class Station:
    """One engine in a process of its own; use as a context manager.

    ``cache`` is where it keeps compiled kernels, instead of the user's folder.
    """

    def __init__(
        self,
        problem: Problem,
        engine: str,
        setting: str,
        threads: int,
        cache: Path | None = None,
    ) -> None:
        self._outputs = problem.folder / f"outputs-{engine}.safetensors"
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        # A cold process keeps the bytecode of the compiled file for the warm one, as Python does
        # wherever nobody forbids it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if cache is not None:
            environment |= {"TILTH_CACHE": str(cache), "NUMBA_CACHE_DIR": str(cache / "numba")}
        job = {
            "engine": engine,
            "setting": setting,
            "threads": threads,
            "folder": str(problem.folder),
            "outputs": str(self._outputs),
            "started": time.monotonic(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tilth.bench.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        try:
            answer = self._answer()
        except BaseException:
            self.close()
            raise
        self.start = Start(answer["first_s"], answer["peak"])

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def outputs(self) -> Arrays:
        """What the first call gave."""
        return read_arrays(self._outputs)

    def turn(self, calls: int) -> Sequence[float]:
        """Seconds of so many calls in a row."""
        return self._order(calls=calls)["seconds"]

    def profile(self) -> list[Profiled]:
        """Where a call's time goes; empty when the engine cannot tell."""
        return [Profiled(**row) for row in self._order(profile=True)["profile"]]

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, **order: Any) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise EngineFault("the engine's process ended") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            code = self._process.wait()
            raise EngineFault(f"the engine's process ended with code {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineFault(answer["error"])
        return answer

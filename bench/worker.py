"""The process that runs one engine: ``python -m tilth.bench.worker JOB``, orders on stdin.

Orders and answers are one JSON object a line. The engine is readied and called once before the
first answer, which says how long that took since the process was started and how much memory it
needs beyond a bare process, one that has imported the engine. Then ``calls`` runs the model so many
times and answers with seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

KIB = 1024


def main(argv: list[str]) -> int:
    """Serve one job until stdin ends."""
    # Libraries print what they like; only answers go to the parent.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        _serve(json.loads(argv[0]), answer)
    except Exception as fault:
        # Whatever an engine raises is its result; the parent shows it in the engine's row.
        answer(error=f"{type(fault).__name__}: {fault}".splitlines()[0])
        return 1
    return 0


def memory(field: str) -> int | None:
    """Bytes of resident memory: now (``VmRSS``) or at most so far (``VmHWM``); Linux only."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(lines[field].split()[0]) * KIB if field in lines else None


def _forget_peak() -> None:
    """Let the highest memory so far be what is resident now."""
    with suppress(OSError):  # where the system cannot, imports count for more than they need
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _serve(job: dict[str, Any], answer: Any) -> None:
    _pin(job["threads"])
    from .engines import ENGINES
    from .problem import Problem, write_arrays

    engine, problem = ENGINES[job["engine"]], Problem(Path(job["folder"]))
    engine.wake()
    _forget_peak()
    bare = memory("VmRSS")
    call = engine.prepare(problem, job["threads"], job["setting"])
    outputs = call()
    # CLOCK_MONOTONIC is the system's, so the parent's reading can be subtracted.
    first = time.monotonic() - job["started"]
    write_arrays(Path(job["outputs"]), outputs)
    call()
    peak = memory("VmHWM")
    beyond = None if peak is None or bare is None else peak - bare
    answer(first_s=first, peak=beyond)
    for line in sys.stdin:
        order = json.loads(line)
        if "profile" in order:
            rows = engine.profile(problem, job["threads"], job["setting"]) if engine.profile else []
            answer(profile=[asdict(row) for row in rows])
            continue
        seconds = []
        for _ in range(order["calls"]):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        answer(seconds=seconds)


def _pin(threads: int) -> None:
    """Keep to as many processors as there are threads, the last ones: the first is the busiest."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, processors[-threads:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

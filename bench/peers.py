"""ONNX Runtime and OpenVINO at their best settings for one call at a time.

Both read the same ONNX file, fold and fuse as they see fit, and compute in float32.
"""

# The packages are extras, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .problem import Arrays, Problem
from .profiles import Profiled

PROFILED_CALLS = 10

# ---------------------------------------------------------------- ONNX Runtime


def prepare_onnxruntime(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """A session with all graph optimisations, one operator at a time on ``threads`` threads."""
    session = _session(problem, threads)
    names = [output.name for output in session.get_outputs()]
    inputs = problem.inputs

    def call() -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return call


def profile_onnxruntime(problem: Problem, threads: int, setting: str) -> list[Profiled]:
    """Milliseconds a call by operator, most first."""
    session = _session(problem, threads, str(problem.folder / "profile"))
    for _ in range(PROFILED_CALLS):
        session.run(None, problem.inputs)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / 1e3 / PROFILED_CALLS
    return _most_first(spent)


def _session(problem: Problem, threads: int, profile: str | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(
        str(problem.onnx), options, providers=["CPUExecutionProvider"]
    )


# ---------------------------------------------------------------- OpenVINO


def prepare_openvino(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """A compiled model with a performance hint, its precision pinned to float32."""
    model, request = _request(problem, threads, setting)
    names = [output.names for output in model.outputs]  # ours is one of several
    inputs = problem.inputs

    def call() -> Arrays:
        results = request.infer(inputs, share_inputs=True, share_outputs=True)
        arrays = zip(names, results.values(), strict=True)
        return {name: array for several, array in arrays for name in several}

    return call


def profile_openvino(problem: Problem, threads: int, setting: str) -> list[Profiled]:
    """Milliseconds a call by kind of node, most first."""
    _, request = _request(problem, threads, setting, PERF_COUNT=True)
    spent: dict[str, float] = defaultdict(float)
    for _ in range(PROFILED_CALLS):
        request.infer(problem.inputs, share_inputs=True)
        for row in request.get_profiling_info():
            spent[row.node_type] += row.real_time.total_seconds() * 1e3 / PROFILED_CALLS
    return _most_first({name: ms for name, ms in spent.items() if ms > 0})


def _request(problem: Problem, threads: int, hint: str, **more: Any) -> tuple[Any, Any]:
    import openvino

    settings = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }
    core = openvino.Core()
    model = core.compile_model(core.read_model(problem.onnx), "CPU", settings)
    return model, model.create_infer_request()


def _most_first(spent: dict[str, float]) -> list[Profiled]:
    return [Profiled(name, ms) for name, ms in sorted(spent.items(), key=lambda row: -row[1])]

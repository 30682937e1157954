"""The reference interpreter: runs a graph with the op table's numpy references.

It defines what a graph means; every pass and every kernel is checked against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .ir.dims import UnboundSymbol, evaluate, is_symbol
from .ir.graph import Graph, Node, Value
from .ir.types import DTYPES, FLOATS, Span, TensorType, shape_text
from .ops.base import OPS, OpError, as_arrays, infer
from .ops.control import WITH_REGION, region_result_types
from .ops.leaves import LEAVES

Arrays = dict[Value, np.ndarray]


def interpret(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    seed: int = 0,
    step: int = 0,
    bindings: Mapping[str, int] | None = None,
    keep: Iterable[int] = (),
    precision: str | None = None,
) -> dict[str, np.ndarray]:
    """Outputs by name, and the results of nodes in ``keep`` as ``"%7"`` (``"%7.1"`` and so on).

    Parameters
    ----------
    inputs, params
        Arrays by input name and by weight path. An input ``key`` that is absent is made from
        ``seed`` and ``step``.
    bindings
        Symbolic sizes that no shape tells.
    precision
        A floating type (``"f64"``) that replaces all others, in weights and inputs too.

    Raises
    ------
    OpError
        E801 and E802 for weights and inputs that do not fit, E805 for a size without a value,
        and what the references raise.
    """
    feeds = {"key": np.array([seed, step], np.uint64), **inputs}
    names = {graph.node(index).name for index in graph.inputs}
    shapes = {name: np.shape(array) for name, array in feeds.items() if name in names}
    weights = {path: np.shape(array) for path, array in params.items()}
    sizes = bind_sizes(graph, shapes, weights, bindings)
    return Interpreter(graph.bind(sizes), keep, precision)(feeds, params)


class Interpreter:
    """A graph whose sizes are all known, ready to be run many times.

    The parameters are those of :func:`interpret`. Raises :class:`OpError` where a shape does not
    hold for these sizes.
    """

    def __init__(
        self, graph: Graph, keep: Iterable[int] = (), precision: str | None = None
    ) -> None:
        self.graph = graph if precision is None else _at_precision(graph, precision)
        self._wanted = {name: value for name, value in self.graph.outputs}
        for index in keep:
            for result in range(len(self.graph.node(index).types)):
                name = f"%{index}.{result}" if result else f"%{index}"
                self._wanted[name] = Value(index, result)
        self._plan = _plan(self.graph, tuple(self._wanted.values()))
        self._inputs = self.graph.of_op("input")
        self._params = self.graph.of_op("param")

    def __call__(
        self, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Outputs by name; raises :class:`OpError` E801 and E802 for what does not fit."""
        leaves = self._leaves(inputs, params)
        found = self._run(leaves)
        # Leaves are the caller's own arrays: what is put out must not change with them.
        return {
            name: array.copy() if any(np.may_share_memory(array, a) for a in leaves.values())
            else array
            for name, array in found.items()
        }  # fmt: skip

    def look(
        self, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """As a call, for outputs that are only read now: they may be parts of the inputs."""
        return self._run(self._leaves(inputs, params))

    def _run(self, leaves: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(self._wanted, _run(self._plan, leaves), strict=True))

    def _leaves(self, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]) -> Arrays:
        values: Arrays = {}
        for index, node in self._inputs:
            values[Value(index)] = _fitting(
                "E802", f"input {node.name}", inputs[node.name], node.type
            )
        for index, node in self._params:
            path = str(node.attrs["path"])
            if path not in params:
                raise OpError("E801", f"weight {path} is missing; expected {node.type}")
            values[Value(index)] = _fitting("E801", f"weight {path}", params[path], node.type)
        return values

    def first_fault(
        self, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
    ) -> Node | None:
        """The first node that makes a NaN or an infinity out of finite numbers, if any does."""
        values = {**self._plan.constants, **self._leaves(inputs, params)}
        for step, index in zip(self._plan.steps, self._plan.numbers, strict=True):
            operands = [values[v] for v in step.operands]
            results = as_arrays(step.run(*operands))
            if not all(map(_finite, results)) and all(map(_finite, operands)):
                return self.graph.node(index)
            values |= zip(step.results, results, strict=True)
        return None


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def bind_sizes(
    graph: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, tuple[int, ...]] | None = None,
    bindings: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Values of all symbolic sizes, from the shapes of inputs (by name) and weights (by path).

    Bare symbols are solved first; then every other size and every constraint must agree. Raises
    :class:`OpError` E801 or E802 naming what does not fit, E805 for a symbol without a value.
    """
    given = [
        ("E802", f"input {node.name}", node.type, shapes.get(node.name))
        for node in (graph.node(index) for index in graph.inputs)
    ]
    given += [
        (
            "E801",
            f"weight {node.attrs['path']}",
            node.type,
            (weights or {}).get(str(node.attrs["path"])),
        )
        for _, node in graph.of_op("param")
    ]
    sizes = dict(bindings or {})
    origin = dict.fromkeys(sizes, "the bindings")
    for code, what, kind, shape in given:
        if shape is None:
            if code == "E801":
                continue
            raise OpError(code, f"{what} is missing; expected {kind}")
        if len(shape) != kind.rank:
            raise OpError(code, f"{what}: expected {kind}, found {shape_text(shape)}")
        for dim, size in zip(kind.shape, shape, strict=True):
            name = is_symbol(dim)
            if name is not None and sizes.setdefault(name, size) != size:
                message = f"{what}: {name} is {size} here but {sizes[name]} in {origin[name]}"
                raise OpError(code, f"{message}; expected {kind}, found {shape_text(shape)}")
            if name is not None:
                origin.setdefault(name, what)
    _check_sizes(graph, given, sizes)
    return sizes


def _check_sizes(graph: Graph, given: Sequence[tuple], sizes: Mapping[str, int]) -> None:
    for name in sorted(graph.symbols):
        if name not in sizes:
            raise OpError("E805", f"the size {name} has no value", f"bind it: {name}=...")
    for code, what, kind, shape in given:
        expected = kind.bind(sizes)
        if shape is not None and expected.shape != tuple(shape):
            known = "" if expected == kind else f" (that is {expected})"
            raise OpError(code, f"{what}: expected {kind}{known}, found {shape_text(shape)}")
    require_constraints(graph, sizes)


def require_constraints(graph: Graph, sizes: Mapping[str, int]) -> None:
    """Raise :class:`OpError` E802 where sizes that must be equal are not, E805 for an open one."""
    for constraint in graph.constraints:
        try:
            left, right = (evaluate(side, sizes) for side in (constraint.left, constraint.right))
        except UnboundSymbol as fault:
            raise OpError("E805", f"the size {fault.args[0]} has no value") from fault
        if left != right:
            message = f"{constraint.left} is {left} but {constraint.right} is {right}"
            if isinstance(constraint.left, int) and isinstance(constraint.right, int):
                message = f"{left} is not {right}"
            elif isinstance(constraint.left, int):
                message = f"{constraint.right} is {right}, not {left}"
            elif isinstance(constraint.right, int):
                message = f"{constraint.left} is {left}, not {right}"
            raise OpError("E802", f"{message}: {constraint.why}{_place(constraint.span)}")


def _fitting(code: str, what: str, array: Any, kind: TensorType) -> np.ndarray:
    """The array as the declared type, when no value changes its meaning."""
    found, wanted = np.asarray(array), DTYPES[kind.dtype]
    if found.dtype == wanted and found.shape == kind.shape:
        return found
    cast = found.astype(wanted) if np.can_cast(found.dtype, wanted, "same_kind") else None
    if cast is None and found.dtype.kind in "iu" and wanted.kind in "iu":
        cast = found.astype(wanted)
    exact = cast is not None and (wanted.kind == "f" or np.array_equal(cast, found))
    if cast is None or not exact or found.shape != kind.shape:
        shown = f"{found.dtype}{shape_text(found.shape)}"
        raise OpError(code, f"{what}: expected {kind}, found {shown}")
    return cast


def _at_precision(graph: Graph, dtype: str) -> Graph:
    """The graph with every floating type replaced, regions and constants included."""
    twin = graph.copy()
    for index in twin.order():
        node = twin.node(index)
        attrs = dict(node.attrs)
        if attrs.get("dtype") in FLOATS:
            attrs["dtype"] = dtype
        types = tuple(k.with_dtype(dtype) if k.is_float else k for k in node.types)
        regions = tuple(_at_precision(region, dtype) for region in node.regions)
        twin.set_node(index, replace(node, attrs=attrs, types=types, regions=regions))
    return twin


# ---------------------------------------------------------------- running


@dataclass(frozen=True)
class _Step:
    """One node, ready to run; ``release`` lists values that nothing reads afterwards."""

    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    types: tuple[TensorType, ...]
    label: str
    run: Callable[..., Any]
    release: tuple[Value, ...]


@dataclass(frozen=True)
class _Plan:
    """A graph with known sizes in running order."""

    inputs: tuple[Value, ...]
    constants: Arrays
    steps: tuple[_Step, ...]
    numbers: tuple[int, ...]
    outputs: tuple[Value, ...]


def _plan(graph: Graph, outputs: Sequence[Value]) -> _Plan:
    """The steps of a bound graph; types are inferred anew, now that sizes are known."""
    nodes = [(index, node) for index, node in graph.nodes() if node.op not in LEAVES]
    last: dict[Value, int] = {}
    for index, _ in nodes:
        last.update(dict.fromkeys(graph.operands(index), index))
    steps = []
    for index, node in nodes:
        operands = graph.operands(index)
        results = tuple(Value(index, place) for place in range(len(node.types)))
        dead = [v for v in dict.fromkeys(operands) if last[v] == index]
        dead += [v for v in results if v not in last]
        label = f"%{index} {node.op}{_place(node.span)}"
        run = _runner(graph, node, [graph.type_of(v) for v in operands])
        release = tuple(v for v in dead if v not in outputs)
        steps.append(_Step(operands, results, node.types, label, run, release))
    constants = {
        Value(index): graph.constant(index).astype(DTYPES[node.type.dtype], copy=False)
        for index, node in graph.of_op("constant")
    }
    inputs = tuple(Value(index) for index in graph.inputs)
    numbers = tuple(index for index, _ in nodes)
    return _Plan(inputs, constants, tuple(steps), numbers, tuple(outputs))


def _runner(graph: Graph, node: Node, types: list[TensorType]) -> Callable[..., Any]:
    """What computes a node, after a check that its types hold for the sizes at hand."""
    try:
        if node.op in WITH_REGION:
            expected = region_result_types(node.op, types, node.attrs, node.regions[0])
        else:
            expected = infer(node.op, types, node.attrs)
    except OpError as fault:
        raise OpError(fault.code, f"{fault.message}{_place(node.span)}", fault.hint) from fault
    if expected != node.types:
        raise OpError(
            "E103",
            f"{node.op} gives {', '.join(map(str, expected))} for these sizes,"
            f" not {', '.join(map(str, node.types))}{_place(node.span)}",
        )
    if node.op in WITH_REGION:
        region = node.regions[0]
        body = _plan(region, tuple(value for _, value in region.outputs))
        return _REGION_RUNNERS[node.op](body, node)
    reference = OPS[node.op].reference
    if reference is None:
        raise OpError("E804", f"{node.op} cannot be run: {OPS[node.op].why_no_reference}")
    attrs = dict(node.attrs)
    return lambda *arrays: reference(*arrays, **attrs)


def run_node(graph: Graph, index: int, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of one node of a graph with known sizes, given its operands."""
    node = graph.node(index)
    run = _runner(graph, node, [graph.type_of(v) for v in graph.operands(index)])
    label = f"%{index} {node.op}{_place(node.span)}"
    pairs = zip(as_arrays(run(*arrays)), node.types, strict=True)
    return [_declared(label, array, kind) for array, kind in pairs]


def _run(plan: _Plan, values: Arrays) -> list[np.ndarray]:
    """The plan's outputs, given the values of its leaves."""
    values = {**plan.constants, **values}
    for step in plan.steps:
        results = as_arrays(step.run(*(values[v] for v in step.operands)))
        if len(results) != len(step.types):
            raise AssertionError(f"{step.label}: {len(results)} results, not {len(step.types)}")
        for value, array, kind in zip(step.results, results, step.types, strict=True):
            values[value] = _declared(step.label, array, kind)
        for value in step.release:
            del values[value]
    return [values[value] for value in plan.outputs]


def _declared(label: str, array: np.ndarray, kind: TensorType) -> np.ndarray:
    wanted = DTYPES[kind.dtype]
    if array.dtype.kind != wanted.kind or array.shape != kind.shape:
        found = f"{array.dtype}{list(array.shape)}"
        raise AssertionError(f"{label}: the reference gives {found}, not {kind}")
    return array.astype(wanted, copy=False)


def _call(body: _Plan, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return _run(body, dict(zip(body.inputs, arrays, strict=True)))


def _scan(body: _Plan, node: Node) -> Callable[..., Any]:
    carries, stacked, length = (int(node.attrs[k]) for k in ("n_carry", "n_xs", "length"))  # type: ignore[arg-type]

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        state = list(arrays[:carries])
        xs, captures = arrays[carries : carries + stacked], arrays[carries + stacked :]
        stacks = [np.empty(k.shape, DTYPES[k.dtype]) for k in node.types[carries:]]  # type: ignore[arg-type]
        for t in reversed(range(length)) if node.attrs["reverse"] else range(length):
            results = _call(body, [*state, *(np.asarray(x[t]) for x in xs), *captures])
            state = results[:carries]
            for stack, row in zip(stacks, results[carries:], strict=True):
                stack[t] = row
        return (*state, *stacks)

    return run


def _fix(body: _Plan, node: Node) -> Callable[..., Any]:
    carries, most = (int(node.attrs[k]) for k in ("n_carry", "max_steps"))  # type: ignore[arg-type]
    tol = float(node.attrs["tol"])  # type: ignore[arg-type]

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        state, captures = list(arrays[:carries]), arrays[carries:]
        change = np.inf
        for _ in range(most):
            results = _call(body, [*state, *captures])
            change = max(_change(a, b) for a, b in zip(state, results, strict=True))
            state = results
            if change < tol:
                return tuple(state)
        raise OpError(
            "E408",
            f"fix: no fixed point within {most} steps; the last change is {change:.3g},"
            f" not below {tol:.3g}{_place(node.span)}",
            "use `iterate` to stop on a condition of your own",
        )

    return run


def _change(before: np.ndarray, after: np.ndarray) -> float:
    # Equal infinities are no change.
    moved = before != after
    return float(np.max(np.abs(after[moved] - before[moved]), initial=0.0))


def _iterate(body: _Plan, node: Node) -> Callable[..., Any]:
    carries, most = (int(node.attrs[k]) for k in ("n_carry", "max_steps"))  # type: ignore[arg-type]

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        state, captures = list(arrays[:carries]), arrays[carries:]
        for _ in range(most):
            *state, stop = _call(body, [*state, *captures])
            if stop:
                break
        return tuple(state)

    return run


def _group(body: _Plan, node: Node) -> Callable[..., Any]:
    return lambda *arrays: tuple(_call(body, arrays))


_REGION_RUNNERS: dict[str, Callable[[_Plan, Node], Callable[..., Any]]] = {
    "scan": _scan,
    "fix": _fix,
    "iterate": _iterate,
    "fused_elementwise": _group,
}


def _place(span: Span | None) -> str:
    return f" (at {span})" if span is not None else ""

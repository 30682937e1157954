"""Declarations: inputs, parameters, indices, constants, states, and the sizes in their shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import Dim, DimLike, symbol
from ...compiler.ir.types import DTYPES, Span, TensorType
from ...compiler.ops import LAYERS
from .. import syntax as s
from ..diagnostics import nearest
from .builder import join
from .domains import domain_of
from .elaborator import looks_like_size
from .environment import Env
from .errors import fail
from .expressions import constant_of, evaluate, unknown_name, whole
from .layers import rule_of, rule_word
from .values import Record, Tensor, describe, is_number

if TYPE_CHECKING:
    from .scope import Scope

DOMAINS: dict[str, tuple[Any, ...]] = {
    "real": ("normal", 0.0, 1.0),
    "positive": ("ones",),
    "unit": ("constant", 0.5),
    "simplex": ("random_simplex",),
    "symmetric": ("zeros",),
    "posdef": ("eye",),
}
"""Domains of parameters, each with the initialiser it has unless one is given."""


def declare(scope: Scope, statement: Any) -> None:
    """Enter the names of a declaration."""
    if isinstance(statement, s.Input):
        if not scope.outermost:
            fail("E206", "inputs are declared at the top of a spec", statement.span,
                 hint="a definition takes its tensors as `fn(x) { ... }`")  # fmt: skip
        for name in statement.names:
            scope.enter(name, statement.span, lambda n=name: _input(scope, n, statement), "input")
    elif isinstance(statement, s.Param):
        for name in statement.names:
            scope.enter(name, statement.span, lambda n=name: _param(scope, n, statement), "param")
    elif isinstance(statement, s.Index):
        _declare_index(scope, statement)
    elif isinstance(statement, s.Const):

        def value() -> Any:
            return constant_of(statement.value, scope.env, f"`{statement.name}`")

        scope.enter(statement.name, statement.span, value, "const")
    elif isinstance(statement, s.State):
        scope.enter(statement.name, statement.span, lambda: _state(scope, statement), "state")


def _declare_index(scope: Scope, statement: s.Index) -> None:
    for name in statement.names:
        scope.enter(
            name, statement.span, lambda n=name: domain_of(statement.domain, scope.env, n), "index"
        )
    if isinstance(statement.domain, s.NameSet):
        for place, member in enumerate(statement.domain.names):
            scope.enter(member, statement.domain.span, lambda place=place: place, "const")


# ---------------------------------------------------------------- sizes


def register_symbols(scope: Scope, statements: Sequence[Any]) -> None:
    """Names in shapes that nothing defines are symbolic sizes: the file's own or open ones."""
    for statement in statements:
        if not isinstance(statement, (s.Input, s.Param)):
            continue
        for dim in statement.type.dims:
            for node in s.walk(dim):
                if isinstance(node, s.Name) and _is_symbol(scope, node.id):
                    _register(scope, node.id)


def _is_symbol(scope: Scope, name: str) -> bool:
    known = scope.find(name) is not None or scope.find_bound(name) is not None
    return not known and looks_like_size(name) and name not in DTYPES


def _register(scope: Scope, name: str) -> None:
    scope.elab.symbols.add(name)
    if scope.outermost:
        scope.symbols[name] = symbol(name)
    elif name not in scope.symbols:
        scope.symbols[name] = scope.elab.open_size(name)


def dims_of(nodes: Sequence[Any], scope: Scope) -> tuple[DimLike, ...]:
    """Sizes of a shape; an index's name means its size."""
    return tuple(_dim(node, scope) for node in nodes)


def _is_given(scope: Scope, name: str) -> bool:
    """Whether a name that no statement defines has a meaning in a size all the same."""
    from .calls import BUILTINS

    bound = scope.find_bound(name) is not None or name in scope.elab.symbols
    return bound or name == "_" or name in BUILTINS or name in LAYERS


def _dim(node: Any, scope: Scope) -> DimLike:
    env: Env = scope.env
    sizes = {}
    for inner in s.walk(node):
        if isinstance(inner, s.Name):
            found = scope.find(inner.id)
            if found is None and not _is_given(scope, inner.id):
                unknown_name(inner.id, env, inner.span, "a symbolic size begins with a capital "
                             "letter; a fixed one stands under `options:`")  # fmt: skip
            if found is not None and found[1].kind == "index":
                sizes[inner.id] = found[0].force(found[1], inner.span).size
            elif found is not None and found[1].kind == "equation":
                value = found[0].force(found[1], inner.span)
                if not is_number(value):
                    fail("E409", "a size must be known while compiling", inner.span,
                         describe(value))  # fmt: skip
    size = whole(evaluate(node, env.bind(sizes)), node.span, "a size")
    if isinstance(size, int) and size < 0:
        fail("E106", "a size cannot be negative", node.span, str(size))
    if isinstance(size, int) and size == 0:
        fail("E106", "a size cannot be zero", node.span)
    return size


# ---------------------------------------------------------------- tensors


def _input(scope: Scope, name: str, statement: s.Input) -> Any:
    kind = statement.type
    graph = scope.elab.builder.graph
    builder = scope.elab.builder
    if kind.name == "table":
        return _table(scope, name, kind)
    if kind.name == "sparse":
        return _sparse(scope, name, kind)
    if kind.name in DTYPES:
        dtype = kind.name
    elif kind.name in DOMAINS:
        dtype = scope.elab.float_dtype
    else:
        hint = _dtype_hint(kind.name, [*DOMAINS, "table", "sparse"])
        fail("E104", f"unknown element type `{kind.name}`", kind.span, hint=hint)
    given = scope.given_inputs.get(name)
    if given is not None:
        return given
    full = TensorType(dtype, dims_of(kind.dims, scope))
    scope.elab.check_size(full, f"input `{name}`", kind.span)
    return Tensor(graph.add_input(name, full, statement.span), builder)


def _dtype_hint(name: str, others: Sequence[str] = ()) -> str:
    foreign = re.fullmatch(r"(float|int|uint|double|long|half|byte)(\d*)", name.lower())
    if foreign is not None:
        kind, bits = foreign.groups()
        short = {"double": "f64", "long": "i64", "half": "f16", "byte": "u8"}.get(
            kind, f"{'f' if kind == 'float' else kind[0]}{bits or 32}"
        )
        if short in DTYPES:
            return f"did you mean `{short}`?"
    close = nearest(name, [*DTYPES, *others])
    return f"did you mean `{close}`?" if close else f"one of {', '.join(DTYPES)}"


def _table(scope: Scope, name: str, kind: s.TypeExpr) -> Record:
    """``table[s, a]``: for each state and action, outcomes (probability, next, reward, done)."""
    elab = scope.elab
    sizes = dims_of(kind.dims, scope)
    branch = symbol(f"{name}_outcomes")
    elab.symbols.add(f"{name}_outcomes")
    shape = (*sizes, branch)
    types = {"probability": elab.float_dtype, "next": "i32", "reward": elab.float_dtype,
             "done": elab.float_dtype}  # fmt: skip
    fields = {
        key: Tensor(elab.builder.graph.add_input(f"{name}.{key}", TensorType(dtype, shape),
                                                 kind.span), elab.builder)
        for key, dtype in types.items()
    }  # fmt: skip
    return Record("table", fields)


def _sparse(scope: Scope, name: str, kind: s.TypeExpr) -> Record:
    """``sparse[f32, V, V]``: compressed rows as dense tensors (indptr, index, value)."""
    if len(kind.dims) != 3 or not isinstance(kind.dims[0], s.Name):
        fail("E101", "a sparse matrix reads `sparse[f32, rows, columns]`", kind.span)
    dtype = kind.dims[0].id
    if dtype not in DTYPES:
        fail("E104", f"unknown element type `{dtype}`", kind.dims[0].span,
             hint=_dtype_hint(dtype))  # fmt: skip
    rows, columns = dims_of(kind.dims[1:], scope)
    count = symbol(f"{name}_entries")
    graph, builder = scope.elab.builder.graph, scope.elab.builder
    parts = {"indptr": ("i32", (rows + 1,)), "index": ("i32", (count,)), "value": (dtype, (count,))}
    fields = {
        key: Tensor(graph.add_input(f"{name}.{key}", TensorType(element, shape), kind.span),
                    builder)
        for key, (element, shape) in parts.items()
    }  # fmt: skip
    return Record("sparse", fields, columns)


def _param(scope: Scope, name: str, statement: s.Param) -> Tensor:
    kind = statement.type
    if kind.name not in DOMAINS:
        if kind.name in DTYPES:
            hint = f"write `real[...]`; `{kind.name}` is an element type, for inputs"
        else:
            close = nearest(kind.name, DOMAINS)
            hint = f"did you mean `{close}`?" if close else f"one of {', '.join(DOMAINS)}"
        fail("E607", f"unknown domain `{kind.name}`", kind.span, hint=hint)
    shape = dims_of(kind.dims, scope)
    if kind.name == "simplex" and not shape:
        fail("E607", "a simplex has at least one axis", kind.span, hint="simplex[K]")
    if kind.name in ("symmetric", "posdef"):
        if len(shape) < 2 or shape[-1] != shape[-2]:
            fail("E607", f"a {kind.name} parameter is square in its last two axes", kind.span)
    rule = DOMAINS[kind.name]
    if kind.name == "real" and scope.elab.float_dtype == "f32":
        # In a net, matrices start scaled by their size and offsets at zero.
        rule = ("xavier",) if len(shape) > 1 else ("zeros",)
    if statement.init is not None:
        rule = _initial(scope, statement, kind.name, shape)
    full = TensorType(scope.elab.float_dtype, shape)
    path = join(scope.path.base, name)
    weight = scope.elab.weights.get(path)
    if weight is not None and not weight.rehearsed and not scope.elab.rehearsing:
        if scope.path.instance is None or path not in scope.path.instance.weights:
            scope.elab.collision(path, statement.span)
    value = scope.builder.param(path, full, rule, "param", kind.name, statement.span)
    if scope.path.instance is not None:
        root = scope.elab.weights[path]
        scope.path.instance.weights[path] = (root.value, full)
    return Tensor(value, scope.builder)


def _initial(
    scope: Scope, statement: s.Param, domain: str, shape: Sequence[DimLike]
) -> tuple[Any, ...]:
    node = statement.init
    assert node is not None
    rule = rule_word(node, scope.env)
    if rule == ("uniform",) and domain == "simplex":
        return ("uniform_simplex",)
    value: Any = evaluate(node, scope.env) if rule is None else rule
    if isinstance(value, list):
        _check_values(value, domain, shape, node.span)
        return ("values", _tuples(value))
    if is_number(value) and not isinstance(value, Dim):
        if domain == "simplex":
            fail("E603", "probabilities must sum to 1", node.span, f"{describe(value)} for each",
                 "start evenly with `= uniform`")  # fmt: skip
        _check_domain([float(value)], domain, node.span)
        return ("constant", float(value))
    return rule_of(f"the start of `{statement.names[0]}`", value, scope.env, node.span)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else float(value)


def _check_values(value: list[Any], domain: str, shape: Sequence[DimLike], span: Span) -> None:
    """Starting values have the shape and lie in the domain: rows of a simplex sum to 1."""
    if not shape:
        fail("E103", "the start has another shape", span, f"{describe(value)} for a single number")
    if isinstance(shape[0], int) and len(value) != shape[0]:
        what = "rows" if len(shape) > 1 else "values"
        fail("E103", "the start has another size", span, f"{len(value)} {what} for {shape[0]}")
    if len(shape) > 1:
        for row in value:
            if not isinstance(row, list):
                fail("E103", "the start has another shape", span,
                     f"{describe(row)} where a row of {shape[1]} is needed")  # fmt: skip
            if len(row) != len(value[0]):
                fail("E103", "rows of the start differ in length", span,
                     f"{len(value[0])} and {len(row)}")  # fmt: skip
            _check_values(row, domain, shape[1:], span)
        return
    for item in value:
        if not is_number(item) or isinstance(item, Dim):
            fail("E404", "a start is made of numbers", span, describe(item))
    _check_domain([float(x) for x in value], domain, span)


def _check_domain(numbers: list[float], domain: str, span: Span) -> None:
    if domain == "simplex" and any(x < 0 for x in numbers):
        fail("E603", "a probability is not negative", span, f"{min(numbers):g}")
    if domain == "simplex" and abs(sum(numbers) - 1) > 1e-6:
        fail("E603", "probabilities must sum to 1", span, f"they sum to {sum(numbers):g}")
    if domain == "positive" and any(x <= 0 for x in numbers):
        fail("E607", "a positive parameter starts above 0", span, f"{min(numbers):g}")
    if domain == "unit" and any(not 0 <= x <= 1 for x in numbers):
        outside = next(x for x in numbers if not 0 <= x <= 1)
        fail("E607", "a unit parameter lies between 0 and 1", span, f"{outside:g}")


def _state(scope: Scope, statement: s.State) -> Tensor:
    """A value that a step updates: an operand here, its next value an output."""
    start = constant_of(statement.value, scope.env, f"the start of `{statement.name}`")
    if not is_number(start):
        fail("E404", "a state starts as a number", statement.value.span, describe(start))
    kind = TensorType(scope.elab.float_dtype, ())
    value = scope.elab.builder.graph.add_input(statement.name, kind, statement.span)
    index = value.node
    graph = scope.elab.builder.graph
    node = graph.node(index)

    graph.set_node(index, replace(node, attrs={"state": float(start)}))
    return Tensor(value, scope.elab.builder)

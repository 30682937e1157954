"""``use:`` other specs: their definitions as ``v.name(..)``, their net as ``v(x)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.types import Span
from .. import syntax as s
from ..parser import parse_model
from .environment import Env
from .errors import fail
from .expressions import evaluate_value
from .values import SpecBlock, TupleValue, describe

if TYPE_CHECKING:
    from .scope import Scope


def declare_uses(scope: Scope, uses: Mapping[str, Any]) -> None:
    """Enter the aliases of ``use:``; each spec is read when its alias is first asked for."""
    for alias, constant in uses.items():
        scope.enter(
            alias,
            constant.span,
            lambda a=alias, c=constant: _spec(scope, a, c.value, c.span),
            "use",
        )


def _spec(scope: Scope, alias: str, name: str, span: Span) -> SpecBlock:
    return SpecBlock(alias, _file(scope, name, span), span)


def _file(scope: Scope, name: str, span: Span) -> Scope:
    from .model import file_scope

    elab = scope.elab
    if name in elab.using:
        fail("E304", f"`{name}` uses itself", span, " -> ".join([*elab.using, name]))
    found = elab.resolver(name) if elab.resolver is not None else None
    if found is None:
        fail("E307", f"there is no spec `{name}`", span, hint="`tilth zoo list` shows the names")
    envelope, variant = found
    elab.using.append(name)
    try:
        document = envelope.document
        elab.reporter.sources[document.file] = document.text
        start, end = envelope.model.span.start, envelope.model.span.end
        statements = parse_model(document.text, start, end, document.file, elab.reporter)
        constants = envelope.options_for(variant, ())
        options = {key: constant.value for key, constant in constants.items()}
        inner = file_scope(elab, envelope, statements, options, {}, scope.path, scope.builder)
        declare_uses(inner, envelope.use)
    finally:
        elab.using.pop()
    return inner


def apply_spec(block: SpecBlock, value: Any, env: Env, span: Span) -> Any:
    """The net of another spec on a tensor; its weights go under the current path or its alias."""
    from .model import file_scope

    template = block.scope
    inputs = [n for row in template.statements if isinstance(row, s.Input) for n in row.names]
    items = value.items if isinstance(value, TupleValue) else (value,)
    if len(inputs) != len(items):
        fail("E407", f"`{block.alias}` takes {len(inputs)} inputs ({', '.join(inputs)})", span,
             f"found {len(items)}: {describe(value)}")  # fmt: skip
    path = env.path
    if path.base == path.auto or not path.auto.startswith(path.base):
        path = path.level(block.alias) if not path.base else path
    else:
        path = path.level(block.alias)
    inner = file_scope(
        env.elab, template.file, template.statements, template.bound, {}, path, env.builder
    )
    inner.depth = env.depth + 1
    inner.env = replace(inner.env, depth=env.depth + 1)
    inner.given_inputs = dict(zip(inputs, items, strict=True))
    declare_uses(inner, template.file.use)
    results = [r for output in inner.outputs for r in output.results]
    if not results:
        fail("E306", f"`{block.alias}` outputs nothing", span)
    values = [evaluate_value(result.value, inner.env) for result in results]
    return values[0] if len(values) == 1 else TupleValue(tuple(values))

"""The front door of elaboration: an envelope and its options in, a checked graph out."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from ...compiler.ir.dims import Dim, DimLike, substitute, symbol
from ...compiler.ir.graph import Graph
from ...compiler.ir.types import Span
from ...compiler.ops import LAYERS
from .. import syntax as s
from ..diagnostics import Diagnostic, Reporter, nearest
from ..envelope import Envelope
from ..parser import parse_model
from .builder import Path
from .elaborator import Elaborator
from .errors import quiet
from .objectives import Training, draft_training, finish_training
from .scope import Scope
from .training_weights import set_initialisers
from .values import BATCH

NAME = r"[A-Za-z_]\w*'?"
STACK_FRAMES = 30_000
"""Python frames that an elaboration may nest: some 40 for each of ``MAX_DEPTH`` definitions and
as many again for syntax inside them. A C stack of 8 MB holds them."""

Resolver = Callable[[str], "tuple[Envelope, str | None] | None"]
"""Finds another spec and its variant by name (for ``use:``)."""


@dataclass(frozen=True)
class Model:
    """An elaborated spec.

    ``graph`` may hold symbolic sizes; ``options`` are the resolved constants. ``warnings`` are
    diagnostics that do not stop anything. ``training`` is what the spec wants made small, where it
    says so.
    """

    name: str
    variant: str | None
    graph: Graph
    options: Mapping[str, Any]
    envelope: Envelope
    statements: tuple[s.Statement, ...]
    warnings: tuple[Diagnostic, ...]
    training: Training | None = None


def elaborate(
    envelope: Envelope,
    reporter: Reporter,
    variant: str | None = None,
    overrides: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    resolver: Resolver | None = None,
) -> Model:
    """Elaborate a spec.

    Parameters
    ----------
    envelope
        The file as read by :func:`spec.envelope.read_envelope`.
    reporter
        Gets every diagnostic; faults of all statements are found in one run.
    variant, overrides
        Which variant, and ``NAME=VALUE`` option overrides.
    sizes
        Values of symbolic sizes (``{"H": 224}``), filled in before elaboration.
    resolver
        Finds the specs named under ``use:``.

    Raises
    ------
    SpecError
        When there is any error; it holds all diagnostics.
    """
    constants = envelope.options_for(variant, overrides)
    options = {name: constant.value for name, constant in constants.items()}
    options = _discount(envelope) | options
    chosen = variant if variant in envelope.variants else envelope.default_variant
    document = envelope.document
    reporter.sources[document.file] = document.text
    faults = [d.span for d in reporter.diagnostics if d.span and d.severity == "error"]
    start, end = envelope.model.span.start, envelope.model.span.end
    statements = parse_model(document.text, start, end, document.file, reporter)
    elab = Elaborator(reporter, envelope.name, _float_dtype(envelope, statements))
    elab.resolver = resolver
    elab.lost = _lost_names(document.text[:end], start, statements, faults)
    elab.fix_settings = _fix_settings(envelope)
    fixed = dict(sizes or {})
    # The batch stays a symbol until the end: it is by its name that axes are known to be it.
    batch = {name: fixed.pop(name) for name in (BATCH,) if name in fixed}
    graph, training = elab.builder.graph, None
    with deep_stack():
        try:
            _check_defaults(envelope, reporter)
            scope = file_scope(elab, envelope, statements, options, fixed)
            _run(elab, scope, envelope)
            graph, training = _split(elab, scope, envelope)
        except RecursionError:
            message = "definitions depend on each other too deeply"
            reporter.report(Diagnostic("E701", message, envelope.model.span))
        reporter.raise_if_failed()
        graph = _finish(elab, graph).bind(batch)
        if training is not None:
            training = replace(training, graph=_finish(elab, training.graph).bind(batch))
    warnings = tuple(d for d in reporter.diagnostics if d.severity == "warning")
    return Model(envelope.name, chosen, graph, options, envelope, statements, warnings, training)


def _split(elab: Elaborator, scope: Scope, envelope: Envelope) -> tuple[Graph, Training | None]:
    """The model alone, and what it is trained on: two graphs that share their weights."""
    whole, train = elab.builder.graph, envelope.train
    inputs, constraints = list(whole.inputs), list(whole.constraints)
    draft = draft_training(scope, envelope)
    if train is not None and train.init:
        set_initialisers(scope, train.init)
    graph = whole.copy()
    graph.inputs, graph.constraints = inputs, constraints
    if draft is None or train is None:
        return graph, None
    return graph, finish_training(scope, whole, draft, train)


def _lost_names(
    text: str, start: int, statements: Sequence[s.Statement], faults: Sequence[Span]
) -> frozenset[str]:
    """Names that a faulty line of the envelope or a broken statement may have defined.

    The latter are those in text that no statement covers.
    """
    lines = text.splitlines()
    found: set[str] = set()
    for place in faults:
        if 1 <= place.line <= len(lines):
            found |= set(re.findall(NAME, lines[place.line - 1]))
    for statement in [*statements, None]:
        stop = statement.span.start if statement is not None else len(text)
        for line in text[start:stop].splitlines():
            found |= set(re.findall(NAME, line.split("#")[0]))
        start = statement.span.end if statement is not None else stop
    return frozenset(found)


@contextmanager
def deep_stack() -> Iterator[None]:
    """Room on Python's stack for deeply nested definitions, while any elaboration runs.

    The limit is the interpreter's own, so elaborations in several threads share it.
    """
    with _stack.lock:
        if not _stack.users:
            _stack.before = sys.getrecursionlimit()
            sys.setrecursionlimit(max(_stack.before, STACK_FRAMES))
        _stack.users += 1
    try:
        yield
    finally:
        with _stack.lock:
            _stack.users -= 1
            if not _stack.users:
                sys.setrecursionlimit(_stack.before)


class _Stack:
    lock = threading.Lock()
    users = 0
    before = 0


_stack = _Stack()


def file_scope(
    elab: Elaborator,
    envelope: Envelope,
    statements: Sequence[s.Statement],
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    path: Path | None = None,
    builder: Any = None,
) -> Scope:
    """The scope of a whole file, with its options bound and its symbols known."""
    from .declarations import register_symbols

    bound: dict[str, Any] = {**sizes, **options}
    scope = Scope(elab, statements, builder or elab.builder, path or Path(), None, bound)
    scope.defaults = {
        layer: {key: constant.value for key, constant in settings.values.items()}
        for layer, settings in envelope.defaults.items()
    }
    scope.file = envelope
    scope.declare()
    register_symbols(scope, statements)
    return scope


def _float_dtype(envelope: Envelope, statements: Sequence[s.Statement]) -> str:
    """Nets compute in float32; models with ``~`` or Bellman equations in float64."""
    if envelope.dtype is not None:
        return envelope.dtype
    double = any(isinstance(x, (s.Draw, s.Factor, s.Fix)) for x in statements)
    return "f64" if double else "f32"


def _check_defaults(envelope: Envelope, reporter: Reporter) -> None:
    """E301 and E401 for layers and settings under ``defaults:`` that do not exist."""
    for settings in envelope.defaults.values():
        layer = LAYERS.get(settings.name)
        if layer is None:
            close = nearest(settings.name, LAYERS)
            hint = f"did you mean `{close}`?" if close else "defaults are given to layers, by name"
            message = f"there is no layer `{settings.name}`"
            reporter.report(Diagnostic("E301", message, settings.key_span, hint=hint))
            continue
        names = [setting.name for setting in layer.settings]
        for name, value in settings.values.items():
            if name not in names:
                close = nearest(name, names)
                hint = f"did you mean `{close}`?" if close else f"it has {', '.join(names)}"
                message = f"`{layer.name}` has no setting `{name}`"
                reporter.report(Diagnostic("E401", message, value.key_span, hint=hint))


def _discount(envelope: Envelope) -> dict[str, float]:
    """``gamma`` as ``solve`` or ``learn`` has it, for a model that leaves it open."""
    sections = [x for x in (envelope.solve, envelope.learn) if x is not None]
    return next(({"gamma": x.gamma} for x in sections if x.gamma is not None), {})


def _fix_settings(envelope: Envelope) -> dict[str, Any]:
    solve = envelope.solve
    found: dict[str, Any] = {}
    if solve is not None:
        found = {"tol": solve.tol, "max_steps": solve.max_steps}
    return found


def _run(elab: Elaborator, scope: Scope, envelope: Envelope) -> None:
    from .imports import declare_uses
    from .outputs import emit_outputs

    with quiet(elab.report):
        declare_uses(scope, envelope.use)
    for statement in scope.statements:
        if isinstance(statement, (s.Input, s.State)):
            names = statement.names if isinstance(statement, s.Input) else (statement.name,)
            for entry in (scope.entries[name] for name in names if name in scope.entries):
                with quiet(elab.report):
                    scope.force(entry)
    scope.force_all()
    with quiet(elab.report):
        emit_outputs(scope, envelope)


def _named_sizes(elab: Elaborator, graph: Graph) -> dict[str, DimLike]:
    """Open sizes of definitions that nothing solved become symbols, each with its own name."""
    taken = {name for name in graph.symbols if name not in elab.open_sizes}
    named: dict[str, DimLike] = {}
    for inner, name in elab.open_sizes.items():
        if inner in elab.solved:
            continue
        free = (name if number == 1 else f"{name}{number}" for number in count(1))
        named[inner] = symbol(next(x for x in free if x not in taken))
        taken.add(str(named[inner]))
    return named


def _finish(elab: Elaborator, graph: Graph) -> Graph:
    """Fill in solved sizes, drop what nothing needs."""
    graph.prune()
    named = _named_sizes(elab, graph)
    solved = {name: substitute(dim, named) for name, dim in elab.solved.items()} | named
    graph = graph.bind(solved)
    graph.constraints = [c for c in graph.constraints if isinstance(c.left - c.right, Dim)]
    return graph

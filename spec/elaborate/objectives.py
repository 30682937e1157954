"""The formulas of ``train:`` as part of the graph: losses, metrics, and the weights they move.

An objective is a scope inside the file's: it sees the model's top-level names, declares inputs of
its own (``input label : i32[N]``) and defines ``loss``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...compiler.ir.graph import Graph, Value
from ...compiler.ir.types import FLOATS, Span
from .. import syntax as s
from ..diagnostics import Diagnostic
from ..envelope import Envelope
from ..parser import parse_formula, parse_model
from ..sections import Objective, Train
from ..source import SourceText
from . import tensors as t
from .declarations import register_symbols
from .errors import Poisoned, fail, quiet
from .expressions import evaluate_value
from .scope import Scope
from .training_weights import decayed_weights, frozen_weights, moved_weights, weights_of
from .values import Tensor, describe

STATEMENT = re.compile(
    r"\s*((input|param|index|const|def)\b|[A-Za-z_]\w*\s*(\[[^\]]*\]\s*)?=(?!=))"
)


@dataclass(frozen=True)
class Loss:
    """One thing to make small: the graph's output that holds it, and the weights that it moves.

    ``stated`` is its entry under ``objectives``, where it has one.
    """

    name: str
    output: str
    span: Span
    weights: tuple[str, ...]
    stated: Objective | None = None

    @property
    def steps(self) -> int:
        """Updates in a row when its turn comes."""
        return 1 if self.stated is None else self.stated.steps


@dataclass(frozen=True)
class Training:
    """What ``train:`` says about the graph.

    ``graph`` has the losses and metrics as its outputs, and perhaps weights that only training
    uses. ``metrics`` are outputs by metric; ``frozen`` the weights and running statistics that stay
    as they are; ``decayed`` the weights that weight decay applies to.
    """

    graph: Graph
    losses: tuple[Loss, ...]
    metrics: Mapping[str, str]
    frozen: frozenset[str] = frozenset()
    decayed: frozenset[str] = frozenset()


@dataclass
class Draft:
    """Losses and metrics as they were elaborated; :func:`finish_training` makes the rest."""

    losses: list[tuple[str, Value, Span, Objective | None]] = field(default_factory=list)
    metrics: dict[str, Value] = field(default_factory=dict)


def draft_training(scope: Scope, envelope: Envelope) -> Draft | None:
    """Elaborate the formulas of ``train:`` into the graph; ``None`` where it states no loss."""
    train = envelope.train
    if train is None:
        return None
    draft = Draft()
    inner = _objective_scope(scope, train)
    for number, objective in enumerate(train.objectives):
        if objective.loss is not None:
            name = objective.name or f"loss{number}"
            with quiet(scope.elab.report):
                value = _formula(inner, objective.loss, f"the loss `{name}`")
                draft.losses.append((name, value, objective.loss.span, objective))
    if not train.objectives:
        with quiet(scope.elab.report):
            _single(draft, scope, inner, train)
    for name, formula in (train.metrics or {}).items():
        with quiet(scope.elab.report):
            draft.metrics[name] = _formula(inner, formula, f"the metric `{name}`", False)
    return draft if draft.losses else None


def finish_training(scope: Scope, graph: Graph, draft: Draft, train: Train) -> Training:
    """Losses and metrics as the outputs of a copy of the graph, without what they do not need."""
    elab, known = scope.elab, weights_of(graph)
    graph = graph.copy()
    graph.outputs = [(f"loss {name}", value) for name, value, _, _ in draft.losses]
    graph.outputs += [(f"metric {name}", value) for name, value in draft.metrics.items()]
    declared, graph.inputs = graph.inputs, []
    graph.prune()
    graph.inputs = [index for index in declared if index in graph]
    training = Training(graph, (), {name: f"metric {name}" for name in draft.metrics})
    with quiet(elab.report):
        training = replace(training, decayed=decayed_weights(known, train))
    with quiet(elab.report):
        training = replace(training, frozen=frozen_weights(known, train))
    for name, value, span, objective in draft.losses:
        with quiet(elab.report):
            over = objective.over if objective is not None else ()
            weights = moved_weights(graph, known, value, training.frozen, over, span)
            loss = Loss(name, f"loss {name}", span, weights, objective)
            training = replace(training, losses=(*training.losses, loss))
    return training


# ---------------------------------------------------------------- formulas


def _objective_scope(scope: Scope, train: Train) -> Scope:
    """The scope of ``objective``'s statements; a formula leaves it empty."""
    text = train.objective
    rows: tuple[s.Statement, ...] = ()
    if text is not None and _is_statements(text):
        rows = _statements(scope, text)
    inner = Scope(scope.elab, rows, scope.builder, scope.path, scope, outermost=True)
    if train.label_smoothing:
        known = scope.defaults_of("cross_entropy")
        smooth = {"cross_entropy": {**known, "smoothing": train.label_smoothing}}
        inner.defaults = {**(scope.defaults or {}), **smooth}
    inner.declare()
    register_symbols(inner, rows)
    inner.force_all()
    return inner


def _is_statements(text: SourceText) -> bool:
    return STATEMENT.match(text.text) is not None or "\n" in text.text.strip()


def _statements(scope: Scope, text: SourceText) -> tuple[s.Statement, ...]:
    span = text.span
    source = scope.elab.reporter.sources[span.file]
    rows = parse_model(source, span.start, span.end, span.file, scope.elab.reporter)
    for row in rows:
        if isinstance(row, (s.Draw, s.Factor, s.Output, s.State)):
            what = {"Draw": "`~`", "Factor": "`factor`", "Output": "`output`", "State": "`state`"}
            report = scope.elab.report
            message = f"{what[type(row).__name__]} belongs to the model, not to its objective"
            report(Diagnostic("E206", message, row.span, hint="move it to the model block"))
    return rows


def _single(draft: Draft, scope: Scope, inner: Scope, train: Train) -> None:
    """The only loss: ``objective``, or the model's own quantity ``loss``."""
    text = train.objective
    if text is not None and not _is_statements(text):
        draft.losses.append(("loss", _formula(inner, text, "the loss"), text.span, None))
        return
    home = inner if "loss" in inner.entries else scope
    entry = home.entries.get("loss")
    if entry is None:
        if text is not None and not scope.elab.reporter.failed:
            fail("E306", "the objective defines no `loss`", text.span,
                 hint="end it with `loss = ...`")  # fmt: skip
        return
    value = home.force(entry)
    draft.losses.append(("loss", _scalar(home, value, entry.span, "the loss"), entry.span, None))


def _formula(inner: Scope, text: SourceText, what: str, is_loss: bool = True) -> Value:
    elab, span = inner.elab, text.span
    source = elab.reporter.sources[span.file]
    node = parse_formula(source, span.start, span.end, span.file, elab.reporter)
    if node is None:
        raise Poisoned
    value = evaluate_value(node, inner.env)
    return _scalar(inner, value, span, what, is_loss)


def _scalar(scope: Scope, value: Any, span: Span, what: str, is_loss: bool = True) -> Value:
    """The value as one float; E101 and E104 when it is none."""
    if not isinstance(value, Tensor):
        fail("E405", f"{what} must be computed from tensors", span, describe(value))
    tensor = t.finish_labels(scope.env, value, (), span) if value.labels else value
    kind = tensor.type
    if kind.rank:
        fail("E101", f"{what} must be a single number", span, str(kind),
             "take its mean: `mean(...)`")  # fmt: skip
    if kind.dtype not in FLOATS:
        if is_loss:
            fail("E104", f"{what} must be a real number", span, str(kind))
        tensor = t.cast(scope.env, tensor, scope.elab.float_dtype, span)
    return t.local(scope.env, tensor)

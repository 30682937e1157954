"""Which weights training moves, leaves alone, decays and starts anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...compiler.ir.graph import Graph, Value
from ...compiler.ir.types import Span, TensorType
from ..kinds import Constant
from ..parser import parse_formula
from ..sections import Train
from .errors import Poisoned, fail, quiet
from .expressions import evaluate
from .layers import rule_of, rule_word
from .scope import Scope
from .weight_patterns import weights_under


def weights_of(graph: Graph) -> dict[str, tuple[str, TensorType]]:
    """Kind (``weight``, ``bias``, ``norm``, ``param``, ``buffer``) and type of weights by path."""
    return {
        str(node.attrs["path"]): (str(node.attrs["kind"]), node.type)
        for _, node in graph.of_op("param")
    }


Known = Mapping[str, tuple[str, TensorType]]
"""Kind and type of weights by path, as :func:`weights_of` gives them."""


def decayed_weights(known: Known, train: Train) -> frozenset[str]:
    """Weights that weight decay applies to: matrices and kernels, unless the spec says otherwise.

    Norms, biases and other vectors are left alone by default (Goyal et al. 2017, section 5.1).
    """
    found = {path for path, (kind, type_) in known.items() if kind != "buffer" and type_.is_float}
    if not train.weight_decay_vectors:
        vectors = {p for p, (kind, type_) in known.items() if kind in ("norm", "bias")}
        found -= vectors | {p for p, (_, type_) in known.items() if type_.rank < 2}
    for pattern in train.weight_decay_exclude:
        found -= set(weights_under(pattern, known, "train.weight_decay_exclude"))
    return frozenset(found)


def frozen_weights(known: Known, train: Train) -> frozenset[str]:
    """Weights and running statistics under ``freeze``."""
    found: set[str] = set()
    for pattern in train.freeze:
        found |= set(weights_under(pattern, known, "train.freeze"))
    return frozenset(found)


def moved_weights(
    graph: Graph,
    known: Known,
    loss: Value,
    frozen: Collection[str],
    over: Sequence[Constant],
    span: Span,
) -> tuple[str, ...]:
    """Weights that a loss depends on and may update; E016 when there is none."""
    allowed = {path for path, (kind, _) in known.items() if kind != "buffer"} - set(frozen)
    if over:
        under: Iterable[str] = (p for item in over for p in weights_under(item, known, "over"))
        allowed &= set(under)
    reached = _reached(graph, loss)
    moved = tuple(path for path in known if path in allowed and path in reached)
    if not moved:
        hint = "it reads none of the weights that it may update"
        if not known:
            hint = "the model has no weights"
        elif not allowed:
            hint = "they are all frozen"
        fail("E016", "this loss has no weight to update", span, hint=hint)
    return moved


def _reached(graph: Graph, value: Value) -> set[str]:
    seen: set[int] = set()
    stack = [value.node]
    while stack:
        index = stack.pop()
        if index not in seen:
            seen.add(index)
            stack += [operand.node for operand in graph.operands(index)]
    params = (graph.node(index) for index in seen if graph.node(index).op == "param")
    return {str(node.attrs["path"]) for node in params}


def set_initialisers(scope: Scope, rules: Mapping[str, Constant]) -> None:
    """Give weights the initialisers of ``train.init``; a later pattern wins."""
    graph = scope.elab.builder.graph
    for pattern, constant in rules.items():
        with quiet(scope.elab.report):
            where = Constant(pattern, constant.key_span, constant.key_span)
            chosen = set(weights_under(where, weights_of(graph), "train.init"))
            rule = _rule(scope, constant)
            for index, node in graph.of_op("param"):
                if node.attrs["path"] in chosen:
                    graph.set_node(index, replace(node, attrs={**node.attrs, "init": rule}))


def _rule(scope: Scope, constant: Constant) -> Any:
    """An initialiser written as in a layer's settings: ``zeros``, ``normal(0, 0.01)``."""
    span = constant.value.span
    reporter = scope.elab.reporter
    node = parse_formula(reporter.sources[span.file], span.start, span.end, span.file, reporter)
    if node is None:
        raise Poisoned
    rule = rule_word(node, scope.env)
    value: Any = evaluate(node, scope.env) if rule is None else rule
    return rule_of("the initialiser", value, scope.env, span)

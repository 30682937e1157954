"""Weights that are given to a program: read, fitted to its parameters, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.ir.dims import DimLike, UnboundSymbol, evaluate
from .compiler.ir.types import DTYPES, Span, TensorType
from .runtime import weights as files
from .spec.diagnostics import Diagnostic, SpecError
from .spec.sections_data import WeightRule

if TYPE_CHECKING:
    from .program import Program


def weight_arrays(weights: Any) -> dict[str, np.ndarray] | None:
    """Arrays by name, from a file or a mapping."""
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        return {str(path): np.asarray(array) for path, array in weights.items()}
    return files.read_arrays(weights)


def fit_weights(
    program: Program,
    given: Mapping[str, np.ndarray],
    name: str,
    sizes: Mapping[str, int],
    strict: bool = True,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, np.ndarray]:
    """The given arrays as a program's weights; those that only training uses are passed over.

    ``name`` is what a message calls them. Raises ``RuntimeFault`` E801 where they do not match and
    ``strict`` is set.
    """
    wanted, rules = wanted_weights(program, sizes), weight_rules(program, sizes)
    training = program.model.training
    if training is not None:
        params = training.graph.of_op("param")
        spare = {str(node.attrs["path"]) for _, node in params} - wanted.keys()
        given = {path: a for path, a in given.items() if path not in spare}
    loaded = files.fit_weights(given, wanted, rules, name, strict)
    for line in loaded.lines:
        note(line)
    return loaded.arrays


def wanted_weights(program: Program, sizes: Mapping[str, int]) -> dict[str, files.Wanted]:
    """Shape and element type by weight path."""
    return {
        path: files.Wanted(_fixed(kind.bind(sizes)), DTYPES[kind.dtype])
        for path, kind in program.parameters().items()
    }


def weight_rules(program: Program, sizes: Mapping[str, int]) -> dict[str, list[files.Piece]]:
    """The spec's rules for checkpoints, with their sizes worked out.

    Raises ``SpecError`` E805 when a rule names a size that has no value.
    """
    options = program.model.options
    known = {k: v for k, v in options.items() if isinstance(v, int)} | dict(sizes)

    def end(dim: DimLike | None, span: Span) -> int | None:
        try:
            return None if dim is None else evaluate(dim, known)
        except UnboundSymbol as fault:
            message = f"the size {fault.args[0]} of this rule has no value"
            raise SpecError([Diagnostic("E805", message, span)], program.sources) from fault

    def piece(rule: WeightRule) -> files.Piece:
        cuts = (slice(end(x.start, rule.span), end(x.stop, rule.span)) for x in rule.slices)
        return files.Piece(rule.file_name, tuple(cuts), rule.path)

    return {
        kind: [piece(rule) for rule in rules]
        for kind, rules in program.model.envelope.weights.items()
    }


def _fixed(kind: TensorType) -> tuple[int, ...]:
    return tuple(evaluate(dim, {}) for dim in kind.shape)

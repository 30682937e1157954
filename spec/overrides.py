"""Settings of ``train:`` from the command line: ``--set train.validate.fraction=0.1``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..compiler.ir.types import Span
from .diagnostics import Reporter
from .envelope import OVERRIDES, Envelope
from .kinds import read_keys
from .sections import TRAIN_KEYS, Checkpointing, EarlyStop, Train, Validation
from .source import make_source
from .yaml_nodes import Context, MappingNode, read_yaml

SECTION = "train"
RECORDS = (Validation, EarlyStop, Checkpointing)
_FORM = re.compile(rf"\s*{SECTION}\.([\w.]+?)\s*=(.*)", re.DOTALL)


def split_overrides(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of options, and those of the ``train`` section."""
    own = [text for text in texts if _FORM.match(text)]
    return [text for text in texts if text not in own], own


def override_train(envelope: Envelope, texts: Sequence[str], reporter: Reporter) -> Envelope:
    """The envelope with settings of ``train`` put in place; faults are reported.

    A setting inside another (``train.validate.fraction``) leaves its neighbours as they are.
    """
    train = envelope.train
    for text in texts:
        match = _FORM.match(text)
        assert match is not None
        keys = match[1].split(".")
        indented = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
        content = "\n".join(indented) + " " + " ".join(match[2].split())
        source = make_source(content, f"{OVERRIDES} {SECTION}.{match[1]}")
        reporter.sources[source.file] = content
        node = read_yaml(source, reporter)
        if not isinstance(node, MappingNode):
            continue
        values, spans = read_keys(node, TRAIN_KEYS, SECTION, Context(source, reporter))
        train = _merged(train or Train(_nowhere(envelope), {}), values, spans)
    return replace(envelope, train=train)


def _merged(old: Any, values: dict[str, Any], spans: dict[str, Span]) -> Any:
    """A record with some fields replaced, records inside it likewise."""
    changed = {}
    for name, value in values.items():
        before = getattr(old, name)
        if isinstance(value, RECORDS) and before is not None:
            given = {field: getattr(value, field) for field in value.spans}
            value = _merged(before, given, dict(value.spans))
        changed[name] = value
    return replace(old, **changed, spans={**old.spans, **spans})


def _nowhere(envelope: Envelope) -> Span:
    return envelope.model.span

"""Settings of a section from the command line: ``--set train.validate.fraction=0.1``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..compiler.ir.types import Span
from .diagnostics import Reporter
from .envelope import OVERRIDES, Envelope
from .kinds import read_keys
from .sections import (
    LEARN_KEYS,
    SOLVE_KEYS,
    TRAIN_KEYS,
    Checkpointing,
    EarlyStop,
    Learn,
    Solve,
    Train,
    Validation,
)
from .source import make_source
from .yaml_nodes import Context, MappingNode, read_yaml

SECTIONS: dict[str, tuple[Any, Any]] = {
    "train": (TRAIN_KEYS, Train),
    "solve": (SOLVE_KEYS, Solve),
    "learn": (LEARN_KEYS, Learn),
}
"""Keys and record of each section whose settings may be given."""

RECORDS = (Validation, EarlyStop, Checkpointing)
INSTEAD = {"epsilon": "explore", "explore": "epsilon"}
"""Two names of one setting: the one that is given replaces the other."""

_FORM = re.compile(rf"\s*({'|'.join(SECTIONS)})\.([\w.]+?)\s*=(.*)", re.DOTALL)


def split_overrides(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of options, and those of sections."""
    own = [text for text in texts if _FORM.match(text)]
    return [text for text in texts if text not in own], own


def override_sections(envelope: Envelope, texts: Sequence[str], reporter: Reporter) -> Envelope:
    """The envelope with settings of its sections put in place; faults are reported.

    A setting inside another (``train.validate.fraction``) leaves its neighbours as they are.
    """
    for text in texts:
        match = _FORM.match(text)
        assert match is not None
        section, setting, value = match.groups()
        indented = [f"{'  ' * depth}{key}:" for depth, key in enumerate(setting.split("."))]
        content = "\n".join(indented) + " " + " ".join(value.split())
        source = make_source(content, f"{OVERRIDES} {section}.{setting}")
        reporter.sources[source.file] = content
        node = read_yaml(source, reporter)
        if not isinstance(node, MappingNode):
            continue
        keys, record = SECTIONS[section]
        known = tuple(replace(key, required=False) for key in keys)  # the spec may have them
        values, spans = read_keys(node, known, section, Context(source, reporter))
        values |= {other: None for name, other in INSTEAD.items() if name in values}
        before = getattr(envelope, section) or record(_nowhere(envelope), {})
        envelope = replace(envelope, **{section: _merged(before, values, spans)})
    return envelope


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

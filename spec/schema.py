"""JSON Schema of the envelope, for completion and hover text in editors."""

from __future__ import annotations

from typing import Any

from .envelope import KEYS
from .kinds import record_schema

DRAFT = "http://json-schema.org/draft-07/schema#"


def json_schema() -> dict[str, Any]:
    """The envelope as a JSON Schema (draft 7), made from the declarations that reading uses.

    It is a little wider than the reader: what depends on two places at once (a variant's options,
    a call's settings) is left to ``tilth check``.
    """
    return {
        "$schema": DRAFT,
        "title": "Tilth spec",
        "description": "A model, the facts that it must meet, and how it is trained or solved.",
        **record_schema(KEYS),
    }


def modeline(schema: str) -> str:
    """The comment line that tells an editor where a spec's schema is (a path or an address)."""
    return f"# yaml-language-server: $schema={schema}"

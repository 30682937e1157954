"""A graph stage by stage: after a pass, as a diff of one pass, and the time each pass took.

A probabilistic model is looked at as it is compiled: its questions answered by tensor ops.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches, unified_diff

from ..compiler.inference.expand import expand
from ..compiler.ir.graph import Graph
from ..compiler.ir.text import graph_listing
from ..compiler.options import Options
from ..compiler.pipeline import PASSES, run

FUSED = "fused"
"""The stage after every pass."""


def pass_names() -> tuple[str, ...]:
    """Names of all passes, in the order in which they run."""
    return tuple(step.name for step in PASSES)


def stages(graph: Graph, options: Options | None = None) -> Mapping[str, Graph]:
    """The graph after each pass by its name; ``"graph"`` is the source, ``"fused"`` the end."""
    found = {"graph": graph}
    outcome = run(expand(graph), options, after=found.__setitem__)
    return {**found, FUSED: outcome.graph}


def after_pass(graph: Graph, name: str, options: Options | None = None) -> Graph:
    """The graph after one pass, or after all of them for ``"fused"``.

    Raises ``KeyError`` with a readable message when there is no such pass.
    """
    return run(expand(graph), options, PASSES[: _place(name) + 1]).graph


def pass_diff(graph: Graph, name: str, options: Options | None = None) -> str:
    """What one pass changed, as a unified diff of text forms; empty when it changed nothing.

    Both texts are listings (:func:`graph_listing`), so that it shows what changed and no more.
    """
    place, source = _place(name), expand(graph)
    before = run(source, options, PASSES[:place]).graph
    after = run(source, options, PASSES[: place + 1]).graph
    texts = (graph_listing(before), graph_listing(after))
    label = PASSES[place].name
    lines = unified_diff(*texts, f"before {label}", f"after {label}", lineterm="")
    return "\n".join(lines)


def pass_times(graph: Graph, options: Options | None = None) -> tuple[tuple[str, float], ...]:
    """Each pass and the seconds it took."""
    return run(expand(graph), options).seconds


def _place(name: str) -> int:
    names = pass_names()
    if name == FUSED:
        return len(names) - 1
    if name not in names:
        close = get_close_matches(name, names, 3)
        hint = f"close are {', '.join(close)}" if close else f"there are {', '.join(names)}"
        raise KeyError(f"there is no pass `{name}`; {hint}")
    return names.index(name)

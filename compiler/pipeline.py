"""The pipeline: which passes run, in which order, and why each is where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from .ir.graph import Graph
from .ir.verify import verify as verify_graph
from .options import Options
from .passes.common_subexpressions import common_subexpressions
from .passes.dead_code import dead_code
from .passes.hoist_from_loops import hoist_from_loops
from .passes.merge_sibling_contractions import merge_sibling_contractions
from .passes.simplify import simplify
from .rewrite import Rewriter

Transform = Callable[[Rewriter, Options], None]


@dataclass(frozen=True)
class Pass:
    """A named step and why it stands where it does."""

    name: str
    run: Transform
    why_here: str


PASSES: tuple[Pass, ...] = (
    Pass("simplify", simplify, "first, so that others meet each thing in one form"),
    Pass("common_subexpressions", common_subexpressions, "once forms agree, equals are seen"),
    Pass("hoist_from_loops", hoist_from_loops, "products leave loops as they are written"),
    Pass("merge_sibling_contractions", merge_sibling_contractions, "siblings"),
    Pass("hoist_merged_weights", hoist_from_loops, "weights joined in a loop are joined once"),
    Pass("tidy", simplify, "what was moved may meet what it undoes"),
    Pass("dead_code", dead_code, "what all this left unread"),
)


def run(
    graph: Graph,
    options: Options | None = None,
    passes: Sequence[Pass] = PASSES,
    after: Callable[[str, Graph], None] | None = None,
    verify: bool | None = None,
) -> Graph:
    """x."""
    options = options or Options()
    checked = os.environ.get("TILTH_DEBUG") == "1" if verify is None else verify
    rewriter = Rewriter(graph.copy())
    for step in passes:
        started = perf_counter()
        step.run(rewriter, options)
        print(step.name, round((perf_counter() - started) * 1e3, 1))
        if checked:
            verify_graph(rewriter.graph)
    return rewriter.graph

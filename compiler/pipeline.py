"""The pipeline: which passes run, in which order, and why each is where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from .autodiff import expand_gradients
from .ir.graph import Graph
from .ir.verify import VerifyError
from .ir.verify import verify as verify_graph
from .ops.control import LOOPS
from .options import Options
from .passes.common_subexpressions import common_subexpressions
from .passes.dead_code import dead_code
from .passes.fold_batch_norm import fold_batch_norm
from .passes.fuse_batch_norm import fuse_batch_norm
from .passes.fuse_elementwise import fuse_elementwise
from .passes.fuse_epilogue import fuse_epilogue
from .passes.fuse_prologue import fuse_prologue
from .passes.hoist_from_loops import hoist_from_loops
from .passes.merge_channel_shuffles import merge_channel_shuffles
from .passes.merge_sibling_contractions import merge_sibling_contractions
from .passes.share_chains import share_chains
from .passes.simplify import simplify
from .passes.sink_into_concat import sink_into_concat
from .passes.split_batch import split_batch
from .rewrite import Rewriter

Transform = Callable[[Rewriter, Options], None]


@dataclass(frozen=True)
class Pass:
    """A named step and why it stands where it does."""

    name: str
    run: Transform
    why_here: str


def where_there_are_loops(step: Transform) -> Transform:
    """The pass, skipped on graphs without loops: they have nothing new to offer it."""

    def run_on_loops(rewriter: Rewriter, options: Options) -> None:
        if rewriter.of_op(*LOOPS):
            step(rewriter, options)

    return run_on_loops


PASSES: tuple[Pass, ...] = (
    Pass("simplify", simplify, "first: the others then meet each thing in one form"),
    Pass("share", common_subexpressions, "equal forms are equal nodes only now"),
    Pass("merge_channel_shuffles", merge_channel_shuffles, "shuffles part a conv from its norm"),
    Pass("fold_batch_norm", fold_batch_norm, "norms now stand next to their convolutions"),
    Pass("hoist_from_loops", hoist_from_loops, "products leave loops one by one"),
    Pass("tidy_loops", where_there_are_loops(simplify), "what left meets its bias outside"),
    Pass("merge_sibling_contractions", merge_sibling_contractions, "siblings now stand together"),
    Pass("hoist_merged_weights", hoist_from_loops, "weights joined inside a loop are joined once"),
    Pass("tidy", simplify, "what folding, merging and hoisting left"),
    Pass("share_folded", common_subexpressions, "scales, shifts and index tables repeat"),
    Pass("share_chains", share_chains, "equal operands are equal nodes only now"),
    Pass("dead_code", dead_code, "fusion asks who reads a value; the dead must not answer"),
    Pass("fuse_batch_norm", fuse_batch_norm, "before products and groups take their readers"),
    Pass("fuse_prologue", fuse_prologue, "norms that could not fold, before they join a group"),
    Pass("sink_into_concat", sink_into_concat, "an epilogue then takes what follows a join"),
    Pass("fuse_epilogue", fuse_epilogue, "convolutions take what follows before groups do"),
    Pass("fuse_elementwise", fuse_elementwise, "all that is left between the large ops"),
    Pass("split_batch", split_batch, "last: what is fused by now moves into the loop as it is"),
)


@dataclass(frozen=True)
class Outcome:
    """What a run of the pipeline made.

    ``seconds`` lists passes and the time each took. ``became`` maps nodes of the source, and those
    made on the way, to what took their place; ``refusals`` why pairs of them were not fused.
    """

    graph: Graph
    seconds: tuple[tuple[str, float], ...]
    became: Mapping[int, int]
    refusals: Mapping[tuple[int, int], str]


def run(
    graph: Graph,
    options: Options | None = None,
    passes: Sequence[Pass] = PASSES,
    after: Callable[[str, Graph], None] | None = None,
    verify: bool | None = None,
) -> Outcome:
    """Run passes on a copy of a graph, in which derivatives (``grad``) are expanded first.

    ``after(name, graph)`` sees a copy after each pass. ``verify`` checks the graph after each pass;
    by default only where the environment has ``TILTH_DEBUG=1``. Raises ``VerifyError`` that names
    the pass.
    """
    options = options or Options()
    checked = os.environ.get("TILTH_DEBUG") == "1" if verify is None else verify
    rewriter = Rewriter(expand_gradients(graph))
    seconds = []
    for step in passes:
        started = perf_counter()
        step.run(rewriter, options)
        seconds.append((step.name, perf_counter() - started))
        if checked:
            _check(step.name, rewriter.graph)
        if after is not None:
            after(step.name, rewriter.graph.copy())
    return Outcome(rewriter.graph, tuple(seconds), rewriter.became, rewriter.refusals)


def _check(name: str, graph: Graph) -> None:
    try:
        verify_graph(graph)
    except VerifyError as fault:
        raise VerifyError(fault.node, f"after {name}: {fault.reason}") from fault

"""How regions are written as ONNX: ``scan`` as Scan, ``iterate`` as Loop.

A body reads what its region captures straight from the graph around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..compiler.ir.graph import Graph, Value
from ..compiler.ir.types import TensorType
from .onnx_graph import Body, Emitter, Site, rule


@rule("scan")
def _scan(e: Emitter, site: Site) -> tuple[str, ...]:
    carries, stacked = site.attrs["n_carry"], site.attrs["n_xs"]
    body, inner = _body(e, site, [])
    operands = list(site.x[: carries + stacked])
    _bind(inner, site, body, carries + stacked)
    if not stacked:
        # Scan takes its length from something that it reads.
        (length,) = site.known([site.attrs["length"]])
        operands.append(e.array(np.arange(length, dtype=np.int64)))
        body.inputs.append((f"{body.name}step", TensorType("i64", ())))
    inner.graph(_named(site, body))
    backwards = int(site.attrs["reverse"])
    rows = len(site.node.types) - carries
    return e.calls(
        "Scan",
        operands,
        len(site.node.types),
        body=body,
        num_scan_inputs=max(stacked, 1),
        scan_input_directions=[backwards] * max(stacked, 1),
        scan_output_directions=[backwards] * rows,
    )


@rule("iterate")
def _iterate(e: Emitter, site: Site) -> tuple[str, ...]:
    carries = site.attrs["n_carry"]
    index, go_on = f"%{next(e.fresh)}/step", f"%{next(e.fresh)}/on"
    counters = [(index, TensorType("i64", ())), (go_on, TensorType("bool", ()))]
    body, inner = _body(e, site, counters)
    _bind(inner, site, body, carries)
    inner.graph(_named(site, body))
    # The region's last output says stop, Loop's first says go on.
    stop, kind = body.outputs.pop()
    body.outputs.insert(0, (inner.call("Not", stop), kind))
    most = e.number(site.attrs["max_steps"], "i64")
    return e.calls("Loop", [most, "", *site.x[:carries]], carries, body=body)


@rule("fix")
def _fix(e: Emitter, site: Site) -> str:
    site.refuse("a loop there cannot fail when it does not converge", "use `iterate`")


def _body(e: Emitter, site: Site, inputs: Sequence[tuple[str, TensorType]]) -> tuple[Body, Emitter]:
    body = Body(f"%{next(e.fresh)}/", list(inputs))
    return body, Emitter(body, e.arrays, e.fresh)


def _bind(inner: Emitter, site: Site, body: Body, own: int) -> None:
    """Name the region's inputs: the first ``own`` are the body's, the others the operands'."""
    region = site.node.regions[0]
    for place, index in enumerate(region.inputs):
        if place < own:
            name = f"{body.name}{region.node(index).name or place}.{place}"
            body.inputs.append((name, region.node(index).type))
            inner.names[Value(index)] = name
        else:
            inner.names[Value(index)] = site.x[place]


def _named(site: Site, body: Body) -> Graph:
    """The region with output names that nothing outside has."""
    region = site.node.regions[0].copy()
    region.outputs = [
        (f"{body.name}new.{name}.{place}", value)
        for place, (name, value) in enumerate(region.outputs)
    ]
    return region

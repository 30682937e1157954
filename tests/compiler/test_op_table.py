"""The op table is complete: every op has its entries, and references accept what they declare."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from tilth.compiler.ops import LAYERS, OPS
from tilth.compiler.ops.base import KINDS, REQUIRED

BATCHING = {"elementwise", "leading", "last", "axis", "none"}


@pytest.mark.parametrize("name", sorted(OPS))
def test_op_is_complete(name) -> None:
    op = OPS[name]
    assert op.name == name
    assert op.doc and op.doc[0] != " " and op.doc.rstrip()[-1] == "."
    assert callable(op.shape)
    assert (op.reference is None) == bool(op.why_no_reference)
    assert op.batching in BATCHING
    assert len(set(op.attrs)) == len(op.attrs)
    assert all(not o.variadic for o in op.operands[:-1])
    if op.batching == "axis":
        assert op.axis_attrs and set(op.axis_attrs) <= set(op.attrs)


@pytest.mark.parametrize("name", sorted(n for n, op in OPS.items() if op.reference is not None))
def test_reference_accepts_operands_and_attributes(name) -> None:
    op = OPS[name]
    assert op.reference is not None
    target = inspect.unwrap(op.reference)
    if isinstance(target, np.ufunc):
        assert target.nin == len(op.operands) and not op.attrs
    elif inspect.isfunction(target) and not target.__module__.startswith("numpy"):
        count = sum(1 for o in op.operands if not o.optional)
        inspect.signature(target).bind(*[None] * count, **dict.fromkeys(op.attrs))
    else:
        assert not op.attrs


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layer_is_complete(name) -> None:
    layer = LAYERS[name]
    assert layer.name == name and layer.doc
    assert layer.batching in BATCHING
    fewest, most = layer.operands
    assert fewest >= 0 and (most is None or fewest <= most)
    names = [s.name for s in layer.settings]
    assert len(set(names)) == len(names)
    for setting in layer.settings:
        assert setting.kind in KINDS
        assert bool(setting.choices) == (setting.kind == "choice")
        if setting.choices and setting.default is not REQUIRED:
            assert setting.default in setting.choices
    if layer.batching == "axis":
        assert "axis" in names


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layer_builder_accepts_its_settings(name) -> None:
    layer = LAYERS[name]
    signature = inspect.signature(layer.build)
    signature.bind(None, [], **{s.name: None for s in layer.settings})


def test_every_op_runs_on_the_cpu_or_says_why_not() -> None:
    from tilth.compiler.lower.cpu import LEAVES, RULES, WITHOUT_KERNEL, load_rules
    from tilth.compiler.lower.load import TEXT

    load_rules()
    ways = {*RULES, *LEAVES, *TEXT, *WITHOUT_KERNEL}
    assert [name for name, op in OPS.items() if op.expansion is None and name not in ways] == []
    assert not [name for name in WITHOUT_KERNEL if name in RULES or OPS[name].expansion]

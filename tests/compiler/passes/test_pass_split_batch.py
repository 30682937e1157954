"""A batch is split into parts where its values are more than a cache holds, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import tilth
from pass_bench import Sketch, check, only, ops
from tilth.compiled import lowered
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.options import Options
from tilth.compiler.passes import split_batch as splitting
from tilth.compiler.passes.fuse_elementwise import fuse_elementwise
from tilth.compiler.passes.fuse_epilogue import fuse_epilogue
from tilth.compiler.passes.split_batch import split_batch

SMALL = Options(threads=1)
"""One thread, for which a part is one image."""


@pytest.fixture(autouse=True)
def split_small_batches(monkeypatch):
    monkeypatch.setattr(splitting, "LAST_LEVEL", 1000)


def classifier(batch: int = 6) -> Graph:
    s = Sketch("net")
    x = s.x(batch, 3, 8, 8, name="image")
    y = s.op("relu", s.conv(x, 4, 3, bias=True, name="conv1"), name="relu1")
    z = s.op("relu", s.op("add", s.conv(y, 4, 3, bias=True, name="conv2"), y), name="relu2")
    y = s.op("concat", y, z, axis=1)
    y = s.op("reduce", y, kind="mean", axes=(2, 3), keepdims=False)
    return s.out(y=s.op("linear", y, s.w(5, 8), s.w(5), name="fc"))


def inside(graph: Graph) -> tuple[int, list[str]]:
    """Turns of the loop, and the ops in it."""
    _, loop = only(graph, "scan")
    turns = loop.attrs["length"]
    assert isinstance(turns, int)
    return turns, ops(loop.regions[0])


def test_images_go_through_the_net_one_by_one_and_meet_at_the_dense_layer() -> None:
    after = check(classifier(), fuse_epilogue, fuse_elementwise, split_batch, options=SMALL)
    turns, body = inside(after)
    assert turns == 6
    assert body == ["fused_conv", "fused_conv", "concat", "reduce"]
    assert ops(after) == ["reshape", "scan", "reshape", "linear"]


def test_names_stay_in_the_loop() -> None:
    after = check(classifier(), fuse_epilogue, split_batch, options=SMALL)
    _, loop = only(after, "scan")
    names = [node.name for _, node in loop.regions[0].of_op("fused_conv")]
    assert names == ["conv1", "conv2"]


@pytest.mark.parametrize(("threads", "turns"), [(1, 6), (2, 3), (3, 2), (4, 0), (6, 0), (9, 0)])
def test_every_thread_has_an_image_of_a_part(threads: int, turns: int) -> None:
    after = check(classifier(), split_batch, options=Options(threads=threads))
    assert inside(after)[0] == turns if turns else "scan" not in ops(after)


def test_what_does_not_pay_stays_whole(monkeypatch) -> None:
    plain = ops(classifier())
    for options in (Options(), Options(threads=1, training=True)):
        assert ops(check(classifier(), split_batch, options=options)) == plain
    assert ops(check(classifier(1), split_batch, options=SMALL)) == plain
    monkeypatch.setattr(splitting, "WEIGHTS", 1000)
    assert ops(check(classifier(), split_batch, options=SMALL)) == plain
    monkeypatch.setattr(splitting, "WEIGHTS", 2)
    monkeypatch.setattr(splitting, "LAST_LEVEL", 1 << 20)
    assert ops(check(classifier(), split_batch, options=SMALL)) == plain


def mixing(s: Sketch, x: Value, how: str) -> Value:
    """An op in which images meet, or seem to."""
    if how == "mean":
        return s.op("sub", x, s.op("reduce", x, kind="mean", axes=(0,), keepdims=True))
    if how == "softmax":
        return s.op("softmax", x, axis=0, beta=1.0)
    if how == "turned":
        return s.op("transpose", x, perm=(1, 0, 2, 3))
    if how == "shape":
        return s.op("reshape", x, shape=(4, 6, 8, 8))
    assert how == "rows"
    return s.op("mul", x, s.w(6, 1, 1, 1))


@pytest.mark.parametrize("how", ["mean", "softmax", "turned", "shape", "rows"])
def test_ops_in_which_images_meet_stay_outside(how: str) -> None:
    s = Sketch("net")
    y = s.conv(s.x(6, 3, 8, 8), 4, 3, name="conv1")
    y = mixing(s, y, how)
    y = s.conv(y, 5, 3, name="conv2")
    _, body = inside(check(s.out(y=y), split_batch, options=SMALL))
    assert body == ["conv"]


def test_a_value_is_read_inside_and_after_the_loop() -> None:
    s = Sketch("net")
    x = s.x(6, 3, 8, 8)
    y = s.conv(x, 4, 3)
    z = s.op("relu", y)
    mean = s.op("reduce", z, kind="mean", axes=(0,), keepdims=True)
    turns, body = inside(check(s.out(y=y, z=s.op("sub", z, mean), w=s.conv(z, 2)), split_batch,
                               options=SMALL))  # fmt: skip
    assert turns == 6
    assert body == ["conv", "relu", "conv"]


def test_weights_that_a_call_gives_stay_outside() -> None:
    """They would be packed again for every part."""
    s = Sketch("net")
    x, weight = s.x(6, 3, 8, 8), s.x(4, 3, 1, 1)
    attrs = {"stride": (1, 1), "pad": ((0, 0),) * 2, "dilation": (1, 1), "groups": 1}
    y = s.op("conv", s.op("relu", x), weight, **attrs)
    assert "scan" not in ops(check(s.out(y=y), split_batch, options=SMALL))


def test_two_batches_of_images_go_together_or_not_at_all() -> None:
    def both(other: int) -> Graph:
        s = Sketch("net")
        a, b = s.x(6, 3, 8, 8), s.x(other, 3, 8, 8)
        return s.out(y=s.conv(a, 4, 3), z=s.conv(b, 4, 3))

    assert inside(check(both(6), split_batch, options=SMALL)) == (6, ["conv", "conv"])
    assert "scan" not in ops(check(both(4), split_batch, options=SMALL))


NET = """\
tilth: 1
name: small
title: A small net
source: none
model: |
  def fire(c) = conv(c, 1, bias=true) >> relu >> (conv(c, 1) as left ++ conv(c, 3) as right) >> relu
  input image : f32[N, 3, 19, 17]
  scores = image >> conv(20, 5, stride=2) >> bn >> relu >> maxpool(3, stride=2, pad=1)
      >> fire(17) >> fire(16) >> conv(7, 1) >> softmax(axis=1)
  output scores
"""


@pytest.mark.parametrize(("batch", "threads"), [(2, 1), (3, 1), (6, 2)])
def test_kernels_in_a_split_batch_agree_with_the_reference(
    batch, threads, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(splitting, "WEIGHTS", 0)
    path = tmp_path / "small.yaml"
    path.write_text(NET)
    program = tilth.load(path)
    weights = program.weights_for(None, seed=1)
    image = np.random.default_rng(2).standard_normal((batch, 3, 19, 17)).astype(np.float32)
    compiled = tilth.compile(program, weights=weights, threads=threads)
    assert inside(lowered(program, {"N": batch}, threads)[1])[0] == batch // threads
    wanted = program.run({"image": image}, weights=weights, precision="f64")["scores"]
    for _ in range(3):
        found = compiled(image=image)
        assert np.max(np.abs(found - wanted)) < 1e-5 * np.max(np.abs(wanted))

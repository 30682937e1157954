"""Weights row by row: numpy's functions on them, packing in pieces, pages of the file."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from tilth.runtime import packing
from tilth.runtime.kernels import depthwise, linear, winograd
from tilth.runtime.row_wise import RowWise, Sources, mapped_file, some_rows
from tilth.runtime.weights import read_arrays

RNG = np.random.default_rng(0)


def row_wise(array):
    return RowWise(array.shape, lambda where: array[where])


W = RNG.standard_normal((7, 5, 3, 3)).astype(np.float32)
SCALE = RNG.standard_normal((7, 1, 1, 1)).astype(np.float32)
CASES = {
    "scaled": lambda w: w * SCALE,
    "scaled from the left": lambda w: SCALE * w,
    "divided and shifted": lambda w: w / SCALE - 1.5,
    "negative": lambda w: -w,
    "function": lambda w: np.square(w),
    "broadcast over inputs": lambda w: w * SCALE[0, 0, 0, 0] + np.ones((5, 1, 1), np.float32),
    "inputs permuted": lambda w: np.take(w, np.array([4, 0, 2, 1]), 1) * SCALE,
    "outputs permuted": lambda w: np.take(w * SCALE, np.array([6, 0, 2, 1, 3, 5, 4]), 0),
    "reshaped": lambda w: w.reshape(7, 45) * SCALE.reshape(7, 1),
    "reshaped by a tuple": lambda w: w.reshape((7, 5, 9)),
}
WHOLE = {
    "more rows": lambda w: w * np.ones((2, 1, 1, 1, 1), np.float32),
    "rows joined": lambda w: w.reshape(35, 9),
    "sum": lambda w: w.sum(axis=0),
    "transposed": lambda w: w.transpose(1, 0, 2, 3),
    "concatenated": lambda w: np.concatenate([w, W], 0),
    "product": lambda w: np.einsum("kcij,k->cij", w, SCALE.reshape(7)),
    "matrix product": lambda w: w @ np.ones((3, 2), np.float32),
    "cut": lambda w: w[1:3, ::2],
}


@pytest.mark.parametrize("name", CASES)
def test_elementwise_functions_stay_row_by_row(name):
    found, expected = CASES[name](row_wise(W)), CASES[name](W)
    assert isinstance(found, RowWise)
    assert found.shape == expected.shape
    assert np.array_equal(some_rows(found, slice(2, 5)), expected[2:5])
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("name", WHOLE)
def test_other_functions_take_the_whole_array(name):
    found, expected = WHOLE[name](row_wise(W)), WHOLE[name](W)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("outputs", [5, 16, 33, 70])
def test_pieces_join_to_the_packed_array(monkeypatch, outputs):
    monkeypatch.setattr(packing, "PIECE", 4000)
    w = RNG.standard_normal((outputs, 19, 3, 3)).astype(np.float32)
    lazy = row_wise(w) * np.float32(2)
    for blocks in (1, 2):
        pieces = list(packing.transformed(lazy, blocks))
        assert len(pieces) == -(-outputs // (16 * blocks))
        assert np.array_equal(np.concatenate(pieces), winograd.pack(w * 2, blocks))
        found = packing.whole(packing.matrix(lazy.reshape(outputs, 171), blocks))
        assert np.array_equal(found, linear.pack((w * 2).reshape(outputs, 171), blocks))
    found = packing.whole(packing.depthwise(row_wise(w[:, :1])))
    assert np.array_equal(found, depthwise.pack(w[:, :1]))


@pytest.mark.parametrize("groups", [1, 2])
def test_panels_hold_each_weight_where_the_direct_kernel_reads_it(groups):
    w = RNG.standard_normal((groups * 40, 21, 2, 3)).astype(np.float32)
    packed = packing.whole(packing.panels(row_wise(w), 2, groups))
    panels, each = 2, 40
    assert packed.shape == (groups * panels, 21 * 6, 32)
    for k, c, i, j in [(0, 0, 0, 0), (33, 17, 1, 2), (39, 20, 0, 1), (groups * 40 - 1, 15, 1, 0)]:
        group, out = divmod(k, each)
        block, lane = divmod(c, 16)
        lanes = min(16, 21 - block * 16)
        row = block * 16 * 6 + (i * 3 + j) * lanes + lane
        assert packed[group * panels + out // 32, row, out % 32] == w[k, c, i, j]
    assert not packed[panels - 1, :, 8:].any(), "outputs beyond the last are zero"


def test_sources_read_large_weights_from_the_file_and_drop_its_pages(tmp_path):
    big = RNG.standard_normal((300, 300)).astype(np.float32)
    save_file({"big": big, "small": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    arrays = read_arrays(tmp_path / "w.safetensors")
    assert mapped_file(arrays["big"]) is mapped_file(arrays["small"]) is not None
    assert mapped_file(big) is None
    sources = Sources(arrays)
    assert isinstance(sources["small"], np.ndarray)
    lazy = sources["big"]
    assert isinstance(lazy, RowWise)
    before = np.asarray(lazy).copy()
    sources.release()
    assert np.array_equal(np.asarray(lazy), before)
    with pytest.raises(KeyError):
        sources["other"]

"""Counter-based random numbers: published vectors, laws, and what each element depends on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OpError, infer
from tilth.runtime.philox import Stream, bits, bits_at, path_hash, philox4x32

KEY = np.array([11, 5], np.uint64)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_philox(counter, key, words) -> None:
    got = philox4x32(np.array(counter, np.uint32)[:, None], key)
    assert tuple(int(w) for w in got[:, 0]) == words


def test_counter_layout() -> None:
    seed, step = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    key = seed ^ path_hash("net.drop")
    counter = np.array([[3], [2], [step & 0xFFFFFFFF], [step >> 32]], np.uint32)
    words = philox4x32(counter, (key & 0xFFFFFFFF, key >> 32))[:, 0]
    drawn = bits(Stream(seed, step, "net.drop", 2), 8)
    assert int(drawn[6]) == int(words[0]) << 32 | int(words[1])
    assert int(drawn[7]) == int(words[2]) << 32 | int(words[3])


def test_some_elements_alone_are_those_of_the_whole() -> None:
    source = Stream(7, 2**33, "order", 1)
    elements = np.array([6, 0, 9, 9, 3])
    np.testing.assert_array_equal(bits_at(source, elements), bits(source, 10)[elements])


@pytest.mark.parametrize("op", ["random_uniform", "random_normal"])
@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_an_element_does_not_depend_on_the_shape(run_op, op, dtype) -> None:
    whole = run_op(op, KEY, path="a", shape=(3, 5), dtype=dtype)
    part = run_op(op, KEY, path="a", shape=(7,), dtype=dtype)
    np.testing.assert_array_equal(whole.reshape(-1)[:7], part)


def test_seed_step_and_path_change_everything(run_op) -> None:
    base = run_op("random_bits", KEY, path="a", shape=(64,), dtype="u64")
    for key, path in (([12, 5], "a"), ([11, 6], "a"), ([11, 5 + 2**40], "a"), (KEY, "b")):
        other = run_op("random_bits", np.array(key, np.uint64), path=path, shape=(64,), dtype="u64")
        assert not np.isin(other, base).any()


def test_types_read_the_top_of_the_same_bits(run_op) -> None:
    full = run_op("random_bits", KEY, path="a", shape=(100,), dtype="u64")
    for dtype in ("u8", "i8", "i32", "i64"):
        top = run_op("random_bits", KEY, path="a", shape=(100,), dtype=dtype)
        width = 8 * top.dtype.itemsize
        assert (
            (top.astype(np.int64) % 2**width if width < 64 else top.view(np.uint64))
            == full >> np.uint64(64 - width)
        ).all()
    single = run_op("random_uniform", KEY, path="a", shape=(100,), dtype="f32")
    double = run_op("random_uniform", KEY, path="a", shape=(100,), dtype="f64")
    assert (double - single >= 0).all() and (double - single < 2**-24).all()
    np.testing.assert_array_equal(double, (full >> np.uint64(11)).astype(float) * 2**-53)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_laws(run_op, dtype) -> None:
    u = run_op("random_uniform", KEY, path="u", shape=(50_000,), dtype=dtype)
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u.astype(float), "uniform").pvalue > 1e-3
    z = run_op("random_normal", KEY, path="z", shape=(50_001,), dtype=dtype)
    assert stats.kstest(z.astype(float), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[0:-1:2], z[1::2])[0, 1]) < 0.02


def test_box_muller_as_documented(run_op) -> None:
    u = run_op("random_uniform", KEY, path="z", shape=(6,), dtype="f64")
    z = run_op("random_normal", KEY, path="z", shape=(6,), dtype="f64")
    for b in range(0, 6, 2):
        radius, angle = math.sqrt(-2 * math.log1p(-u[b])), 2 * math.pi * u[b + 1]
        assert z[b] == pytest.approx(radius * math.cos(angle), rel=1e-12)
        assert z[b + 1] == pytest.approx(radius * math.sin(angle), rel=1e-12)


def test_categorical(run_op) -> None:
    p = np.array([0, 0.2, 0, 0.5, 0.3, 0], np.float32)
    drawn = run_op("random_categorical", np.tile(3 * p, (20_000, 1)), KEY, path="c")
    counts = np.bincount(drawn, minlength=6)
    assert counts[[0, 2, 5]].sum() == 0
    assert stats.chisquare(counts[p > 0], 20_000 * p[p > 0] / p.sum()).pvalue > 1e-3


def test_permutation(run_op) -> None:
    order = run_op("random_permutation", KEY, path="p", size=1001)
    assert sorted(order.tolist()) == list(range(1001))
    assert abs(np.corrcoef(order, np.arange(1001))[0, 1]) < 0.1


def test_faults() -> None:
    with pytest.raises(OpError) as caught:
        infer(
            "random_uniform", [TensorType("u64", (3,))], {"path": "", "shape": (), "dtype": "f32"}
        )
    assert caught.value.code == "E104"
    with pytest.raises(OpError) as caught:
        infer("random_normal", [TensorType("u64", (2,))], {"path": "", "shape": (), "dtype": "i32"})
    assert caught.value.code == "E104"

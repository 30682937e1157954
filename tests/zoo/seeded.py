"""Weights of stored references: drawn by name, so that only names and shapes are stored."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
from tilth.compiler.ir.dims import evaluate
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
ZOO = TESTS.parent / "zoo_specs"
CORPUS = TESTS / "spec" / "elaborated"

RANGES = {"gamma": (0.5, 1.5), "bias": (-0.1, 0.1), "mean": (-0.2, 0.2), "var": (0.5, 1.5)}


def model_of(path, variant=None, overrides=(), sizes=None):
    """The elaborated spec in a file."""
    reporter = Reporter({})
    envelope = read_envelope(path.read_text(encoding="utf-8"), path.name, reporter)
    reporter.raise_if_failed()
    return elaborate(envelope, reporter, variant, overrides, sizes)


def golden(family, case):
    """The arrays and the description of one stored case."""
    manifest = json.loads((GOLDEN / family / "manifest.json").read_text(encoding="utf-8"))
    with np.load(GOLDEN / family / f"{case}.npz") as arrays:
        return dict(arrays), manifest[case]


def generator(key):
    """The random stream of a name."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))


def draw(name, shape, kind, scale):
    """One weight; its values depend on its name only."""
    if kind == "normal":
        values = generator(name).standard_normal(shape)
        values = values * math.sqrt(2.0 / float(np.prod(shape[1:])))
    else:
        values = generator(name).uniform(*RANGES[kind], shape)
    return (values * scale if scale != 1.0 else values).astype(np.float32)


def draw_all(rows):
    """Weights for rows of name, shape, kind and scale."""
    return {name: draw(name, tuple(shape), kind, scale) for name, shape, kind, scale in rows}


def through(model, weights, label="torch"):
    """A checkpoint's weights as the spec's ``weights`` section maps them.

    Several entries for one path are added: where a formula has one bias, torch keeps two.
    """
    found = {}
    for rule in model.envelope.weights[label]:
        if rule.file_name not in weights:
            continue
        ends = [(_end(cut.start, model), _end(cut.stop, model)) for cut in rule.slices]
        part = weights[rule.file_name][tuple(slice(*pair) for pair in ends)]
        found[rule.path] = found[rule.path] + part if rule.path in found else part
    return found


def _end(size, model):
    sizes = {name: value for name, value in model.options.items() if isinstance(value, int)}
    return None if size is None else evaluate(size, sizes)


def error(found, wanted):
    """The largest difference, relative to the largest value of the reference."""
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))

"""Every spec of the zoo that is made of tensor ops compiles for the CPU, and agrees."""

import numpy as np
import pytest
import tilth
from tilth import zoo
from tilth.bench.problem import bench_weights
from tilth.compiled import CompiledProgram, bound_graph
from tilth.compiler import pipeline
from tilth.compiler.ir.types import DTYPES
from tilth.compiler.lower.cpu import lower
from tilth.compiler.lower.target import Target

SMALL = {"N": 2, "T": 5, "H": 64, "W": 64, "P_outcomes": 2}
"""Sizes of symbols; recurrences over images go through each pixel."""

SIZES = {
    "mdrnn": {"H": 4, "W": 5},
    "alexnet": {"H": 96, "W": 96},
    "alexnet_paper": {"N": 1},
    "googlenet_paper": {"H": 224, "W": 224, "N": 1},
    "inception_v3": {"H": 107, "W": 107},
    "inception_v4": {"H": 107, "W": 107},
    "vgg": {"H": 224, "W": 224, "N": 1},
    "nasnet": {"N": 1},
    "scnet": {"H": 128, "W": 128, "N": 1},
}
OPTIONS = {
    "nasnet": {"side": 67},
    "garnet": {"states": 300, "gamma": 0.9},
    "maze": {"rows": 20, "cols": 30},
}

# Inference turns `~` and factors into tensor ops; what it makes of them is tested with it.
CASES = [
    (entry, variant)
    for entry in zoo.entries()
    if entry.family != "probabilistic"
    for variant in (entry.variants or (None,))
]

QUICK = ("recurrent", "decision")
"""Families whose models are small."""

# A policy that is as good: its actions differ where two of them are worth the same to the last bit.
TIES = {"gamblers_problem": "stake"}


def name_of(case):
    entry, variant = case
    return variant or entry.name


def loaded(case):
    entry, variant = case
    return tilth.load(str(entry.path), variant=variant, set=OPTIONS.get(entry.name, {}))


def sizes_of(program, case):
    own = {**SMALL, **SIZES.get(case[0].name, {})}
    sizes = program.nominal_sizes() | own
    return {name: sizes[name] for name in program.graph.symbols}


def inputs_of(program, sizes):
    rng = np.random.default_rng(0)
    made = {}
    for name, kind in program.inputs.items():
        shape, dtype = kind.bind(sizes).shape, DTYPES[kind.dtype]
        if name.endswith(".probability"):
            made[name] = np.full(shape, 1 / shape[-1], dtype)
        elif name.endswith(".done"):
            made[name] = np.zeros(shape, dtype)
        elif dtype.kind == "f":
            made[name] = rng.standard_normal(shape).astype(dtype)
        else:
            made[name] = rng.integers(0, 3, shape).astype(dtype)
    return made


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_it_lowers(case):
    program = loaded(case)
    graph = pipeline.run(bound_graph(program, sizes_of(program, case))).graph
    assert lower(graph, Target(8, 2)).rows


def agrees(case, threads):
    program = loaded(case)
    sizes = sizes_of(program, case)
    inputs = inputs_of(program, sizes)
    weights = bench_weights(program, sizes, 0)
    doubles = any(kind.dtype == "f64" for kind in program.outputs.values())
    expected = program.run(inputs, weights, precision=None if doubles else "f64")
    found = CompiledProgram(program, weights, threads).run(inputs)
    for key, reference in expected.items():
        if TIES.get(case[0].name) == key:
            continue
        assert found[key].shape == reference.shape
        gap = np.abs(found[key] - reference.astype(np.float64)).max(initial=0)
        assert gap <= 1e-4 * np.abs(reference).max(initial=0), f"{key}: {gap}"


@pytest.mark.parametrize("case", [c for c in CASES if c[0].family in QUICK], ids=name_of)
def test_small_models_agree_with_the_reference(case):
    agrees(case, threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c[0].family not in QUICK], ids=name_of)
def test_images_agree_with_the_reference(case):
    agrees(case, threads=2)

"""Elaborated zoo specs, and the weights and inputs that reference outputs were made with."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from tilth import zoo
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import Model, elaborate
from tilth.spec.envelope import load_envelope

RANGES = {"gamma": (0.5, 1.5), "bias": (-0.1, 0.1), "mean": (-0.2, 0.2), "var": (0.5, 1.5)}


@pytest.fixture(scope="session")
def zoo_model() -> Callable[..., Model]:
    """``zoo_model(name, *overrides)``: a spec or variant of the zoo, elaborated once."""

    @cache
    def model(name: str, *overrides: str) -> Model:
        found = zoo.find(name)
        assert found is not None, f"the zoo has no {name}"
        entry, variant = found
        reporter = Reporter()
        envelope = load_envelope(entry.path, reporter)
        reporter.raise_if_failed()
        assert envelope is not None
        return elaborate(envelope, reporter, variant, overrides)

    return model


@pytest.fixture(scope="session")
def det() -> Callable[..., np.ndarray]:
    """``det(name, shape, kind, scale)``: a reference net's tensor; it depends on its name alone."""

    def tensor(name: str, shape: Sequence[int], kind: str, scale: float = 1.0) -> np.ndarray:
        generator = philox(name)
        if kind == "normal":
            values = generator.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))
        else:
            values = generator.uniform(*RANGES[kind], shape)
        return (values * scale).astype(np.float32)

    return tensor


@pytest.fixture(scope="session")
def reference_input() -> Callable[..., np.ndarray]:
    """``reference_input(key, shape, sha256)``: the standard normal input of a reference output."""

    def array(key: str, shape: Sequence[int], sha256: str) -> np.ndarray:
        values = philox(key).standard_normal(shape).astype(np.float32)
        assert hashlib.sha256(values.tobytes()).hexdigest() == sha256
        return values

    return array


def philox(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))

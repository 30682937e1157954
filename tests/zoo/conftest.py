"""Elaborated specs and variants of the zoo, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from seeded import model_of
from tilth import zoo
from tilth.spec.elaborate import Model


@pytest.fixture(scope="session")
def zoo_model() -> Callable[..., Model]:
    """``zoo_model(name, *overrides)``: a spec or variant of the zoo."""

    @cache
    def model(name: str, *overrides: str) -> Model:
        found = zoo.find(name)
        assert found is not None, f"the zoo has no {name}"
        entry, variant = found
        return model_of(entry.path, variant, overrides)

    return model

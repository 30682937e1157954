"""The discrete cosine transform and robust PCA, written as formulas, against scipy and numpy."""

import numpy as np
import pytest
from seeded import CORPUS, error, golden, model_of
from tilth.compiler.interpret import interpret


def test_dct_of_blocks():
    arrays, _ = golden("signal", "dct")
    model = model_of(CORPUS / "dct.yaml")
    image = arrays["image"][None] - 128
    found = interpret(model.graph, {"x": image}, {}, precision="f64")["y"]
    assert found.shape == (1, 3, 8, 4, 8)
    assert error(found[0].swapaxes(1, 2), arrays["blocks8x8"]) < 1e-12


def options(arrays):
    start = float(1.25 / np.linalg.norm(arrays["D"], 2))
    return [f"lam={float(arrays['lam'])!r}", f"mu0={start!r}"]


def test_robust_pca():
    arrays, _ = golden("signal", "rpca_admm")
    model = model_of(CORPUS / "rpca.yaml", None, options(arrays))
    found = interpret(model.graph, {"M": arrays["D"]}, {})
    assert error(found["L"], arrays["adaptive_A"]) < 1e-5
    assert error(found["S"], arrays["adaptive_E"]) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_robust_pca_step_by_step(steps):
    arrays, _ = golden("signal", "rpca_admm")
    low_rank, sparse = arrays["adaptive_A"], arrays["adaptive_E"]
    if steps <= 3:
        low_rank, sparse, _ = arrays["adaptive_first3_AEY"][steps - 1]
    model = model_of(CORPUS / "rpca_shift.yaml", None, [*options(arrays), f"K={steps}"])
    found = interpret(model.graph, {"M": arrays["D"]}, {})
    assert error(found["L[K-1]"], low_rank) < 1e-8
    assert error(found["S[K-1]"], sparse) < 1e-8

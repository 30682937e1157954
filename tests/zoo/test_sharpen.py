"""A dense random field sharpens a noisy labelling of a real photograph."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


def test_labelling_of_a_photograph_improves():
    import sharpen

    image = sharpen.picture()[40:120, 20:120].copy()
    truth = sharpen.labels(image)
    before = sharpen.noisy(truth)
    after = sharpen.sharpened(image, before, engine="reference")
    wrong = [float(np.mean(found != truth)) for found in (before, after)]
    assert wrong[0] > 0.15
    assert wrong[1] < 0.6 * wrong[0]

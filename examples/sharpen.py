"""A noisy labelling of a photograph sharpened by a dense random field, with before and after.

The labels are sky, building and trees of scikit-learn's picture of a temple, by colour alone; the
noisy labelling has a third of its pixels drawn anew, in blocks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image
from tilth.program import load

COLOURS = np.array([[90, 160, 230], [210, 120, 60], [40, 120, 50]], np.uint8)
SURE = 0.7
BLOCK = 4
THIN = 2
"""Every how many pixels the labelled picture has one."""


def picture() -> np.ndarray:
    """The photograph ``u8[H, W, 3]``, small."""
    whole = load_sample_image("china.jpg")[: 424 // BLOCK * BLOCK]
    return np.ascontiguousarray(whole[::THIN, ::THIN])


def labels(image: np.ndarray) -> np.ndarray:
    """Sky (bluish and bright), trees (greenish or dark), building (what is left): ``i64[H, W]``."""
    red, green, blue = (image[..., c].astype(float) for c in range(3))
    found = np.ones(image.shape[:2], np.int64)
    found[(blue > red + 5) & (blue > 120) | (red + green + blue > 600)] = 0
    found[(green > red) & (green > blue) | (red + green + blue < 200)] = 2
    return found


def noisy(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """A third of the pixels drawn anew, in small blocks."""
    rng = np.random.default_rng(seed)
    small = tuple(-(-n // BLOCK) for n in truth.shape)
    anew = np.kron(rng.random(small) < 1 / 3, np.ones((BLOCK, BLOCK), bool))
    drawn = np.kron(rng.integers(0, 3, small), np.ones((BLOCK, BLOCK), np.int64))
    height, width = truth.shape
    return np.where(anew[:height, :width], drawn[:height, :width], truth)


def sharpened(image: np.ndarray, label: np.ndarray, engine: str = "cpu") -> np.ndarray:
    """The most probable labels of a dense random field ``i64[H, W]``."""
    chance = np.full((3, *label.shape), (1 - SURE) / 2, np.float32)
    np.put_along_axis(chance, label[None], SURE, 0)
    options = {"L": 3, "theta_alpha": 40, "theta_beta": 12, "steps": 5}
    program = load("dense_crf", variant="dense_crf_normalised", set=options)
    inputs = {"unary": -np.log(chance), "image": image.transpose(2, 0, 1).astype(np.float32)}
    return program.run(inputs, engine=engine)["q"].argmax(-1)


def save(image: np.ndarray, parts: list[np.ndarray], path: Path) -> None:
    """The photograph and labellings side by side, as a PNG."""
    shown = [image, *(COLOURS[part] // 2 + image // 2 for part in parts)]
    Image.fromarray(np.concatenate(shown, axis=1)).save(path)


def sharpen(path: Path) -> tuple[float, float]:
    """Write before and after; the shares of pixels that are right in each."""
    image = picture()
    truth = labels(image)
    before = noisy(truth)
    after = sharpened(image, before)
    save(image, [before, after], path)
    return float((before == truth).mean()), float((after == truth).mean())

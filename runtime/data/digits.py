"""``digits``: 1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn.

They are the test half of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak 1998).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..faults import RuntimeFault
from .dataset import ArrayDataset, Dataset
from .parts import split
from .pictures import stored

if TYPE_CHECKING:
    from .sources import Source

PARTS = {"train": 0.8, "test": 0.2}
LEVELS = 16
"""Pixels count from 0 to 16."""


def digits(source: Source) -> Mapping[str, Dataset]:
    """Fields ``image`` f32[1, 8, 8] in 0 to 1 and ``label``.

    Unless the source splits it, in the parts ``train`` (1,438) and ``test`` (359), always the
    same. Raises :class:`RuntimeFault` E804 without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        message = "the data set `digits` comes with scikit-learn, which is not installed"
        raise RuntimeFault("E804", message, "pip install 'tilth[data]'") from error
    found: Any = load_digits()
    pictures = found.images.astype(np.float32)[:, None] / LEVELS
    labels = found.target.astype(np.int32)
    arrays, affine = stored(pictures, source)
    classes = [str(digit) for digit in range(10)]
    whole = ArrayDataset({"image": arrays, "label": labels}, {"label": classes},
                         {"image": affine}, "the digits")  # fmt: skip
    return {"all": whole} if isinstance(source.split, Mapping) else split(whole, PARTS, 0)

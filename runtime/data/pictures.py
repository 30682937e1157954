"""Arrays of pictures: recognised, brought to ``[N, C, H, W]``, scaled, normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..faults import RuntimeFault
from .dataset import Affine

if TYPE_CHECKING:
    from .sources import Source


def is_pictures(array: np.ndarray) -> bool:
    """Whether an array holds pictures: bytes, ``[N, H, W]`` or with an axis of channels."""
    return array.dtype == np.uint8 and array.ndim in (3, 4)


def channels_first(array: np.ndarray) -> np.ndarray:
    """``[N, C, H, W]`` from ``[N, H, W]``, ``[N, H, W, C]`` or itself; C is 1, 3 or 4."""
    if array.ndim == 3:
        return array[:, None]
    if array.shape[1] not in (1, 3, 4) and array.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


def stored(pictures: np.ndarray, source: Source) -> tuple[np.ndarray, Affine]:
    """Pictures ``[N, C, H, W]`` as they are kept, and what makes numbers of them.

    They are scaled to ``source.size`` and keep their type; bytes go from 0 to 1 when they are
    taken, then the mean is subtracted and the standard deviation divided by.
    """
    if source.size is not None and pictures.shape[2:] != tuple(source.size):
        pictures = resized(pictures, source.size)
    return pictures, normalisation(source, pictures.shape[1], pictures.dtype == np.uint8)


def normalisation(source: Source, channels: int, bytes_: bool = True) -> Affine:
    """How stored pictures become numbers, by the mean and deviation of the source."""
    mean = _by_channel(source.mean, "mean", 0.0, channels, source)
    std = _by_channel(source.std, "std", 1.0, channels, source)
    scale = 1 / ((255 if bytes_ else 1) * std)
    return Affine(scale.astype(np.float32), (-mean / std).astype(np.float32))


def resized(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures ``[N, C, H, W]`` at another height and width: bilinear, averaged when smaller."""
    count, channels = pictures.shape[:2]
    made = np.empty((count, channels, *size), pictures.dtype)
    for plane, out in zip(_planes(pictures), _planes(made), strict=True):
        picture = Image.fromarray(np.ascontiguousarray(plane))
        out[:] = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return made


def _planes(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(-1, *pictures.shape[2:])


def _by_channel(
    values: tuple[float, ...] | None, what: str, default: float, channels: int, source: Source
) -> np.ndarray:
    given = (default,) if values is None else values
    if len(given) not in (1, channels):
        message = f"`{what}` of {source.name} has {len(given)} values for {channels} channels"
        raise RuntimeFault("E807", message)
    return np.broadcast_to(np.array(given, np.float64), (channels,)).copy()

"""A picture as the tensor that a vision model reads: RGB, resized, normalised, NCHW float32.

The steps and their roundings are those of torchvision's evaluation transforms.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .faults import RuntimeFault, unreadable

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How a picture is fitted and normalised.

    ``fit`` is ``crop`` (the shorter side to the model's size over ``crop_ratio``, then the centre),
    ``stretch`` (each side to the model's size) or ``keep`` (the picture's own size). ``mean`` and
    ``std`` are of channels in 0 to 1; ``None`` is ImageNet's for three channels, 0 and 1 for one.
    """

    fit: str = "crop"
    crop_ratio: float = 0.875
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_image(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int = 3,
    preprocess: Preprocess | None = None,
) -> np.ndarray:
    """The picture as ``[1, channels, height, width]`` float32.

    ``size`` is (height, width), or ``None`` to keep the picture's own. A rotation in the EXIF data
    is applied, transparency is laid on white. Raises :class:`RuntimeFault` E803 for a file that is
    missing or broken and E802 for a number of channels that no picture has.
    """
    how = preprocess or Preprocess()
    if channels not in (1, 3):
        message = f"a picture cannot fill an input of {channels} channels"
        raise RuntimeFault("E802", message, "pictures have 3 channels, or 1 when grey")
    picture = open_image(path).convert("L" if channels == 1 else "RGB")
    if size is not None and how.fit != "keep":
        picture = _stretch(picture, size) if how.fit == "stretch" else _crop(picture, size, how)
    pixels = np.asarray(picture, np.float32).reshape(picture.height, picture.width, channels) / 255
    mean, std = _normalisation(how, channels)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture upright, in mode RGB or L; raises :class:`RuntimeFault` E803."""
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        raise unreadable(path, "it is not a picture, or a broken one") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


# ---------------------------------------------------------------- helpers


def _from_16_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own conversion cuts at 255 instead of scaling.
    wide = np.clip(np.asarray(picture, np.int64), 0, 65535)
    return Image.fromarray((wide // 257).astype(np.uint8))


def _stretch(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _crop(picture: Image.Image, size: tuple[int, int], how: Preprocess) -> Image.Image:
    height, width = size
    # The scale at which both sides cover the crop; for a square, the shorter side decides.
    tall, wide = round(height / how.crop_ratio), round(width / how.crop_ratio)
    if picture.height * wide >= picture.width * tall:
        scaled = (int(wide * picture.height / picture.width), wide)
    else:
        scaled = (tall, int(tall * picture.width / picture.height))
    picture = _stretch(picture, (max(scaled[0], height), max(scaled[1], width)))
    top, left = round((picture.height - height) / 2), round((picture.width - width) / 2)
    return picture.crop((left, top, left + width, top + height))


def _normalisation(how: Preprocess, channels: int) -> tuple[np.ndarray, np.ndarray]:
    plain = {1: ((0.0,), (1.0,)), 3: (IMAGENET_MEAN, IMAGENET_STD)}[channels]
    given = (how.mean or plain[0], how.std or plain[1])
    for what, values in zip(("mean", "standard deviation"), given, strict=True):
        if len(values) not in (1, channels):
            message = f"the {what} has {len(values)} values for {channels} channels"
            raise RuntimeFault("E802", message)
    if not all(value > 0 for value in given[1]):
        raise RuntimeFault("E802", "the standard deviation must be above 0")
    return np.array(given[0], np.float32), np.array(given[1], np.float32)

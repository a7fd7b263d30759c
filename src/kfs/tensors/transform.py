"""Images as arrays to other sizes and orientations."""

from __future__ import annotations

import enum

import cv2
import numpy as np

from kfs.tensors.arrays import Array
from kfs.tensors.images import max_pixels


class Scale(enum.Enum):
    """How an image comes to a size of other proportions.

    STRETCH changes the proportions, FIT keeps them and adds a border, CROP keeps them and cuts
    what is too much.
    """

    STRETCH = enum.auto()
    FIT = enum.auto()
    CROP = enum.auto()


def resize(
    pixels: Array,
    height: int,
    width: int,
    scale: Scale = Scale.STRETCH,
    border: tuple[int, int, int] | None = (0, 0, 0),
    *,
    nearest: bool = False,
) -> tuple[Array, tuple[float, float, float, float]]:
    """An image of height x width pixels.

    Args:
        pixels: [H,W,C].
        border: the colour that FIT adds; None for the outermost pixels again.

    Returns:
        The image, and its borders left, top, right and bottom as parts of its size.

    Raises:
        ValueError: it is so long or so high that it cannot be cut: few pixels would be billions.
    """
    rows, columns, channels = pixels.shape
    if scale is Scale.STRETCH:
        return _resize(pixels, height, width, nearest=nearest), (0.0, 0.0, 0.0, 0.0)
    choose = min if scale is Scale.FIT else max
    factor = choose(width / columns, height / rows)
    inner = max(round(rows * factor), 1), max(round(columns * factor), 1)
    if scale is Scale.CROP and inner[0] * inner[1] > max_pixels():
        raise ValueError(
            f"expected an image of at most {max_pixels()} pixels before it is cut; found "
            f"{rows}x{columns}, which becomes {inner[0]}x{inner[1]}"
        )
    inner_pixels = _resize(pixels, *inner, nearest=nearest)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    if scale is Scale.CROP:
        cut = inner_pixels[-top : height - top, -left : width - left]
        return np.ascontiguousarray(cut), (0.0, 0.0, 0.0, 0.0)
    bottom, right = height - inner[0] - top, width - inner[1] - left
    how = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    value = (*(border or (0, 0, 0)), 255)
    framed = cv2.copyMakeBorder(inner_pixels, top, bottom, left, right, how, value=value)
    parts = (left / width, top / height, right / width, bottom / height)
    return framed.reshape(height, width, channels), parts


def _resize(pixels: Array, height: int, width: int, *, nearest: bool) -> Array:
    if pixels.shape[:2] == (height, width):
        return pixels
    if nearest:
        how = cv2.INTER_NEAREST
    elif pixels.shape[0] > height and pixels.shape[1] > width:
        how = cv2.INTER_AREA
    else:
        how = cv2.INTER_LINEAR
    resized: Array = cv2.resize(pixels, (width, height), interpolation=how)
    return resized.reshape(height, width, pixels.shape[2])

"""Random changes of stored pictures. Takes an op of the spec; gives a function of (uint8 (frames, height, width, 3), 64-bit key) to
an array of the same shape: pure, the same draw for all frames, the argument left as it is. Called by `augmenter`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from orchestration.data.config import ColourConfig, CropConfig, FlipConfig, RotateConfig
from orchestration.data.rng import mix, share

Change = Callable[[np.ndarray, int], np.ndarray]

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green, blue: ITU-R BT.601, as Pillow's own grey
BILINEAR = Image.Resampling.BILINEAR


def build(op: Any) -> Change:
    """The change that an op (CropConfig, RotateConfig, FlipConfig, ColourConfig) describes."""
    changes: dict[str, Callable[[np.ndarray, int, Any], np.ndarray]] = {
        "crop": _crop,
        "rotate": _rotate,
        "flip": _flip,
        "colour": _colour,
    }
    change = changes[op.op]
    return lambda frames_FHWC, key: change(frames_FHWC, key, op)


def uniform(key: int, counter: int, low: float, high: float) -> float:
    return low + (high - low) * share(mix(key, counter))


def _crop(frames_FHWC: np.ndarray, key: int, op: CropConfig) -> np.ndarray:
    """A part of the same shape: its area first, then its place."""
    height, width = frames_FHWC.shape[1:3]
    side = math.sqrt(uniform(key, 0, *op.scale))
    left, top = uniform(key, 1, 0, width * (1 - side)), uniform(key, 2, 0, height * (1 - side))
    box = (left, top, min(width, left + width * side), min(height, top + height * side))
    return _each(frames_FHWC, lambda image: image.resize((width, height), BILINEAR, box))


def _rotate(frames_FHWC: np.ndarray, key: int, op: RotateConfig) -> np.ndarray:
    """About the middle. What comes in from outside repeats the edge: the picture is padded by as far as its corners reach."""
    height, width = frames_FHWC.shape[1:3]
    angle = math.radians(uniform(key, 0, -op.degrees, op.degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    pad_x = math.ceil(max(0.0, abs(cos) * width + abs(sin) * height - width) / 2) + 1
    pad_y = math.ceil(max(0.0, abs(sin) * width + abs(cos) * height - height) / 2) + 1
    padded = _padded(frames_FHWC, pad_y, pad_x)
    x, y = width / 2, height / 2
    # output place -> input place: turned about the middle, then moved by the padding
    matrix = (cos, sin, x + pad_x - cos * x - sin * y, -sin, cos, y + pad_y + sin * x - cos * y)
    return _each(padded, lambda image: image.transform((width, height), Image.Transform.AFFINE, matrix, BILINEAR))


def _padded(frames_FHWC: np.ndarray, pad_y: int, pad_x: int) -> np.ndarray:
    """Edges repeated outwards; five block copies, a fifth of the time of numpy.pad."""
    frames, height, width, _ = frames_FHWC.shape
    padded = np.empty((frames, height + 2 * pad_y, width + 2 * pad_x, 3), np.uint8)
    middle = padded[:, pad_y : pad_y + height]
    middle[:, :, pad_x : pad_x + width] = frames_FHWC
    middle[:, :, :pad_x], middle[:, :, pad_x + width :] = frames_FHWC[:, :, :1], frames_FHWC[:, :, -1:]
    padded[:, :pad_y], padded[:, pad_y + height :] = middle[:, :1], middle[:, -1:]
    return padded


def _flip(frames_FHWC: np.ndarray, key: int, op: FlipConfig) -> np.ndarray:
    if share(mix(key, 0)) >= op.rate:
        return frames_FHWC
    mirror = Image.Transpose.FLIP_LEFT_RIGHT if op.axis == "horizontal" else Image.Transpose.FLIP_TOP_BOTTOM
    return _each(frames_FHWC, lambda image: image.transpose(mirror))


def _colour(frames_FHWC: np.ndarray, key: int, op: ColourConfig) -> np.ndarray:
    """Brightness b, contrast c about the mean grey, saturation s about each pixel's grey. Without rounding in between the three
    are one affine map of the colour: s b c x + (1 - s) b c grey(x) + (1 - c) b mean."""
    b, c, s = (
        uniform(key, counter, 1 - most, 1 + most)
        for counter, most in enumerate((op.brightness, op.contrast, op.saturation))
    )
    width = frames_FHWC.shape[2]
    rows_sum = frames_FHWC.reshape(-1, 3 * width).sum(axis=0, dtype=np.uint32)  # whole rows first: ten times as fast
    sums = rows_sum.reshape(width, 3).sum(axis=0, dtype=np.int64)
    mean = float(LUMA @ sums) / (frames_FHWC.size // 3)
    matrix_34 = np.empty((3, 4))
    matrix_34[:, :3] = s * b * c * np.eye(3) + (1 - s) * b * c * LUMA
    matrix_34[:, 3] = (1 - c) * b * mean
    values = tuple(matrix_34.ravel().tolist())
    return _each(frames_FHWC, lambda image: image.convert("RGB", values))


def _each(frames_FHWC: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    changed = [np.asarray(change(Image.fromarray(frame))) for frame in frames_FHWC]
    return np.stack(changed) if len(changed) > 1 else changed[0][None]

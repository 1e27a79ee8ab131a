"""Random changes of stored sounds and series. Takes an op of the spec; gives a function of (int16 samples or float32 (steps,
columns), 64-bit key) to an array of the same shape and type: pure, the argument left as it is. Called by `augmenter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from orchestration.data.augment.image import Change, uniform
from orchestration.data.config import FrequencyMaskConfig, NoiseConfig, TimeMaskConfig
from orchestration.data.rng import mix, mix_array

NOISE = 1  # counter of the key that the noise itself is drawn below
PARTS = np.uint64(0x0000FFFF0000FFFF)  # every other 16 bits of 64
MEAN = 4 * 0xFFFF / 2  # of the sum of four uniform whole numbers of 16 bits
DEVIATION = (4 * ((1 << 32) - 1) / 12) ** 0.5


def build(op: Any) -> Change:
    """The change that an op (NoiseConfig, TimeMaskConfig, FrequencyMaskConfig) describes."""
    changes: dict[str, Callable[[np.ndarray, int, Any], np.ndarray]] = {
        "noise": _noise,
        "time_mask": _time_mask,
        "frequency_mask": _frequency_mask,
    }
    change = changes[op.op]
    return lambda array, key: change(array, key, op) if array.size else array


def white_noise(key: int, count: int) -> np.ndarray:
    """float64 (count), mean 0, deviation 1: the sum of four uniform numbers of 16 bits (Irwin-Hall, within 3.5 deviations). Whole
    numbers up to the last step, so every machine gets the same."""
    number_N = mix_array(key, np.arange(count))
    pair_N = (number_N & PARTS) + ((number_N >> np.uint64(16)) & PARTS)
    sum_N = (pair_N & np.uint64(0xFFFFFFFF)) + (pair_N >> np.uint64(32))
    return (sum_N.astype(np.float64) - MEAN) / DEVIATION


def _noise(array: np.ndarray, key: int, op: NoiseConfig) -> np.ndarray:
    """At a ratio to the signal's power; of a series to the power about each column's mean, since where its zero lies is no sound."""
    scale = 10 ** (-uniform(key, 0, *op.snr_db) / 20)
    noise = white_noise(mix(key, NOISE), array.size).reshape(array.shape)
    values = array.astype(np.float64)
    if array.ndim == 1:
        return _int16(values + noise * (scale * (values @ values / len(values)) ** 0.5))
    return (values + noise * (scale * values.std(axis=0))).astype(np.float32)


def _time_mask(array: np.ndarray, key: int, op: TimeMaskConfig) -> np.ndarray:
    """Stretches become silence; of a series each column's mean, which is SpecAugment's zero there."""
    masked = array.copy()
    fill = 0 if array.ndim == 1 else array.mean(axis=0, dtype=np.float64).astype(np.float32)
    for start, end in _stretches(key, op.count, op.share, len(array)):
        masked[start:end] = fill
    return masked


def _frequency_mask(samples: np.ndarray, key: int, op: FrequencyMaskConfig) -> np.ndarray:
    """Bands become zero in the spectrum of the whole sound, padded to a length that transforms fast."""
    from scipy import fft

    length = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples.astype(np.float32), length)
    for start, end in _stretches(key, op.count, op.share, len(spectrum)):
        spectrum[start:end] = 0
    return _int16(fft.irfft(spectrum, length)[: len(samples)])


def _stretches(key: int, count: int, most: float, length: int) -> Iterator[tuple[int, int]]:
    """`count` stretches of 0 ... length, each uniform in its share up to `most` and then in its place."""
    for number in range(count):
        size = round(uniform(key, 2 * number, 0, most) * length)
        start = round(uniform(key, 2 * number + 1, 0, length - size))
        yield start, start + size


def _int16(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(-32768, 32767).astype(np.int16)

"""Baselines of classes and numbers for rows with media: what simple numbers of each picture, sound or series tell by a linear model. Takes
splits of a store and what the model reads; gives features and the names under which reports show them. Called by the evaluation in Ray
tasks; a baseline sees the rows that the model saw and no more.

Pictures: the mean colour, and pixels averaged to 8 x 8. Sounds: mean and deviation of the energy in 16 bands, and the length. Series: each
column's mean, deviation, ends and mean step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SIDE = 8  # of the small picture
BANDS = 16
WINDOW = 256  # samples of a spectrum


def features(split: Any, reads: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Name -> (N, F) numbers of each row; zeros for a row without."""
    every = np.arange(len(split))
    found: dict[str, np.ndarray] = {}
    for kind in reads:
        for name, measure in MEASURES.get(kind, {}).items():
            found[name] = _rows([None if array is None else measure(array) for array in split.media(kind, every)])
    if len(found) > 1 and len({kind for kind in reads if kind in MEASURES}) > 1:
        found["all_media"] = np.concatenate(list(found.values()), axis=1)
    return found


def classes(train: Any, held: Any, reads: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Baseline -> class of each held row, by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return _fitted(
        train, held, reads, np.asarray(train.labels), "logistic regression", LogisticRegression(max_iter=1000)
    )


def numbers(train: Any, held: Any, reads: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Baseline -> number of each held row, by ridge regression."""
    from sklearn.linear_model import Ridge

    return _fitted(train, held, reads, np.asarray(train.values, np.float64), "ridge", Ridge())


def _fitted(
    train: Any, held: Any, reads: tuple[str, ...], wanted: np.ndarray, shown: str, model: Any
) -> dict[str, np.ndarray]:
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, asked = features(train, reads), features(held, reads)
    found = {}
    for name, values_NF in seen.items():
        line = make_pipeline(StandardScaler(), clone(model)).fit(values_NF, wanted)
        found[f"{name}_+_{shown.replace(' ', '_')}"] = line.predict(asked[name])
    return found


def _rows(found: list[np.ndarray | None]) -> np.ndarray:
    width = next((len(one) for one in found if one is not None), 1)
    return np.stack([np.zeros(width) if one is None else one for one in found])


def _colour(pixels_FSS3: np.ndarray) -> np.ndarray:
    return pixels_FSS3.mean(axis=(0, 1, 2)) / 255


def _small(pixels_FSS3: np.ndarray) -> np.ndarray:
    """Each frame's pixels, averaged to SIDE x SIDE."""
    edges = np.linspace(0, pixels_FSS3.shape[1], SIDE + 1).astype(int)[:-1]
    sums_F883 = np.add.reduceat(np.add.reduceat(pixels_FSS3.astype(np.float64), edges, 1), edges, 2)
    size = np.diff([*edges, pixels_FSS3.shape[1]])
    means: np.ndarray = sums_F883 / (size[:, None, None] * size[None, :, None]) / 255
    return means.ravel()


def _bands(samples_T: np.ndarray) -> np.ndarray:
    """Log energy by band: mean and deviation over windows; and the logarithm of the length."""
    count = max(1, len(samples_T) // WINDOW)
    padded = np.zeros(count * WINDOW)
    padded[: min(len(samples_T), len(padded))] = samples_T[: len(padded)] / 32768
    power_NF = np.abs(np.fft.rfft(padded.reshape(count, WINDOW) * np.hanning(WINDOW), axis=1))[:, 1:] ** 2
    energy_NB = np.log10(power_NF.reshape(count, BANDS, -1).sum(2) + 1e-8)
    return np.concatenate([energy_NB.mean(0), energy_NB.std(0), [np.log10(len(samples_T))]])


def _course(steps_TC: np.ndarray) -> np.ndarray:
    change_C = np.abs(np.diff(steps_TC, axis=0)).mean(0) if len(steps_TC) > 1 else np.zeros(steps_TC.shape[1])
    return np.concatenate([steps_TC.mean(0), steps_TC.std(0), steps_TC[0], steps_TC[-1], change_C])


MEASURES: Mapping[str, Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "image": {"mean_colour": _colour, "8x8_pixels": _small},
    "audio": {"energy_by_band": _bands},
    "series": {"course": _course},
}

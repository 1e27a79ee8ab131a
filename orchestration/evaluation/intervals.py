"""How far a score would move on other rows: bootstrap intervals (Efron 1979), 95%, by percentiles. Takes true classes and guesses, or
what each row adds to a score; gives plain numbers. Called by the evaluation of every task.

Rows drawn again and again with replacement are, for anything that is computed from counts, counts drawn from a multinomial
distribution: a thousand draws of 2,000 rows cost milliseconds. Of other scores each row's part is drawn as a whole; rows that are held
against each other (`Task.group`) are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

DRAWS = 1000
SHARE = 0.95
TOGETHER = 50  # draws in one product: (draws x rows) numbers are held
Interval = list[float]  # low, high


def of_scores(labels_N: np.ndarray, guess_N: np.ndarray, classes: int, *, seed: int = 0) -> dict[str, Interval]:
    """`{"accuracy", "macro_f1"}`: the interval that holds the score in 95% of the draws. Macro F1 as the report has it: over classes that
    occur among a draw's rows or guesses."""
    counts_K = np.bincount(labels_N * classes + guess_N, minlength=classes * classes)
    drawn_DK = np.random.default_rng(seed).multinomial(len(labels_N), counts_K / counts_K.sum(), size=DRAWS)
    drawn_DCC = drawn_DK.reshape(DRAWS, classes, classes)
    hits_DC = np.diagonal(drawn_DCC, axis1=1, axis2=2)
    seen_DC = drawn_DCC.sum(1) + drawn_DCC.sum(2)  # 2 hits + misses + false alarms
    f1_DC = np.divide(2.0 * hits_DC, seen_DC, out=np.zeros(seen_DC.shape), where=seen_DC > 0)
    return {
        "accuracy": _middle(hits_DC.sum(1) / len(labels_N)),
        "macro_f1": _middle(f1_DC.sum(1) / (seen_DC > 0).sum(1)),
    }


def of_gain(labels_N: np.ndarray, guess_N: np.ndarray, other_N: np.ndarray, *, seed: int = 0) -> Interval:
    """Accuracy of `guess_N` less that of `other_N` on the same rows: above 0 throughout, the difference is no luck of the rows."""
    gains_N = (guess_N == labels_N).astype(np.int64) - (other_N == labels_N)
    counts_3 = np.bincount(gains_N + 1, minlength=3)
    drawn_D3 = np.random.default_rng(seed).multinomial(len(labels_N), counts_3 / counts_3.sum(), size=DRAWS)
    return _middle((drawn_D3[:, 2] - drawn_D3[:, 0]) / len(labels_N))


def of_tallies(
    parts_UT: np.ndarray, scores: Callable[[np.ndarray], Mapping[str, float]], *, seed: int = 0
) -> dict[str, Interval]:
    """Of every score that `scores` computes of parts added up. `parts_UT`: what each of U units (rows, or groups of them) adds. A score that some
    draw does not have, or that is not finite there, has no interval."""
    units = len(parts_UT)
    if units < 2:
        return {}
    draw, found = np.random.default_rng(seed), []
    for at in range(0, DRAWS, TOGETHER):
        times_DU = draw.multinomial(units, np.full(units, 1 / units), size=min(TOGETHER, DRAWS - at))
        found += [scores(total_T) for total_T in times_DU.astype(np.float64) @ parts_UT]
    shared = [name for name in found[0] if all(np.isfinite(one.get(name, np.nan)) for one in found)]
    return {name: _middle(np.array([one[name] for one in found])) for name in shared}


def of_means(values: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, Interval]:
    """Of scores that are the mean of one number a row. `values`: name -> (N,)."""
    names, parts_NT = list(values), np.stack(list(values.values()), axis=1)
    return of_tallies(parts_NT, lambda total_T: dict(zip(names, total_T / len(parts_NT), strict=True)), seed=seed)


def _middle(scores_D: np.ndarray) -> Interval:
    tail = (1 - SHARE) / 2
    return [float(value) for value in np.quantile(scores_D, [tail, 1 - tail])]

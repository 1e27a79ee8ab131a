"""How far a score would move on other rows: bootstrap intervals (Efron 1979), 95%, by percentiles. Takes true classes and guesses; gives
plain numbers. Called by the evaluation of a classifier.

Rows drawn again and again with replacement are, for anything that is computed from counts, counts drawn from a multinomial
distribution: a thousand draws of 2,000 rows cost milliseconds."""

from __future__ import annotations

import numpy as np

DRAWS = 1000
SHARE = 0.95
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


def _middle(scores_D: np.ndarray) -> Interval:
    tail = (1 - SHARE) / 2
    return [float(value) for value in np.quantile(scores_D, [tail, 1 - tail])]

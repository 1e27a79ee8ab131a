"""Whether a classifier's probabilities mean what they say, and how well they rank. Takes probabilities and true classes; gives plain
values and the points of curves. Called by the evaluation of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 10


def calibration(chance_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, Any]:
    """`ece`: the expected calibration error (Naeini et al. 2015; Guo et al. 2017), the mean distance over rows between the probability of
    the label that was given and how often that was right, in ten bins of equal width. `bins`: those that hold rows."""
    sure_N, right_N = chance_NC.max(1), chance_NC.argmax(1) == labels_N
    bin_N = np.minimum((sure_N * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in np.unique(bin_N).tolist():
        held_N = bin_N == number
        bins.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "rows": int(held_N.sum()),
                "probability": float(sure_N[held_N].mean()),
                "accuracy": float(right_N[held_N].mean()),
            }
        )
    return {"ece": sum(b["rows"] * abs(b["probability"] - b["accuracy"]) for b in bins) / len(labels_N), "bins": bins}


def ranking(chance_NC: np.ndarray, labels_N: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Of each class that some rows have and others have not, against all others: area under the ROC curve, and average precision."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = {}
    for number, name in enumerate(names):
        own_N = labels_N == number
        if 0 < own_N.sum() < len(own_N):
            found[name] = {
                "roc_auc": float(roc_auc_score(own_N, chance_NC[:, number])),
                "average_precision": float(average_precision_score(own_N, chance_NC[:, number])),
            }
    return found


def chances(logits_NC: np.ndarray) -> np.ndarray:
    """Softmax in double precision."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    exponent_NC = np.exp(shifted_NC)
    found: np.ndarray = exponent_NC / exponent_NC.sum(axis=1, keepdims=True)
    return found

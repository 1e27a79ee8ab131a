"""Where a classifier is better and worse: its scores on parts of the rows, by source and by length. Takes guesses and what the store
knows of each row; gives plain values. Called by the evaluation of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestration.evaluation import intervals

QUARTERS = 4
FEWEST = 10  # rows of a slice that is told: an interval of fewer says nothing


def slices(
    labels_N: np.ndarray, guess_N: np.ndarray, classes: int, *, lengths_N: np.ndarray, sources: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """By source, where there are several, then by quarters of the lengths in tokens. Each: name, rows, accuracy and macro F1 with their
    95% intervals."""
    parts = sources if len(sources) > 1 else {}
    named = [(f"source {name}", held_N) for name, held_N in parts.items()] + _quarters(lengths_N)
    found = []
    for name, held_N in named:
        if held_N.sum() < FEWEST:
            continue
        wanted, guess = labels_N[held_N], guess_N[held_N]
        found.append({"slice": name, "rows": len(wanted), **scores(wanted, guess, classes)})
    return found


def scores(labels_N: np.ndarray, guess_N: np.ndarray, classes: int) -> dict[str, Any]:
    from sklearn.metrics import f1_score

    return {
        "accuracy": float((labels_N == guess_N).mean()),
        "macro_f1": float(f1_score(labels_N, guess_N, average="macro", zero_division=0)),
        "intervals": intervals.of_scores(labels_N, guess_N, classes),
    }


def _quarters(lengths_N: np.ndarray) -> list[tuple[str, np.ndarray]]:
    cuts = np.unique(np.quantile(lengths_N, np.linspace(0, 1, QUARTERS + 1)).astype(np.int64))
    if len(cuts) < 3:  # all of about one length
        return []
    found = []
    for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        first = low if low == cuts[0] else low + 1
        found.append((f"{first} to {high} tokens", (lengths_N >= first) & (lengths_N <= high)))
    return found

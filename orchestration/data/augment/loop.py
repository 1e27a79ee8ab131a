"""How many copies each training row gets. Takes a hash a row (uint64, random to the eye) and what is wanted; gives copies a row or
which rows stay. Called by `decide` on the driver after the counting pass. Pure, and exact in total: the rows that get one copy
more than others, or that leave, are those of the smallest hashes, so neither files nor their order matter.

With this the loop of augmentation is closed: the wanted amount becomes copies a row here, `Augmenter.texts` picks and applies the
ops of each copy, filters it and draws again what fails."""

from __future__ import annotations

import numpy as np

MOST_COPIES = 32_767  # a row; stores number copies in 16 signed bits


def wanted_copies(hash_N: np.ndarray, until: int) -> np.ndarray:
    """Copies a row (int64 N) so that rows and copies together are `until`; none where there are that many rows already."""
    rows = len(hash_N)
    return _spread(hash_N, max(until - rows, 0)) if rows else np.zeros(0, np.int64)


def balanced_copies(label_N: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Copies a row (int64 N) so that every class has as many rows with copies as the largest has without."""
    copies_N = np.zeros(len(label_N), np.int64)
    classes, counts = np.unique(label_N, return_counts=True)
    for label, count in zip(classes, counts, strict=True):
        rows = np.flatnonzero(label_N == label)
        copies_N[rows] = _spread(hash_N[rows], int(counts.max() - count))
    return copies_N


def balanced_rows(label_N: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Which rows stay (bool N) so that every class has as many as the smallest."""
    stays_N = np.zeros(len(label_N), bool)
    classes, counts = np.unique(label_N, return_counts=True)
    for label in classes:
        rows = np.flatnonzero(label_N == label)
        stays_N[rows[_ranking(hash_N[rows])[: counts.min()]]] = True
    return stays_N


def _spread(hash_N: np.ndarray, total: int) -> np.ndarray:
    """`total` copies over the rows, as evenly as whole numbers allow."""
    each, over = divmod(total, len(hash_N))
    copies_N = np.full(len(hash_N), each, np.int64)
    copies_N[_ranking(hash_N)[:over]] += 1
    return np.minimum(copies_N, MOST_COPIES)


def _ranking(hash_N: np.ndarray) -> np.ndarray:
    return np.argsort(hash_N, kind="stable")

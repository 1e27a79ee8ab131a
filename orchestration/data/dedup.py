"""Exact duplicates. Takes the hashes of normalised texts and the row ids of all rows; gives which rows stay. Called by
`prepare` on the driver. Pure numpy: hashes are uint64 (N, 2), the high half first, so they compare as their bytes do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Duplicates:
    """`keep_N`: True for the row with the smallest id of each text. `conflicts`: dropped rows whose label differs from
    the kept row's."""

    keep_N: np.ndarray
    conflicts: int


def find_duplicates(text_N2: np.ndarray, row_id_N2: np.ndarray, label_N: np.ndarray) -> Duplicates:
    """Keep one row a text. The choice depends on row ids alone, so not on the order of files or workers."""
    order = np.lexsort((row_id_N2[:, 1], row_id_N2[:, 0], text_N2[:, 1], text_N2[:, 0]))
    text = text_N2[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (text[1:] != text[:-1]).any(axis=1)
    keep_N = np.zeros(len(order), dtype=bool)
    keep_N[order[first]] = True
    if not len(order):
        return Duplicates(keep_N, 0)
    label = label_N[order]
    kept_label = label[first][np.cumsum(first) - 1]
    return Duplicates(keep_N, int((label != kept_label).sum()))


def hashes(digests: bytes) -> np.ndarray:
    """16-byte digests end to end -> uint64 (N, 2), high half first."""
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)

"""Exact duplicates. Takes the hashes of normalised texts and the row ids of all rows; gives which rows stay, or (`Seen`) which texts
have come before. Called by `prepare` on the driver. Pure numpy: hashes are uint64 (N, 2), the high half first, so they compare as their bytes do."""

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


class Seen:
    """Texts that have come, with the label of the row that stays; 20 bytes each (a dictionary: 160).

    They lie in runs sorted by their high half, each more than twice as long as the next, so adding part after part moves a text
    log2(all / part) times at most.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # high half, low half, label

    def labels(self, text_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """found_N (bool), label_N (int32; -1 where not found)."""
        found_N, label_N = np.zeros(len(text_N2), bool), np.full(len(text_N2), -1, np.int32)
        for high_K, low_K, label_K in self._runs:
            place_N, rows = np.searchsorted(high_K, text_N2[:, 0]), np.arange(len(text_N2))
            while len(rows):  # twice at most, but for texts whose high halves happen to be equal
                rows = rows[place_N[rows] < len(high_K)]
                rows = rows[high_K[place_N[rows]] == text_N2[rows, 0]]
                same = low_K[place_N[rows]] == text_N2[rows, 1]
                found_N[rows[same]], label_N[rows[same]] = True, label_K[place_N[rows[same]]]
                rows = rows[~same]
                place_N[rows] += 1
        return found_N, label_N

    def add(self, text_K2: np.ndarray, label_K: np.ndarray) -> None:
        """Texts that are neither here nor twice among the new ones."""
        order = np.argsort(text_K2[:, 0], kind="stable")
        run = (text_K2[order, 0], text_K2[order, 1], label_K[order].astype(np.int32))
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            columns = list(self._runs.pop())
            places = np.searchsorted(columns[0], run[0])
            for number, new in enumerate(run):  # one at a time, so that two copies of one column are held at most
                columns[number] = np.insert(columns[number], places, new)
            run = (columns[0], columns[1], columns[2])
        self._runs.append(run)


def hashes(digests: bytes) -> np.ndarray:
    """16-byte digests end to end -> uint64 (N, 2), high half first."""
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)

"""Exact duplicates. Takes the hashes of normalised texts and the row ids of all rows; gives which rows stay, or (`Seen`) which texts
have come before. Called by `prepare` on the driver. Pure numpy: hashes are uint64 (N, 2), the high half first, so they compare as their bytes do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

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


Run = tuple[np.ndarray, np.ndarray, np.ndarray]  # high half (rising), low half, label
_COLUMNS: tuple[np.dtype[Any], ...] = (np.dtype("<u8"), np.dtype("<u8"), np.dtype("<i4"))
BLOCK = 1 << 16  # rows merged at once: 1.3 MB of each side


class Seen:
    """Texts that have come, with the label of the row that stays: 20 bytes each, in mapped files without a name. In memory they took 40,
    since arrays that grow by steps leave holes behind; of files the system keeps what there is room for, and none outlives us.

    They lie in runs sorted by their high half, each more than twice as long as the next, so adding part after part moves a text
    log2(all / part) times at most.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []

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
        if not len(text_K2):
            return  # an empty file cannot be mapped
        order = np.argsort(text_K2[:, 0], kind="stable")
        run = _mapped([(text_K2[order, 0], text_K2[order, 1], label_K[order])], len(order))
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            longer = self._runs.pop()
            run = _mapped(_merged(longer, run), len(longer[0]) + len(run[0]))
        self._runs.append(run)


def _merged(one: Run, two: Run) -> Iterator[Run]:
    """Both in order, in parts: BLOCK rows of `two` with the rows of `one` among them."""
    at = 0
    for start in range(0, len(two[0]), BLOCK):
        new = [column[start : start + BLOCK] for column in two]
        end = int(np.searchsorted(one[0], new[0][-1])) if start + BLOCK < len(two[0]) else len(one[0])
        places = np.searchsorted(one[0][at:end], new[0])
        high, low, label = (np.insert(old[at:end], places, more) for old, more in zip(one, new, strict=True))
        yield high, low, label
        at = end


def _mapped(parts: Iterable[Run], rows: int) -> Run:
    """Parts of `rows` rows in all, column by column in a file that has no name: gone with the last map of it, even after kill -9."""
    starts = [rows * sum(dtype.itemsize for dtype in _COLUMNS[:number]) for number in range(len(_COLUMNS))]
    with tempfile.TemporaryFile(prefix="eagleray-seen-") as handle:
        done = 0
        for part in parts:
            for column, dtype, start in zip(part, _COLUMNS, starts, strict=True):
                handle.seek(start + done * dtype.itemsize)
                handle.write(np.ascontiguousarray(column, dtype).data)
            done += len(part[0])
        handle.flush()
        maps = zip(_COLUMNS, starts, strict=True)
        high, low, label = (np.memmap(handle, dtype, "r", offset=start, shape=(rows,)) for dtype, start in maps)
        return high, low, label


def hashes(digests: bytes) -> np.ndarray:
    """16-byte digests end to end -> uint64 (N, 2), high half first."""
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)

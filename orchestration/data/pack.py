"""Packing: several short rows in one entry of at most `capacity` tokens, so that little of a batch is padding. Takes lengths (or
the Entries of a tokenizer); gives which rows go together, and their tokens side by side. Called by `prepare`; knows neither texts
nor models. Best fit decreasing (Johnson 1974): the longest row first, each into the fullest entry that still holds it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from orchestration.data.tokenize import Entries


@dataclass(frozen=True)
class Packed:
    """B bins of T tokens in all, made of E rows. Bin b has the tokens values[offsets[b]:offsets[b+1]]; it is made of the rows
    bounds[b]:bounds[b+1] of the fields that end in E, in this order."""

    values_T: np.ndarray  # int32
    offsets_B1: np.ndarray  # int64
    segments_E: np.ndarray  # int32: tokens of each row
    rows_E: np.ndarray  # int64: which text it comes from
    parts_E: np.ndarray  # int16: which window of it
    bounds_B1: np.ndarray  # int64

    def __len__(self) -> int:
        return len(self.offsets_B1) - 1


def best_fit(lengths_N: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """`order_N, bounds_B1` (int64): bin b holds the rows order[bounds[b]:bounds[b+1]], longest first. Equal lengths go by index.
    Raises ValueError for a row above `capacity`. Takes about a microsecond a row: rows of one length and bins with the same
    room are handled together, and a whole number has a bit for each room that some bin has."""
    lengths_N = np.asarray(lengths_N, dtype=np.int64)
    if len(lengths_N) and int(lengths_N.max()) > capacity:
        row = int(lengths_N.argmax())
        raise ValueError(f"row {row} has {int(lengths_N[row])} tokens, above the capacity of {capacity}")
    sorted_N = np.argsort(-lengths_N, kind="stable")
    kinds, counts = np.unique(lengths_N, return_counts=True)
    bins = _Bins(capacity)
    for length, count in zip(kinds[::-1].tolist(), counts[::-1].tolist(), strict=True):
        bins.place(length, count)
    bin_N = np.concatenate(bins.placed) if bins.placed else np.zeros(0, np.int64)
    order_N = sorted_N[np.argsort(bin_N, kind="stable")]
    bounds_B1 = np.concatenate([[0], np.cumsum(np.bincount(bin_N, minlength=bins.count))])
    return order_N, bounds_B1.astype(np.int64)


class _Bins:
    """Open bins by their room. `placed` collects the bins of the rows in the order of `place`."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self.placed: list[np.ndarray] = []
        self._by_room: defaultdict[int, list[int]] = defaultdict(list)
        self._rooms = 0  # bit r: some bin has room r

    def place(self, length: int, count: int) -> None:
        """Places `count` rows of `length`, none longer than the ones before."""
        while count:
            room, bins = self._tightest(length, count)
            each = min(count, room // length) if length else count  # the fullest bin stays the fullest until it is full
            used = -(-count // each)
            chosen, left = bins[:used], bins[used:]
            self._put(room, left)
            fits = min(count, len(chosen) * each)
            self.placed.append(np.repeat(np.array(chosen, np.int64), each)[:fits])
            partly = fits % each  # rows in the last bin, where it is not filled like the others
            whole = len(chosen) - (partly > 0)
            self._put(room - each * length, chosen[:whole])
            self._put(room - partly * length, chosen[whole:])
            count -= fits

    def _tightest(self, length: int, count: int) -> tuple[int, list[int]]:
        """All bins of the smallest room for `length`, taken out; new ones where there is none."""
        above = self._rooms >> length
        if above:
            room = length + (above & -above).bit_length() - 1
            self._rooms ^= 1 << room
            return room, self._by_room.pop(room)
        new = -(-count // (self.capacity // length)) if length else 1
        self.count += new
        return self.capacity, list(range(self.count - new, self.count))

    def _put(self, room: int, bins: list[int]) -> None:
        if bins:
            self._by_room[room] += bins
            self._rooms |= 1 << room


def pack(entries: Entries, capacity: int) -> Packed:
    """The tokens of `entries` in bins of at most `capacity`. Raises ValueError for an entry above it."""
    lengths_E = np.diff(entries.offsets_E1)
    order_E, bounds_B1 = best_fit(lengths_E, capacity)
    segments_E = lengths_E[order_E]
    ends_E1 = np.concatenate([[0], np.cumsum(segments_E)])
    source_T = np.arange(ends_E1[-1]) + np.repeat(entries.offsets_E1[:-1][order_E] - ends_E1[:-1], segments_E)
    return Packed(
        values_T=entries.values_T[source_T],
        offsets_B1=ends_E1[bounds_B1],
        segments_E=segments_E.astype(np.int32),
        rows_E=entries.row_E[order_E],
        parts_E=entries.part_E[order_E],
        bounds_B1=bounds_B1,
    )

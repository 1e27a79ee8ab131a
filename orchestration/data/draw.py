"""The line of an epoch: which row stands at which place, in random order, so that any stretch is computed by itself. Takes how
rows lie in sources or shards and a salt (fingerprint, seed, epoch); gives rows by place. `orchestration.data.order` cuts batches
from it. Knows neither lengths nor batches."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from orchestration.data import rng


class Line(Protocol):
    """`rows` places in random order. `ends`: where its parts end (int64), the last at `rows`; a part is shuffled by itself."""

    rows: int
    ends: np.ndarray

    def take(self, start: int, stop: int) -> np.ndarray:
        """Row indices (int64) at these places, in random order."""


@dataclass(frozen=True)
class Stream:
    """Rows 0, 1, ... lie in shards of `shard_rows` rows, which are made in this order. `complete`: no more will come.

    Rows are shuffled among `window` shards, windows in order. A batch of window j holds rows of windows up to j alone (a window's
    remainder goes into the first batches of the next), so a store still growing gives the same batches as the whole one.
    """

    shard_rows: Sequence[int]
    window: int
    complete: bool = True


@dataclass(frozen=True)
class Mix:
    """Sources as arrays of row indices, with their weights, from which an epoch draws in proportion, spread evenly.

    `stop`: "first" ends an epoch before the first source would repeat a row, "all" when every row of every source has come; smaller
    sources repeat, each time in another order, so no row comes more than once more often than another of its source.
    """

    sources: Sequence[np.ndarray]
    weights: Sequence[float]
    stop: Literal["first", "all"] = "all"

    @classmethod
    def by_row(cls, sources_N: np.ndarray, weights: Sequence[float], stop: Literal["first", "all"] = "all") -> Mix:
        """From the number of each row's source, an index into `weights`."""
        rows = np.argsort(sources_N, kind="stable")
        cuts = np.searchsorted(sources_N[rows], np.arange(1, len(weights)))
        return cls(np.split(rows, cuts), weights, stop)


class Shuffled:
    """A permutation for each window of shards."""

    def __init__(self, stream: Stream, salt: tuple[Any, ...]) -> None:
        ends = np.cumsum(np.asarray(stream.shard_rows, dtype=np.int64))
        last = len(ends) if stream.complete else len(ends) // stream.window * stream.window
        chosen = [*range(stream.window, last, stream.window), last] if last else []
        self.ends = np.array([ends[count - 1] for count in chosen], dtype=np.int64)
        self.rows = int(self.ends[-1]) if chosen else 0
        self._salt = salt

    def take(self, start: int, stop: int) -> np.ndarray:
        found = [np.empty(0, np.int64)]
        for part in range(int(np.searchsorted(self.ends, start, side="right")), len(self.ends)):
            first, end = int(self.ends[part - 1]) if part else 0, int(self.ends[part])
            if first >= stop:
                break
            shuffle = rng.Permutation(rng.key("rows", *self._salt, part), end - first)
            found.append(first + shuffle(np.arange(max(start, first), min(stop, end)) - first))
        return np.concatenate(found)


class Mixed:
    """Draw k (from 0) of source s has the time (k + 1/2) / share of s. The epoch is the draws in order of (time, source): of any
    first p draws each source has p x its share, rounded (Webster's method of apportionment, also known as Sainte-Lague's)."""

    def __init__(self, mix: Mix, salt: tuple[Any, ...]) -> None:
        there = [number for number, rows in enumerate(mix.sources) if len(rows)]
        self._numbers, self._sources = there, [mix.sources[number] for number in there]
        weights = np.array([mix.weights[number] for number in there], dtype=np.float64)
        self._share_S, self._salt = weights / weights.sum(), salt
        self.rows = self._end(mix.stop) if there else 0
        self.ends = np.array([self.rows], dtype=np.int64)

    def take(self, start: int, stop: int) -> np.ndarray:
        spans = zip(self._before(start), self._before(stop), strict=True)
        rows = np.concatenate([np.empty(0, np.int64), *(self._draws(s, *span) for s, span in enumerate(spans))])
        return rows[rng.permutation(rng.key("mixed", *self._salt, start), len(rows))]

    def _draws(self, source: int, start: int, stop: int) -> np.ndarray:
        """Draws start ... stop-1 of a source. Each round through its rows has an order of its own."""
        rows, found = self._sources[source], [np.empty(0, np.int64)]
        size = len(rows)
        for turn in range(start // size, -(-stop // size)):
            shuffle = rng.Permutation(rng.key("mixed rows", *self._salt, self._numbers[source], turn), size)
            places = np.arange(max(start, turn * size), min(stop, (turn + 1) * size)) - turn * size
            found.append(np.asarray(rows[shuffle(places)], dtype=np.int64))
        return np.concatenate(found)

    def _time(self, source: int, draw: int) -> tuple[float, int]:
        return (draw + 0.5) / float(self._share_S[source]), source

    def _before(self, place: int) -> list[int]:
        """Draws of each source among the first `place`."""
        sources = range(len(self._sources))
        # At time p - S at most p - S/2 draws have come; the rest is dealt out one by one, at most 3/2 S.
        count = [int(max(0.0, place - len(sources)) * self._share_S[s] + 0.5) for s in sources]
        waiting = [self._time(s, count[s]) for s in sources]
        heapq.heapify(waiting)
        for _ in range(place - sum(count)):
            source = waiting[0][1]
            count[source] += 1
            heapq.heapreplace(waiting, self._time(source, count[source]))
        return count

    def _end(self, stop: str) -> int:
        """Draws of the epoch: those before the first repetition, or up to the last row to come for the first time."""
        sources = range(len(self._sources))
        if stop == "first":
            end = min(self._time(s, len(self._sources[s])) for s in sources)
        else:
            end = max(self._time(s, len(self._sources[s]) - 1) for s in sources)
        return sum(self._until(s, end) for s in sources) + (stop == "all")

    def _until(self, source: int, end: tuple[float, int]) -> int:
        """Draws of a source before a time."""
        count = int(end[0] * self._share_S[source] + 0.5)
        while self._time(source, count) < end:
            count += 1
        while count and self._time(source, count - 1) >= end:
            count -= 1
        return count

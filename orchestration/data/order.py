"""The order in which rows are trained. Takes what a store and a spec fix (fingerprint, lengths, seed, epoch); gives any global
batch of an epoch and each rank's part of it. Called by the feed on every rank: all ranks compute the same, nothing is
exchanged, and a position is just (epoch, batch index). Knows neither Ray nor torch.

An epoch is a line of rows in random order (`orchestration.data.draw`), and any stretch of it is computed by itself: batch 10
million costs what batch 10 costs, nothing is replayed. Padding is what mixed lengths cost. So the line is taken in windows of
about WINDOW_BATCHES batches; a window's rows are sorted by length and cut into batches, which come in random order: lengths
within a batch are alike, while which rows meet is random. What is left at the end of the line is the last, short batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from orchestration.data import rng
from orchestration.data.draw import Line, Mix, Mixed, Shuffled, Stream

WINDOW_BATCHES = 50
WINDOWS_KEPT = 2  # a window serves about 50 steps; the one before is still asked for where two readers alternate


class Lengths(Protocol):
    """Tokens a row: an array, mapped or not, or whatever looks up the rows it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows_K: Any, /) -> np.ndarray: ...


class Epoch:
    """The global batches of one epoch. Pure: equal arguments give equal batches anywhere; none depends on those before it.

    `mix`: draw from weighted sources. `stream`: shuffle within windows of shards, in the order in which these are made. Without
    both every row comes exactly once. Every batch has `batch` rows except the last, which holds the remainder.
    """

    def __init__(
        self,
        fingerprint: str,
        lengths: Lengths,
        *,
        batch: int,
        seed: int,
        epoch: int,
        mix: Mix | None = None,
        stream: Stream | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch={batch}; a batch has at least one row")
        if mix and stream:
            raise ValueError(
                "mixing needs all rows of all sources, which a stream does not know; leave one of the two out"
            )
        self.lengths, self.batch_rows = lengths, batch
        self._salt = (fingerprint, seed, epoch)
        stream = stream or Stream([len(lengths)], window=1)
        self.complete = stream.complete  # False: more shards may come
        self._window_shards, self._shards = stream.window, len(stream.shard_rows)
        self._line: Line = Mixed(mix, self._salt) if mix else Shuffled(stream, self._salt)
        self._ends = self._line.ends // batch  # in whole batches
        self._kept: dict[int, list[np.ndarray]] = {}  # by first batch: the windows asked for last

    @property
    def rows(self) -> int:
        """Rows of the epoch, repeated ones counted again; of a stream still growing those that can be batched now."""
        rows = self._line.rows
        return rows if self.complete else rows // self.batch_rows * self.batch_rows

    def __len__(self) -> int:
        """Batches; of a stream still growing those that can be had now."""
        return -(-self.rows // self.batch_rows)

    def shards_needed(self, number: int) -> int:
        """How many shards of the stream must exist for batch `number`: exact where it can be had now, else a lower bound."""
        needed = (int(np.searchsorted(self._ends, number, side="right")) + 1) * self._window_shards
        return needed if number >= len(self) else min(needed, self._shards)

    def batch(self, number: int) -> np.ndarray:
        """Row indices (int64) of batch `number`, not to be written to. Raises IndexError outside 0 ... len-1."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        first, stop = self._window(number)
        if first not in self._kept:
            if len(self._kept) == WINDOWS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[first] = self._cut(first, stop)
        return self._kept[first][number - first]

    def _window(self, number: int) -> tuple[int, int]:
        """First batch and end of the window that holds batch `number`. The windows of a part are equal to one batch."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        if part == len(self._ends):
            return number, number + 1  # the remainder at the end of the line
        first, count = int(self._ends[part - 1]) if part else 0, int(self._ends[part])
        count -= first
        windows = max(1, round(count / WINDOW_BATCHES))
        place = ((number - first + 1) * windows - 1) // count  # the last window that starts at or before `number`
        return first + place * count // windows, first + (place + 1) * count // windows

    def _cut(self, first: int, stop: int) -> list[np.ndarray]:
        """The batches of a window."""
        size = self.batch_rows
        rows = self._line.take(first * size, min(stop * size, self._line.rows))
        if stop - first == 1:
            return [rows]
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        order = rng.permutation(rng.key("batches", *self._salt, first), stop - first)
        return [rows[i * size : (i + 1) * size] for i in order.tolist()]


# -------------------------------------------------------------------------------------------------------- ranks


def rank_micro_batches(
    batch_indices: np.ndarray,
    lengths: Lengths,
    *,
    rank: int,
    world: int,
    micro_batch: int | None = None,
    micro_tokens: int | None = None,
) -> list[np.ndarray]:
    """This rank's micro-batches of one global batch: of at most `micro_batch` rows, or of at most `micro_tokens` tokens with
    padding (a longer row goes alone). Every rank gets equally many (the loss is reduced in step); over all ranks each row
    occurs once. Where rows do not suffice, some are empty: the caller runs those with zero weight.

    Rows are sorted by length and cut into world x count pieces; neighbouring pieces, alike in length, go to different ranks for
    the same step, first rank first in one step and last rank first in the next.
    """
    if (
        not 0 <= rank < world
        or (micro_batch is None) == (micro_tokens is None)
        or (micro_batch or micro_tokens or 0) < 1
    ):
        raise ValueError(
            f"rank={rank}, world={world}, micro_batch={micro_batch}, micro_tokens={micro_tokens}: rank must be below world, and"
            " one of the other two a positive number"
        )
    rows = longest_first(batch_indices, lengths)
    if micro_tokens is None:
        pieces = np.array_split(rows, world * max(1, -(-len(rows) // (world * int(micro_batch or 1)))))
    else:
        pieces = _halved(cut_by_tokens(rows, lengths, micro_tokens, world), world)
    count = len(pieces) // world
    return [pieces[step * world + (rank if step % 2 == 0 else world - 1 - rank)] for step in range(count)]


def rank_groups(batch_indices: np.ndarray, *, rank: int, world: int, group: int) -> list[np.ndarray]:
    """This rank's micro-batches where `group` rows belong together: the batch in its order, cut each `group` rows, dealt out in turn. Which
    rows share a group does not depend on the number of workers. Every rank gets equally many; some may be empty."""
    pieces = [batch_indices[at : at + group] for at in range(0, len(batch_indices), group)]
    pieces += [np.empty(0, np.int64)] * (-len(pieces) % world)
    return pieces[rank::world]


def longest_first(rows: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Ties by row index: the result must not depend on the order before."""
    return rows[np.lexsort((rows, -np.asarray(lengths[rows], dtype=np.int64)))]


def cut_by_tokens(rows: np.ndarray, lengths: Lengths, tokens: int, world: int = 1) -> list[np.ndarray]:
    """Rows, longest first, in pieces of at most `tokens` with padding; at least one row each. Of so many pieces as that takes
    (rounded up to the world's size) the largest is as small as can be: ranks wait for the largest of a step."""
    widths = np.asarray(lengths[rows], dtype=np.int64).tolist()
    wanted = -(-len(_sizes(widths, tokens)) // world) * world
    if not wanted:
        return []
    low = min(tokens, sum(widths) // wanted)
    least = bisect_left(range(low, tokens), True, key=lambda budget: len(_sizes(widths, budget)) <= wanted)
    return np.split(rows, np.cumsum(_sizes(widths, low + least))[:-1])


def _sizes(widths: list[int], tokens: int) -> list[int]:
    """Rows of each piece when every piece takes all it may."""
    sizes, start = [], 0
    while start < len(widths):
        sizes.append(min(len(widths) - start, max(1, tokens // max(1, widths[start]))))
        start += sizes[-1]
    return sizes


def _halved(pieces: list[np.ndarray], world: int) -> list[np.ndarray]:
    """A multiple of `world` pieces: those with most rows are halved; where none has two, empty ones follow."""
    while not pieces or len(pieces) % world:
        largest = max(range(len(pieces)), key=lambda i: len(pieces[i]), default=0)
        if not pieces or len(pieces[largest]) < 2:
            pieces.append(np.empty(0, np.int64))
        else:
            pieces[largest : largest + 1] = np.array_split(pieces[largest], 2)
    return pieces


def padding(lengths: Lengths, micro_batches: Sequence[np.ndarray]) -> float:
    """Share of token positions that are padding when each micro-batch is padded to its longest row."""
    widths = [np.asarray(lengths[rows], dtype=np.int64) for rows in micro_batches if len(rows)]
    padded = sum(int(found.max()) * len(found) for found in widths)
    return (padded - sum(int(found.sum()) for found in widths)) / padded if padded else 0.0

"""Near duplicates: which rows of a corpus stay. Takes the features (`sketch`) of all units and all row ids on the driver; of
each group of rows joined by pairs of at least `threshold` similarity the one with the smallest id stays. Called by
`prepare`. Rows are ranked by id first and only ranks are compared after that, so the order of units, files or workers
changes nothing. Knows nothing of texts, records, labels or files.

Sources: candidates by LSH, Leskovec et al., Mining of Massive Datasets, 3.4; each candidate is checked by the Jaccard
similarity of the shingles themselves, for long rows by the smallest hashes of their union (Cohen and Kaplan, "Summarizing
data using bottom-k sketches", PODC 2007)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestration.data.config import NearDuplicatesConfig
from orchestration.data.sketch import MOST_HASHES, Features, banding

FEW = 32  # rows in one bucket that are all compared with each other
SAMPLE = 64  # hashes that tell most unlike rows apart, at a small part of the cost
BATCH = 1 << 21  # hashes compared at once: 16 MB a table

_NONE = np.uint32(0xFFFFFFFF)  # a hash that is left out of comparisons, to fill tables up


@dataclass(frozen=True)
class Groups:
    """`root_N`: the row with the smallest id of each row's group (int64; of a row alone, itself). `pairs`: similar pairs that were
    needed to join them, of `compared` candidates; pairs within a group already joined are not looked at."""

    root_N: np.ndarray
    pairs: int
    compared: int

    @property
    def keep_N(self) -> np.ndarray:
        """False for every row of a group but its root."""
        return self.root_N == np.arange(len(self.root_N))

    @property
    def groups(self) -> int:
        """Of two rows or more."""
        return len(np.unique(self.root_N[~self.keep_N]))


def groups(parts: Sequence[Features], row_id_N2: np.ndarray, config: NearDuplicatesConfig) -> Groups:
    """Which rows stay. `parts` end to end are the N rows of `row_id_N2` (uint64, high half first). Memory: about 60 bytes
    a row (one band at a time) beside `parts`, which may be mapped files."""
    table = _Table(parts, np.lexsort((row_id_N2[:, 1], row_id_N2[:, 0])), config.threshold)
    root_N = np.arange(len(row_id_N2))  # from here on a row is its rank by id, so a group's root is its smallest id
    pairs = compared = 0
    for band in range(banding(config)[0] if len(root_N) else 0):
        for candidates in _candidates(table.band(band), root_N):
            similar = table.similar(candidates)
            pairs, compared = pairs + len(similar), compared + len(candidates)
            _unite(root_N, similar)
    by_row_N = np.empty_like(root_N)
    by_row_N[table.order_N] = table.order_N[_roots(root_N, root_N)]
    return Groups(by_row_N, pairs, compared)


def _candidates(keys_N: np.ndarray, root_N: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (int64, P x 2) of rows with equal keys that are not in one group yet. The caller joins what is similar before it
    asks for more, so a group costs about as many comparisons as it has rows."""
    member, bucket = _buckets(keys_N)
    if not len(member):
        return
    size = np.bincount(bucket)[bucket]
    few, many = size <= FEW, size > FEW
    yield from _all_pairs(member[few], bucket[few], root_N)
    yield from _leaders(member[many], bucket[many], root_N)


def _buckets(keys_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, number of their bucket) of all buckets of two rows or more, rows rising in each."""
    order = np.argsort(keys_N)
    equal = np.zeros(len(order) + 1, bool)
    ordered = keys_N[order]
    equal[1:-1] = ordered[1:] == ordered[:-1]
    inside = equal[1:] | equal[:-1]
    member, bucket = order[inside], np.cumsum(~equal[:-1])[inside]
    bucket = np.cumsum(np.diff(bucket, prepend=bucket[:1]) > 0)
    return member[np.lexsort((member, bucket))], bucket


def _all_pairs(member: np.ndarray, bucket: np.ndarray, root_N: np.ndarray) -> Iterator[np.ndarray]:
    """Nearest places first, twice as many each time: few large batches, and what is joined early is not compared again."""
    lowest = 1
    while lowest < FEW:
        shifts = [_shifted(member, bucket, shift) for shift in range(lowest, min(2 * lowest, FEW))]
        pairs_P2 = np.concatenate(shifts)
        if not len(pairs_P2):
            return
        yield _apart(pairs_P2, root_N)
        lowest *= 2


def _shifted(member: np.ndarray, bucket: np.ndarray, shift: int) -> np.ndarray:
    """Each row with the one `shift` places behind it in its bucket."""
    near = np.flatnonzero(bucket[shift:] == bucket[:-shift])
    return np.stack([member[near], member[near + shift]], axis=1)


def _leaders(member: np.ndarray, bucket: np.ndarray, root_N: np.ndarray) -> Iterator[np.ndarray]:
    """Buckets too large for all pairs. The smallest row is compared with all others, then the smallest that is in no earlier
    leader's group, FEW times at most; after that each row still alone with its neighbour. So a bucket of m rows costs
    at most FEW x m comparisons, and m if all are alike; similar rows missed here meet in other bands."""
    alone = np.ones(len(member), bool)
    for _ in range(FEW):
        waiting = np.flatnonzero(alone)
        if not len(waiting):
            return
        numbers, first = np.unique(bucket[waiting], return_index=True)
        leader_of = np.full(int(bucket.max()) + 1, -1)
        leader_of[numbers] = member[waiting[first]]
        led = np.flatnonzero(leader_of[bucket] >= 0)
        pairs = np.stack([leader_of[bucket[led]], member[led]], axis=1)
        yield _apart(pairs, root_N)
        alone[led] &= _roots(root_N, pairs[:, 0]) != _roots(root_N, pairs[:, 1])
    yield _apart(_shifted(member[alone], bucket[alone], 1), root_N)


def _apart(pairs_P2: np.ndarray, root_N: np.ndarray) -> np.ndarray:
    return pairs_P2[_roots(root_N, pairs_P2[:, 0]) != _roots(root_N, pairs_P2[:, 1])]


def _batches(pairs: np.ndarray, hashes: int) -> Iterator[np.ndarray]:
    step = BATCH // hashes
    return (pairs[start : start + step] for start in range(0, len(pairs), step))


def _roots(root_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
    found = root_N[rows]
    while not np.array_equal(found, above := root_N[found]):
        found = above
    return found


def _unite(root_N: np.ndarray, pairs_P2: np.ndarray) -> None:
    """Join the groups of each pair, in place."""
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    if not len(pairs_P2):
        return
    nodes, ends = np.unique(_roots(root_N, pairs_P2.ravel()), return_inverse=True)
    left, right = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)  # nodes rise, so the first is the smallest
    root_N[nodes] = nodes[first[component]]


class _Table:
    """Bands and hashes of all rows by rank, whichever part holds them."""

    def __init__(self, parts: Sequence[Features], order_N: np.ndarray, threshold: float) -> None:
        self.order_N, self._parts, self._threshold = order_N, parts, threshold
        self._starts = np.cumsum([0] + [len(part) for part in parts])
        if self._starts[-1] != len(order_N):
            raise ValueError(f"features of {self._starts[-1]} rows, but {len(order_N)} row ids")
        counts = [np.diff(part.offsets_N1).astype(np.int32) for part in parts]
        self._count_N = np.concatenate([*counts, np.zeros(0, np.int32)])[order_N]

    def band(self, band: int) -> np.ndarray:
        return np.concatenate([part.bands_BN[band] for part in self._parts])[self.order_N]

    def similar(self, pairs_P2: np.ndarray) -> np.ndarray:
        """The pairs of at least `threshold` similarity: exact where both rows have all their hashes."""
        count_P2 = self._count_N[pairs_P2]
        low, high = count_P2.min(axis=1), count_P2.max(axis=1)
        hopeful = pairs_P2[(low >= self._threshold * high) | (high == MOST_HASHES)]  # J <= low / high
        batches = _batches(hopeful, SAMPLE)
        return np.concatenate([pairs_P2[:0], *map(self._checked, batches)])

    def _checked(self, pairs_P2: np.ndarray) -> np.ndarray:
        """Four deviations below the threshold by a few hashes is enough to let a pair go: one in 30,000 goes wrongly."""
        slack = 4 * (self._threshold * (1 - self._threshold) / SAMPLE) ** 0.5
        guess_P = self._jaccard(pairs_P2, SAMPLE)
        longest_P = self._count_N[pairs_P2].max(axis=1)
        good_P = (guess_P >= self._threshold) & (longest_P < SAMPLE)
        unsure = np.flatnonzero((guess_P >= self._threshold - slack) & (longest_P >= SAMPLE))
        unsure = unsure[
            np.argsort(longest_P[unsure])
        ]  # rows of like length together: a table is as wide as its longest
        for some in _batches(unsure, MOST_HASHES):
            good_P[some] = self._jaccard(pairs_P2[some], MOST_HASHES) >= self._threshold
        return pairs_P2[good_P]

    def _jaccard(self, pairs_P2: np.ndarray, most: int) -> np.ndarray:
        """By the `most` smallest hashes of each row: an estimate only where a row has as many or more."""
        count_P2 = np.minimum(self._count_N[pairs_P2], most)
        hashes_PW = np.concatenate([self._hashes(pairs_P2[:, side], count_P2[:, side]) for side in (0, 1)], axis=1)
        hashes_PW.sort(axis=1)
        both_PW = (hashes_PW[:, 1:] == hashes_PW[:, :-1]) & (hashes_PW[:, 1:] != _NONE)
        shared_P = both_PW.sum(axis=1)
        union_P = count_P2.sum(axis=1) - shared_P
        cut = np.flatnonzero((count_P2 == most).any(axis=1) & (union_P > most))
        if len(
            cut
        ):  # of the `most` smallest hashes of the union it is known whether both rows have them, of others not
            place_CW = np.cumsum(~both_PW[cut], axis=1, dtype=np.int16)
            shared_P[cut] = (both_PW[cut] & (place_CW < most)).sum(axis=1)
            union_P[cut] = most
        return shared_P / union_P

    def _hashes(self, rows: np.ndarray, count_P: np.ndarray) -> np.ndarray:
        """The first `count` hashes of each row and _NONE behind them: uint32, as wide as the longest."""
        place_P, width = self.order_N[rows], int(count_P.max())
        hashes_PW = np.empty((len(rows), width), np.uint32)
        owner_P = np.searchsorted(self._starts, place_P, side="right") - 1
        for number in np.unique(owner_P):
            part, mine = self._parts[number], np.flatnonzero(owner_P == number)
            start = part.offsets_N1[place_P[mine] - self._starts[number]]
            # whole windows: six times as fast as one index a hash, and what belongs to the next row is overwritten below
            hashes_PW[mine] = np.lib.stride_tricks.sliding_window_view(part.hashes, width)[start]
        hashes_PW[np.arange(width) >= count_P[:, None]] = _NONE
        return hashes_PW

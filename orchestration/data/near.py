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
SAMPLE = 128  # hashes that tell most unlike rows apart, at an eighth of the cost
PAIRS = 1 << 12  # pairs checked at once: 64 MB an array at the longest rows

_32 = np.uint64(32)


@dataclass(frozen=True)
class Groups:
    """`keep_N`: False for every row of a group but the one with the smallest id. `groups`: of two rows or more. `pairs`:
    similar pairs that were needed to join them; pairs within a group already joined are not looked at."""

    keep_N: np.ndarray
    groups: int
    pairs: int


def groups(parts: Sequence[Features], row_id_N2: np.ndarray, config: NearDuplicatesConfig) -> Groups:
    """Which rows stay. `parts` end to end are the N rows of `row_id_N2` (uint64, high half first). Memory: about 60 bytes
    a row (one band at a time) beside `parts`, which may be mapped files."""
    table = _Table(parts, np.lexsort((row_id_N2[:, 1], row_id_N2[:, 0])), config.threshold)
    root_N = np.arange(len(row_id_N2))  # from here on a row is its rank by id, so a group's root is its smallest id
    pairs = 0
    for band in range(banding(config)[0] if len(root_N) else 0):
        for candidates in _candidates(table.band(band), root_N):
            similar = table.similar(candidates)
            pairs += len(similar)
            _unite(root_N, similar)
    root_N = _roots(root_N, root_N)
    keep_N = np.zeros(len(root_N), bool)
    keep_N[table.order_N] = root_N == np.arange(len(root_N))
    return Groups(keep_N, int((np.bincount(root_N) > 1).sum()) if len(root_N) else 0, pairs)


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
    for shift in range(1, FEW):
        near = np.flatnonzero(bucket[shift:] == bucket[:-shift])
        if not len(near):
            return
        yield _apart(np.stack([member[near], member[near + shift]], axis=1), root_N)


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
    yield from _neighbours(member[alone], bucket[alone], root_N)


def _neighbours(member: np.ndarray, bucket: np.ndarray, root_N: np.ndarray) -> Iterator[np.ndarray]:
    near = np.flatnonzero(bucket[1:] == bucket[:-1])
    yield _apart(np.stack([member[near], member[near + 1]], axis=1), root_N)


def _apart(pairs_P2: np.ndarray, root_N: np.ndarray) -> np.ndarray:
    return pairs_P2[_roots(root_N, pairs_P2[:, 0]) != _roots(root_N, pairs_P2[:, 1])]


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
        batches = [hopeful[start : start + PAIRS] for start in range(0, len(hopeful), PAIRS)]
        return np.concatenate([pairs_P2[:0], *map(self._checked, batches)])

    def _checked(self, pairs_P2: np.ndarray) -> np.ndarray:
        """Four deviations below the threshold by a few hashes is enough to let a pair go: one in 30,000 goes wrongly."""
        slack = 4 * (self._threshold * (1 - self._threshold) / SAMPLE) ** 0.5
        guess_P = self._jaccard(pairs_P2, SAMPLE)
        long_P = (self._count_N[pairs_P2] > SAMPLE).any(axis=1)
        good_P = guess_P >= self._threshold
        unsure = np.flatnonzero(long_P & (guess_P >= self._threshold - slack))
        good_P[long_P] = False
        if len(unsure):
            good_P[unsure] = self._jaccard(pairs_P2[unsure], MOST_HASHES) >= self._threshold
        return pairs_P2[good_P]

    def _jaccard(self, pairs_P2: np.ndarray, most: int) -> np.ndarray:
        """By the `most` smallest hashes of each row: an estimate only where a row has as many or more."""
        pair = np.arange(len(pairs_P2), dtype=np.uint64) << _32
        count_P2 = np.minimum(self._count_N[pairs_P2], most)
        sides = [
            np.repeat(pair, count) | self._hashes(rows, count)
            for rows, count in zip(pairs_P2.T, count_P2.T, strict=True)
        ]
        keys = np.sort(np.concatenate(sides), kind="stable")  # two rising runs: merged in linear time
        new = np.append(True, keys[1:] != keys[:-1])
        both = ~np.append(new[1:], True)[new]
        owner = (keys[new] >> _32).astype(np.int64)
        union_P = np.bincount(owner, minlength=len(pairs_P2))
        limit_P = np.where((count_P2 == most).any(axis=1), np.minimum(union_P, most), union_P)
        # of the `most` smallest hashes of the union it is known whether both rows have them, of others not
        both &= np.arange(len(owner)) - np.repeat(np.cumsum(union_P) - union_P, union_P) < limit_P[owner]
        return np.bincount(owner[both], minlength=len(pairs_P2)) / limit_P

    def _hashes(self, rows: np.ndarray, count: np.ndarray) -> np.ndarray:
        """The first `count` hashes of each row end to end, as uint64."""
        place = self.order_N[rows]
        ends = np.cumsum(count)
        flat = np.empty(int(count.sum()), np.uint64)
        owner = np.searchsorted(self._starts, place, side="right") - 1
        for part in np.unique(owner):
            mine = np.flatnonzero(owner == part)
            start = self._parts[part].offsets_N1[place[mine] - self._starts[part]]
            step = np.arange(count[mine].sum()) - np.repeat(np.cumsum(count[mine]) - count[mine], count[mine])
            into = np.repeat(ends[mine] - count[mine], count[mine]) + step
            flat[into] = self._parts[part].hashes[np.repeat(start, count[mine]) + step]
        return flat

"""How well near duplicates are found: F1 of pairs against the exact Jaccard similarity of all pairs of a sample. Takes texts and the
pairs a system found; each is measured by its own shingles and threshold, and pairs that follow from others (a ~ b, b ~ c) count on
both sides, since a group keeps one row whichever pairs joined it. Called by `data`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.peers import data_io
from orchestration.data import near
from orchestration.data.clean import clean_text, match_text
from orchestration.data.config import CleanConfig, NearDuplicatesConfig
from orchestration.data.sketch import features

Pairs = set[tuple[int, int]]
CONFIG = NearDuplicatesConfig(threshold=0.8, shingle=5, permutations=128)
WORDS = 5  # a shingle of datatrove
# datatrove has no threshold; its 14 buckets of 8 are made for 0.75 or so: the one at which it looks best is taken
WORD_THRESHOLDS = (0.7, 0.75, 0.8)


@dataclass(frozen=True)
class Quality:
    f1: float
    precision: float
    recall: float
    pairs: int
    threshold: float

    def says(self) -> str:
        return (
            f"F1 {self.f1:.4f} (precision {self.precision:.4f}, recall {self.recall:.4f}, {self.pairs} true pairs of {self.threshold}"
            " or more)"
        )


def quality_of(texts: Sequence[str], system: str, found: Iterable[Sequence[int]] = ()) -> Quality:
    """`found`: pairs of places; for `ours` they are looked for here."""
    cleaned = tuple(data_io.clean(text) for text in texts)
    if system == "ours":
        cleaned = tuple(clean_text(text, CleanConfig()) for text in texts)
        return _quality(ours(cleaned), exact(cleaned, "ours", CONFIG.threshold), CONFIG.threshold)
    pairs = closed({(min(a, b), max(a, b)) for a, b in found}, len(texts))
    if system == "data_datatrove":
        every = [_quality(pairs, exact(cleaned, "words", level), level) for level in WORD_THRESHOLDS]
        return max(every, key=lambda quality: quality.f1)
    return _quality(pairs, exact(cleaned, "chars", 0.8), 0.8)


def _quality(found: Pairs, true: Pairs, threshold: float) -> Quality:
    both = len(found & true)
    precision, recall = both / max(len(found), 1), both / max(len(true), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return Quality(f1, precision, recall, len(true), threshold)


def ours(texts: Sequence[str]) -> Pairs:
    """Those of the groups that `prepare` keeps one row of."""
    row_id_N2 = np.stack([np.zeros(len(texts), np.uint64), np.arange(len(texts), dtype=np.uint64)], axis=1)
    return _within(near.groups([features([match_text(text) for text in texts], CONFIG)], row_id_N2, CONFIG).root_N)


def shingles(text: str, kind: str) -> set[str]:
    """ours: characters of the matching form; chars: of the lower-case text, as the other peers have them; words: of datatrove's
    simplified text."""
    if kind == "chars":
        return data_io.shingles(text)
    if kind == "ours":
        padded = match_text(text).ljust(CONFIG.shingle, "\0")
        return {padded[start : start + CONFIG.shingle] for start in range(len(padded) - CONFIG.shingle + 1)}
    cut = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {" ".join(cut[start : start + WORDS]) for start in range(len(cut) - WORDS + 1)}


@functools.cache
def exact(texts: tuple[str, ...], kind: str, threshold: float) -> Pairs:
    """All pairs, by one product of sparse matrices a thousand rows; rows without a shingle have no pair."""
    from scipy.sparse import csr_array

    known: dict[str, int] = {}
    columns, starts = [], [0]
    for text in texts:
        columns += [known.setdefault(shingle, len(known)) for shingle in shingles(text, kind)]
        starts.append(len(columns))
    table = csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(texts), max(len(known), 1)))
    size, turned, found = np.diff(starts), table.T.tocsr(), set()
    for start in range(0, len(texts), 1000):
        shared = (table[start : start + 1000] @ turned).tocoo()
        row = shared.row + start
        similar = shared.data >= threshold * (size[row] + size[shared.col] - shared.data)
        chosen = similar & (row < shared.col)
        found |= set(zip(row[chosen].tolist(), shared.col[chosen].tolist(), strict=True))
    return closed(found, len(texts))


def closed(pairs: Pairs, rows: int) -> Pairs:
    """The pairs, and those that follow from them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return set()
    one, two = np.array(sorted(pairs)).T
    _, group_N = connected_components(coo_array((np.ones(len(one)), (one, two)), shape=(rows, rows)), directed=False)
    return _within(group_N)


def _within(group_N: np.ndarray) -> Pairs:
    """All pairs of rows with the same number."""
    order = np.argsort(group_N, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_N[order])) + 1)
    return {
        (int(a), int(b)) for group in groups if len(group) > 1 for at, a in enumerate(group) for b in group[at + 1 :]
    }

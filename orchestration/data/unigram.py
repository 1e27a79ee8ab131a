"""The Unigram vocabulary (Kudo, "Subword Regularization", ACL 2018): the pieces and their log-probabilities under which a corpus,
each word cut in all ways, is likeliest. Takes counted words; gives pieces by falling score. Called by vocabulary.py; knows no
texts. Our own, since the library's trainer gives other bytes in each process, and was seen not to end on small vocabularies.

Expectation-maximisation over all words at once: an edge is a piece at a place in a word, and edges with the same start and
length form one numpy step. Rounds of two EM steps and a cut to three quarters, until `size` pieces are left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

MAX_PIECE = 16  # characters, as in SentencePiece
MAX_WORDS = 200_000  # the most frequent ones; rarer words say little about pieces
SEEDS = 20  # first pieces, times `size`
SHRINK = 0.75
EM_STEPS = 2
LEAST = 0.1  # expected count that a letter keeps, however rare
NOTHING = -1e30


@dataclass(frozen=True)
class _Group:
    """Edges of one start and one length: the rows (words) that have one, and its piece."""

    start: int
    stop: int
    rows_K: np.ndarray
    pieces_K: np.ndarray


def learn(words: Counter[str], *, size: int) -> list[tuple[str, float]]:
    """At most `size` (piece, log-probability), likeliest first; every letter of the words is one. Raises ValueError where they do
    not fit."""
    kept = sorted(words, key=lambda word: (-words[word], word))[:MAX_WORDS]
    counts_W = np.array([words[word] for word in kept], np.float64)
    letters = sorted({letter for word in words for letter in word})
    if len(letters) > size:
        raise ValueError(f"{len(letters)} letters do not fit into {size} pieces")
    pieces, counts_P = _seeds(words, kept, letters, size * SEEDS)
    groups = _edges(kept, {piece: i for i, piece in enumerate(pieces)})
    while True:
        for _ in range(EM_STEPS):
            scores_P = np.log(counts_P / counts_P.sum())
            counts_P = _expected(groups, scores_P, counts_W)
            counts_P[: len(letters)] = np.maximum(counts_P[: len(letters)], LEAST)
            groups, pieces, counts_P = _keep(groups, pieces, counts_P, counts_P >= LEAST)
        scores_P = np.log(counts_P / counts_P.sum())
        if len(pieces) <= size:
            break
        loss_P = counts_P * (scores_P - _otherwise(pieces, scores_P))
        loss_P[: len(letters)] = np.inf  # letters come first in `pieces`, and stay
        best = np.argsort(-loss_P, kind="stable")[: max(size, int(len(pieces) * SHRINK))]
        groups, pieces, counts_P = _keep(groups, pieces, counts_P, np.isin(np.arange(len(pieces)), best))
    return sorted(zip(pieces, scores_P.tolist(), strict=True), key=lambda item: (-item[1], item[0]))


def _seeds(words: Counter[str], kept: list[str], letters: list[str], limit: int) -> tuple[list[str], np.ndarray]:
    """Letters, then the parts of words that cover the most characters, and how often each occurs."""
    found: Counter[str] = Counter()
    places = [(word, start) for word in kept for start in range(len(word))]
    for length in range(1, MAX_PIECE + 1):
        for word, start in places:
            found[word[start : start + length]] += words[word]
        # what occurs once is part of nothing that occurs twice
        places = [
            (word, start)
            for word, start in places
            if len(word) - start > length and found[word[start : start + length]] > 1
        ]
    longer = [piece for piece, count in found.items() if len(piece) > 1 and count > 1]
    longer.sort(key=lambda piece: (-found[piece] * len(piece), piece))
    pieces = letters + longer[:limit]
    return pieces, np.array([max(found[piece], LEAST) for piece in pieces])


def _edges(words: list[str], ids: dict[str, int]) -> list[_Group]:
    """All edges, by start and length: the order in which a word is read."""
    found: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    begun = {piece[:stop] for piece in ids for stop in range(1, len(piece))}
    for row, word in enumerate(words):
        for start in range(len(word)):
            for stop in range(start + 1, min(len(word), start + MAX_PIECE) + 1):
                part = word[start:stop]
                number = ids.get(part)
                if number is not None:
                    rows, pieces = found.setdefault((start, stop), ([], []))
                    rows.append(row)
                    pieces.append(number)
                if part not in begun:
                    break
    return [_Group(*place, np.array(found[place][0]), np.array(found[place][1])) for place in sorted(found)]


def _expected(groups: list[_Group], scores_P: np.ndarray, counts_W: np.ndarray) -> np.ndarray:
    """Expected count of each piece: forward-backward over every word, in logarithms."""
    length = max(group.stop for group in groups)
    forward_LW = np.full((length + 1, len(counts_W)), NOTHING)
    forward_LW[0] = 0.0
    backward_LW = forward_LW.copy()
    backward_LW[0] = NOTHING
    ends_W = np.zeros(len(counts_W), np.int64)
    for group in groups:
        into_W, come_K = forward_LW[group.stop], forward_LW[group.start, group.rows_K] + scores_P[group.pieces_K]
        into_W[group.rows_K] = np.logaddexp(into_W[group.rows_K], come_K)
        ends_W[group.rows_K] = np.maximum(ends_W[group.rows_K], group.stop)
    rows_W = np.arange(len(counts_W))
    total_W = forward_LW[ends_W, rows_W]
    backward_LW[ends_W, rows_W] = 0.0
    expected_P = np.zeros(len(scores_P))
    for group in reversed(groups):
        go_K = scores_P[group.pieces_K] + backward_LW[group.stop, group.rows_K]
        from_W = backward_LW[group.start]
        from_W[group.rows_K] = np.logaddexp(from_W[group.rows_K], go_K)
        share_K = np.exp(forward_LW[group.start, group.rows_K] + go_K - total_W[group.rows_K])
        expected_P += np.bincount(group.pieces_K, share_K * counts_W[group.rows_K], minlength=len(scores_P))
    return expected_P


def _otherwise(pieces: list[str], scores_P: np.ndarray) -> np.ndarray:
    """Score of the best way to write each piece with the others (Viterbi); NOTHING for a letter."""
    lengths_P = np.array([len(piece) for piece in pieces])
    best_LP = np.full((MAX_PIECE + 1, len(pieces)), NOTHING)
    best_LP[0] = 0.0
    for group in _edges(pieces, {piece: i for i, piece in enumerate(pieces)}):
        others = group.pieces_K != group.rows_K
        rows_K, numbers_K = group.rows_K[others], group.pieces_K[others]
        into_P = best_LP[group.stop]
        into_P[rows_K] = np.maximum(into_P[rows_K], best_LP[group.start, rows_K] + scores_P[numbers_K])
    return best_LP[lengths_P, np.arange(len(pieces))]


def _keep(
    groups: list[_Group], pieces: list[str], counts_P: np.ndarray, kept_P: np.ndarray
) -> tuple[list[_Group], list[str], np.ndarray]:
    """The same with the pieces of `kept_P` alone, in their order."""
    numbers_P = np.cumsum(kept_P) - 1
    fewer = []
    for group in groups:
        on = kept_P[group.pieces_K]
        if on.any():
            fewer.append(_Group(group.start, group.stop, group.rows_K[on], numbers_P[group.pieces_K[on]]))
    return fewer, [piece for piece, kept in zip(pieces, kept_P, strict=True) if kept], counts_P[kept_P]

"""Sketches of texts for near duplicates: MinHash bands to find candidates by, shingle hashes to check them with.

Takes the clean texts of one unit and gives a few plain arrays, which the caller may save and map into memory. Called by
workers of `prepare`; a row's features depend on its own text alone. Knows nothing of other rows (`near` compares them),
records or files. Everything runs over the characters of all texts at once, end to end.

Sources: MinHash, Broder 1997; bands, Leskovec et al., Mining of Massive Datasets, 3.4; the sketch by rounds, Dahlgaard et
al., "Fast Similarity Sketching", FOCS 2017: one hash of each shingle fills one bin a round until no bin is empty, about
bins x ln(bins) hashes for a short row instead of bins x shingles, at the same or a lower variance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchestration.data.clean import SPACELESS, match_text
from orchestration.data.config import NearDuplicatesConfig
from orchestration.data.rng import key, mix, mix_array

MOST_HASHES = 1024  # kept a row: the similarity of longer rows is an estimate, its deviation at 0.8 is 0.0125
PIECE = 1 << 17  # characters worked on at once: 1 MB an array, and there are about ten of them
TOGETHER = 12  # rounds for a piece at a time; the few rows that need more go on together, at a seventh of the calls
RECALL = 0.995  # of pairs exactly at the threshold; higher above it

_SHINGLE, _SKETCH, _BAND = key("near", "shingle"), key("near", "sketch"), key("near", "band")
_BASE = np.uint64(mix(_SHINGLE, 0) | 1)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@dataclass(frozen=True)
class Features:
    """Of N rows. `bands_BN`: uint64, equal where rows may be near duplicates. `hashes`: uint32, each row's distinct shingle
    hashes in rising order, the MOST_HASHES smallest at most, end to end, and as many zeros behind them, so that
    MOST_HASHES can be read from any row on. `offsets_N1`: int64, row i has hashes[offsets[i] : offsets[i + 1]]."""

    bands_BN: np.ndarray
    hashes: np.ndarray
    offsets_N1: np.ndarray

    def __len__(self) -> int:
        return self.bands_BN.shape[1]


def banding(config: NearDuplicatesConfig) -> tuple[int, int]:
    """(bands, bins a band): the longest bands that still find RECALL of the pairs at the threshold. Long bands give few
    false candidates; those that remain cost time only, since every candidate is checked."""
    for size in range(config.permutations, 1, -1):
        bands = config.permutations // size
        if 1 - (1 - config.threshold**size) ** bands >= RECALL:
            return bands, size
    return config.permutations, 1


def features(texts: Sequence[str], config: NearDuplicatesConfig) -> Features:
    """Features of each text, compared in the form of `match_text`. Memory beside the result: about 10 MB, and 8 bytes a
    row and permutation."""
    bands, size = banding(config)
    sketch_NK = np.full((len(texts), bands * size), _EMPTY)
    counts, hashes, done = [np.zeros(1, np.int64)], [], 0
    waiting = [_waiting(np.zeros(0, np.uint64), 0)]
    for chunk in _chunks(texts):
        keys, rest = _measure(chunk, config, sketch_NK[done : done + len(chunk)])
        waiting.append(rest._replace(row_R=rest.row_R + done))
        counts.append(np.bincount((keys >> _32).astype(np.int64), minlength=len(chunk)))
        hashes.append((keys & _LOW).astype(np.uint32))
        done += len(chunk)
    _finish(sketch_NK, _Waiting(*map(np.concatenate, zip(*waiting, strict=True))), done=TOGETHER)
    hashes.append(np.zeros(MOST_HASHES, np.uint32))
    return Features(_bands(sketch_NK, bands), np.concatenate(hashes), np.cumsum(np.concatenate(counts)))


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in the form that is compared, about PIECE characters at a time; a longer one comes alone."""
    held: list[str] = []
    room = PIECE
    for text in map(match_text, texts):
        if held and len(text) > room:
            yield held
            held, room = [], PIECE
        held.append(text)
        room -= len(text)
    if held:
        yield held


def _measure(chunk: list[str], config: NearDuplicatesConfig, sketch_NK: np.ndarray) -> tuple[np.ndarray, _Waiting]:
    """Fills `sketch_NK`; gives keys (row << 32 | hash; they rise, at most MOST_HASHES a row) and the rows that still wait. Both are
    minima, so the pieces of a text of any length are measured one by one and merged."""
    if len(chunk) > 1:
        keys = _distinct(chunk, config)
        turns = range(min(TOGETHER, sketch_NK.shape[1]))
        return _smallest(keys, len(chunk)), _rounds(sketch_NK, _waiting(keys, len(chunk)), turns)
    keys = np.zeros(0, np.uint64)
    for piece in _pieces(chunk[0], config):
        found, own_1K = _distinct([piece], config), np.full_like(sketch_NK, _EMPTY)
        _finish(own_1K, _waiting(found, 1), done=0)
        np.minimum(sketch_NK, own_1K, out=sketch_NK)
        keys = _smallest(np.union1d(keys, found) if len(keys) else found, 1)
    return keys, _waiting(keys[:0], 0)


def _pieces(text: str, config: NearDuplicatesConfig) -> Iterator[str]:
    """A text in pieces of PIECE characters with all its character shingles; shingles of words are lost where it is cut, a
    few in ten thousand."""
    overlap = config.shingle - 1 if config.unit == "chars" else 0
    for start in range(0, max(len(text) - overlap, 1), PIECE):
        yield text[start : start + PIECE + overlap]


def _distinct(texts: list[str], config: NearDuplicatesConfig) -> np.ndarray:
    """Keys (row << 32 | 32-bit hash) of the distinct shingles of each text, in rising order. A text shorter than a shingle
    has one, of itself and padding. Collisions join about one shingle in a million at 1,000 shingles a row."""
    size = config.shingle
    tokens, count_N = _padded(*_tokens(texts, config.unit), size)
    last = len(tokens) - size + 1
    hashes = tokens[:last].copy()
    for shift in range(1, size):  # a polynomial in the tokens, modulo 2^64
        hashes *= _BASE
        hashes += tokens[shift : last + shift]
    shingles_N = count_N - (size - 1)
    row = np.repeat(np.arange(len(texts)), shingles_N)
    inside = np.arange(len(row)) + (size - 1) * row  # a row's last size - 1 tokens start no shingle
    hash_S = _rising((mix_array(_SHINGLE, hashes[inside]) >> _32).astype(np.uint32), shingles_N)
    keys = row.astype(np.uint64) << _32
    keys |= hash_S
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])]


def _rising(hash_S: np.ndarray, count_N: np.ndarray) -> np.ndarray:
    """The hashes of each row in rising order. Rows of like length are the lines of a table: three times as fast as one sort of all."""
    width_N = 1 << np.ceil(np.log2(np.maximum(count_N, 8))).astype(np.int64)
    width_S, found_S = np.repeat(width_N, count_N), np.empty_like(hash_S)
    for width in np.unique(width_N).tolist():
        own = width_S == width
        there = np.arange(width) < count_N[width_N == width, None]
        table = np.full(
            there.shape, _LOW, np.uint32
        )  # a hash may be this number, too: only as many as went in are read
        table[there] = hash_S[own]
        table.sort(axis=1)
        found_S[own] = table[there]
    return found_S


def _tokens(texts: list[str], unit: str) -> tuple[np.ndarray, np.ndarray]:
    """(tokens end to end as uint64 above 0, tokens a text): code points, or hashes of words."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64) + np.uint64(1)
    count_N = np.fromiter(map(len, texts), np.int64, len(texts))
    if unit == "chars" or not len(codes):
        return codes, count_N
    row = np.repeat(np.arange(len(texts)), count_N)
    space = codes == ord(" ") + 1
    alone = np.logical_or.reduce([(codes > low) & (codes <= high + 1) for low, high in SPACELESS])
    border = np.ones(len(codes), bool)
    border[1:] = (row[1:] != row[:-1]) | (space | alone)[1:] | (space | alone)[:-1]
    starts = np.flatnonzero(border)
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    powers = np.cumprod(np.full(int(place.max()) + 1, _BASE))
    words = np.add.reduceat(codes * powers[place], starts)
    kept = ~space[starts]
    return words[kept] | np.uint64(1), np.bincount(row[starts[kept]], minlength=len(texts))


def _padded(tokens: np.ndarray, count_N: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeros behind texts of fewer than `size` tokens."""
    missing_N = np.maximum(size - count_N, 0)
    if not missing_N.any():
        return tokens, count_N
    padded = np.zeros(len(tokens) + int(missing_N.sum()), np.uint64)
    padded[np.arange(len(tokens)) + np.repeat(np.cumsum(missing_N) - missing_N, count_N)] = tokens
    return padded, count_N + missing_N


def _smallest(keys: np.ndarray, rows: int) -> np.ndarray:
    """The MOST_HASHES smallest keys of each row."""
    count_N = np.bincount((keys >> _32).astype(np.int64), minlength=rows)
    if count_N.max() <= MOST_HASHES:
        return keys
    place = np.arange(len(keys)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    return keys[place < MOST_HASHES]


class _Waiting(NamedTuple):
    """R rows that have an empty bin, and their S shingles end to end."""

    row_R: np.ndarray  # int64
    count_R: np.ndarray  # int64
    hash_S: np.ndarray  # uint64


def _waiting(keys: np.ndarray, rows: int) -> _Waiting:
    count_R = np.bincount((keys >> _32).astype(np.int64), minlength=rows)
    return _Waiting(np.arange(rows), count_R, keys & _LOW)


def _rounds(sketch_NK: np.ndarray, waiting: _Waiting, turns: range) -> _Waiting:
    """Bins are equal with probability of the Jaccard similarity. In each round every shingle of a row goes to one bin, where the
    smallest (round, hash) stays; a row is done when no bin is empty. Gives the rows that are not."""
    row_R, count_R, hash_S = waiting
    bins, flat = sketch_NK.shape[1], sketch_NK.reshape(-1)
    for turn in turns:
        if not len(row_R):
            break
        drawn = _drawn(hash_S, turn)
        place = drawn >> _32
        place *= np.uint64(bins)
        place >>= _32
        place += np.repeat(row_R * bins, count_R).view(np.uint64)
        drawn &= _LOW
        drawn |= np.uint64(turn << 32)
        np.minimum.at(flat, place.view(np.int64), drawn)
        waits_R = (sketch_NK[row_R] == _EMPTY).any(axis=1)
        if not waits_R.all():
            hash_S = hash_S[np.repeat(waits_R, count_R)]
        row_R, count_R = row_R[waits_R], count_R[waits_R]
    return _Waiting(row_R, count_R, hash_S)


def _finish(sketch_NK: np.ndarray, waiting: _Waiting, *, done: int) -> None:
    """All rounds but the first `done`; then, of rows of very few shingles, what the rounds left empty is filled bin by bin."""
    bins, flat = sketch_NK.shape[1], sketch_NK.reshape(-1)
    waiting = _rounds(sketch_NK, waiting, range(done, bins))
    start_S, hash_S = np.repeat(waiting.row_R * bins, waiting.count_R), waiting.hash_S
    for bin_ in range(bins if len(start_S) else 0):
        empty = flat[start_S + bin_] == _EMPTY
        value = _drawn(hash_S[empty], bins + bin_) & _LOW | np.uint64((bins + bin_) << 32)
        np.minimum.at(flat, start_S[empty] + bin_, value)


def _drawn(hashes: np.ndarray, turn: int) -> np.ndarray:
    """Multiply and add: 64 bits, of which the high 32 are strongly universal and the low 32 a permutation."""
    drawn = hashes * np.uint64(mix(_SKETCH, 2 * turn) | 1)
    drawn += np.uint64(mix(_SKETCH, 2 * turn + 1))
    return drawn


def _bands(sketch_NK: np.ndarray, bands: int) -> np.ndarray:
    """uint64 (bands, N): a hash of the bins of each band."""
    rows, bins = sketch_NK.shape
    sketch_NBS = sketch_NK.reshape(rows, bands, bins // bands)
    keys_BN = np.zeros((bands, rows), np.uint64)
    for place in range(bins // bands):
        keys_BN = mix_array(_BAND, keys_BN ^ sketch_NBS[:, :, place].T)
    return keys_BN

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

import numpy as np

from orchestration.data.clean import SPACELESS, match_text
from orchestration.data.config import NearDuplicatesConfig
from orchestration.data.rng import key, mix, mix_array

MOST_HASHES = 1024  # kept a row: the similarity of longer rows is an estimate, its deviation at 0.8 is 0.0125
PIECE = 1 << 17  # characters worked on at once: 1 MB an array, and there are about ten of them
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
    sketches, counts, hashes = [], [np.zeros(1, np.int64)], []
    for chunk in _chunks(texts):
        sketch_NK, keys = _measure(chunk, config, bands * size)
        sketches.append(sketch_NK)
        counts.append(np.bincount((keys >> _32).astype(np.int64), minlength=len(chunk)))
        hashes.append((keys & _LOW).astype(np.uint32))
    hashes.append(np.zeros(MOST_HASHES, np.uint32))
    sketch_NK = np.concatenate([np.zeros((0, bands * size), np.uint64), *sketches])
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


def _measure(chunk: list[str], config: NearDuplicatesConfig, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(sketch_NK, keys): a key is row << 32 | hash; keys rise, at most MOST_HASHES a row. Both are minima, so the pieces of
    a text of any length are measured one by one and merged."""
    parts = [chunk] if len(chunk) > 1 else [[piece] for piece in _pieces(chunk[0], config)]
    sketch_NK, keys = np.full((len(chunk), bins), _EMPTY), np.zeros(0, np.uint64)
    for part in parts:
        found = _distinct(part, config)
        np.minimum(sketch_NK, _sketch(found, len(chunk), bins), out=sketch_NK)
        keys = _smallest(np.union1d(keys, found) if len(keys) else found, len(chunk))
    return sketch_NK, keys


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
    keys = mix_array(_SHINGLE, hashes[inside]) >> _32 | row.astype(np.uint64) << _32
    keys.sort()
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])]


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


def _sketch(keys: np.ndarray, rows: int, bins: int) -> np.ndarray:
    """uint64 (rows, bins): equal in a bin with probability of the Jaccard similarity. In each round every shingle of a row
    goes to one bin, where the smallest (round, hash) stays; a row is done when no bin is empty."""
    sketch = np.full(rows * bins, _EMPTY)
    waiting, start = np.ones(rows, bool), (keys >> _32).view(np.int64) * bins
    hashes = keys & _LOW
    for turn in range(bins):
        drawn = _drawn(hashes, turn)
        place = start + ((drawn >> _32) * np.uint64(bins) >> _32).view(np.int64)
        np.minimum.at(sketch, place, drawn & _LOW | np.uint64(turn << 32))
        waiting[waiting] = (sketch.reshape(rows, bins)[waiting] == _EMPTY).any(axis=1)
        if not waiting.any():
            return sketch.reshape(rows, bins)
        still = waiting[start // bins]
        start, hashes = start[still], hashes[still]
    for bin_ in range(bins):  # rows of very few shingles: what the rounds left empty is filled bin by bin
        empty = sketch[start + bin_] == _EMPTY
        value = _drawn(hashes[empty], bins + bin_) & _LOW | np.uint64((bins + bin_) << 32)
        np.minimum.at(sketch, start[empty] + bin_, value)
    return sketch.reshape(rows, bins)


def _drawn(hashes: np.ndarray, turn: int) -> np.ndarray:
    """Multiply and add: 64 bits, of which the high 32 are strongly universal and the low 32 a permutation."""
    return hashes * np.uint64(mix(_SKETCH, 2 * turn) | 1) + np.uint64(mix(_SKETCH, 2 * turn + 1))


def _bands(sketch_NK: np.ndarray, bands: int) -> np.ndarray:
    """uint64 (bands, N): a hash of the bins of each band."""
    rows, bins = sketch_NK.shape
    sketch_NBS = sketch_NK.reshape(rows, bands, bins // bands)
    keys_BN = np.zeros((bands, rows), np.uint64)
    for place in range(bins // bands):
        keys_BN = mix_array(_BAND, keys_BN ^ sketch_NBS[:, :, place].T)
    return keys_BN

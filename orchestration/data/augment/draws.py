"""Random choices for many rows at once. Takes a 64-bit key a row and counts; gives numbers and choices, each a pure function of
its row's key, so a row alone and the same row in any batch get the same. Called by the ops on words and on token ids: both draw
by the same laws.

N rows, W words of all of them end to end. A draw is named by a counter below its row's key: the word's place in the row, plus a
`stream` so that the choices of one op do not meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestration.data import rng

STRIKE, PICK, PLACE, SWAP, ONE, LENGTH = (stream << 40 for stream in range(6))  # streams; no row has 2**40 words


def row_keys(seed: int, row_ids: Sequence[bytes], draws: Sequence[int] | np.ndarray) -> np.ndarray:
    """One key a row (uint64 N) of (seed, row id of 16 bytes, copy or epoch)."""
    halves = np.frombuffer(b"".join(row_ids), "<u8").reshape(-1, 2)
    key_N = rng.mix_array(rng.key("augment", seed), halves[:, 0])
    key_N = mix(key_N, halves[:, 1])
    return mix(key_N, np.asarray(draws, np.uint64))


def mix(key_N: np.ndarray, counter_N: np.ndarray | int) -> np.ndarray:
    """The `counter`-th number of each key (uint64 N)."""
    return rng.mix_array(key_N, np.atleast_1d(np.asarray(counter_N, np.uint64)))  # type: ignore[arg-type]


def below(number_N: np.ndarray, limit_N: np.ndarray | int) -> np.ndarray:
    """A number in [0, limit) of each 64-bit number, by its lower 32 bits (the upper ones decide strikes). int64 N."""
    low_N = number_N & np.uint64(0xFFFFFFFF)
    return ((low_N * np.asarray(limit_N, np.uint64)) >> np.uint64(32)).astype(np.int64)


def threshold(rate: float) -> np.uint64:
    """A 64-bit number is at most this with probability `rate`."""
    return np.uint64(min(int(rate * 2**64), rng.MASK))


def eda_counts(rate: float, words_N: np.ndarray) -> np.ndarray:
    """n = max(1, int(rate x words)), as in EDA (Wei and Zou 2019, their code); 0 for a row without words. int64 N."""
    return np.where(words_N > 0, np.maximum(1, (rate * words_N).astype(np.int64)), 0)


def places(row_W: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Place of each word in its row, from 0 (int64 W), and words a row (int64 N). `row_W` is ascending."""
    words_N = np.bincount(row_W, minlength=rows)
    first_N = np.cumsum(words_N) - words_N
    return np.arange(len(row_W)) - first_N[row_W], words_N


def struck(number_W: np.ndarray, rate: float, row_W: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    """Each word with probability `rate`, one at least in every row that has words. bool W."""
    struck_W = number_W <= threshold(rate)
    rows = len(key_N)
    words_N = np.bincount(row_W, minlength=rows)
    bare_N = np.flatnonzero((np.bincount(row_W, weights=struck_W, minlength=rows) == 0) & (words_N > 0))
    first_N = np.cumsum(words_N) - words_N
    struck_W[first_N[bare_N] + below(mix(key_N[bare_N], ONE), words_N[bare_N])] = True
    return struck_W


def chosen(number_W: np.ndarray, row_W: np.ndarray, count_N: np.ndarray) -> np.ndarray:
    """`count` different words of each row (all, where it has fewer), every set alike likely. bool W.

    The words of the smallest numbers: one sort of (row, number) for the whole batch.
    """
    order = np.lexsort((number_W, row_W))
    words_N = np.bincount(row_W, minlength=len(count_N))
    rank_W = np.arange(len(row_W)) - (np.cumsum(words_N) - words_N)[row_W]  # row_W ascends, so row_W[order] is row_W
    chosen_W = np.zeros(len(row_W), bool)
    chosen_W[order[rank_W < count_N[row_W]]] = True
    return chosen_W

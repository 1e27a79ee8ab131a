"""Is an augmented text still fit to stand for its row? Takes the batch before and after the ops; gives a yes or no a row. Called by
`augmenter`, which draws again what fails. Each rule compares with the row itself: what was odd before may stay odd.

N rows. All rules are counts a row, so a batch is judged by numpy and a row is judged alike in any batch."""

from __future__ import annotations

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.words import AN, ARTICLE, NEGATES, VOWEL, WORD, A
from orchestration.data.config import FilterConfig


def passes(before: Batch, after: Batch, config: FilterConfig) -> np.ndarray:
    """bool N."""
    passes_N = kept_share(before, after) >= config.min_kept
    if config.keep_negation:
        passes_N &= _negations(before) == _negations(after)
    if config.grammar:
        passes_N &= (doubled(after) <= doubled(before)) & (lone_articles(after) <= lone_articles(before))
        passes_N &= _pairings(before) == _pairings(after)
    return passes_N


def kept_share(before: Batch, after: Batch) -> np.ndarray:
    """Share of the words before, each counted as often as it occurs, that are there after (float N; 1 for a row without)."""
    old, new = _tokens(before), _tokens(after)
    tokens, number = np.unique(np.concatenate([old, new]), return_inverse=True)
    old_K = np.bincount(number[: len(old)], minlength=len(tokens))
    new_K = np.bincount(number[len(old) :], minlength=len(tokens))
    row_K = (tokens >> 32).astype(np.int64)
    kept_N = np.bincount(row_K, weights=np.minimum(old_K, new_K), minlength=before.rows)
    words_N = np.bincount(row_K, weights=old_K, minlength=before.rows)
    return np.where(words_N > 0, kept_N / np.maximum(words_N, 1), 1.0)


def _tokens(batch: Batch) -> np.ndarray:
    slots = batch.word_slots()
    return batch.row_T[slots] << 32 | batch.core_T[slots]


def _negations(batch: Batch) -> np.ndarray:
    return _sum(batch, (batch.flags() & NEGATES) != 0)


def doubled(batch: Batch) -> np.ndarray:
    """Words that repeat the word before them, with no mark between (int N)."""
    joined_T = batch.joined()
    joined_T[1:] &= (batch.core_T[1:] == batch.core_T[:-1]) & ((batch.flags()[1:] & WORD) != 0)
    return _sum(batch, joined_T)


def lone_articles(batch: Batch) -> np.ndarray:
    """Articles with no word of their own behind them, or of the wrong form for it: 'the.', 'a the', 'a apple' (int N)."""
    flags_T = batch.flags()
    follows_T = np.zeros(len(flags_T), bool)  # is there a word behind, with no mark between?
    next_T = np.zeros(len(flags_T), flags_T.dtype)
    follows_T[:-1], next_T[:-1] = batch.joined()[1:], flags_T[1:]
    follows_T &= ((next_T & WORD) != 0) & ((next_T & ARTICLE) == 0)
    vowel_T = (next_T & VOWEL) != 0
    wrong_T = np.where(vowel_T, (flags_T & A) != 0, (flags_T & AN) != 0)
    return _sum(batch, ((flags_T & ARTICLE) != 0) & (~follows_T | wrong_T))


def _pairings(batch: Batch) -> np.ndarray:
    """A number of the brackets and quotes that are open (int N)."""
    marks = np.flatnonzero(batch.form_T != batch.words.bare)
    number_N = np.zeros(batch.rows, np.int64)
    np.add.at(number_N, batch.row_T[marks], batch.words.pairing.array[batch.form_T[marks]])
    return number_N


def _sum(batch: Batch, true_T: np.ndarray) -> np.ndarray:
    return np.bincount(batch.row_T[true_T], minlength=batch.rows)

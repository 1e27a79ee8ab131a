"""Texts as flat arrays of word numbers, and back. Takes texts of one language; gives a `Batch` that the ops change, and the changed
texts. Called by `augmenter`. An unchanged batch renders to exactly the texts it was made of.

N rows, T slots of all of them end to end. A slot holds a core in a form (see `words`): mostly a word; else a mark that stands alone
or the nothing between two spaces. English is cut at spaces, Chinese by the segmenter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from orchestration.data.augment.words import ENDS, SPACED, TITLE, WORD, Vocabulary

_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
MIN_CJK_SHARE = 0.3  # of a text's characters, to be Chinese: marks, digits and English names are many


def language(text: str) -> str:
    """`zh` or `en` (everything that is not Chinese), by the share of Chinese characters."""
    if text.isascii():
        return "en"
    return "zh" if len(_CJK.findall(text)) >= MIN_CJK_SHARE * len(text) else "en"


@dataclass
class Batch:
    words: Vocabulary
    language: str
    rows: int
    core_T: np.ndarray  # int32
    form_T: np.ndarray  # int32
    chunk_T: np.ndarray  # int32; -1 where the slot changed
    row_T: np.ndarray  # int64, ascending

    def flags(self) -> np.ndarray:
        return self.words.flags.array[self.core_T]

    def word_slots(self, active_N: np.ndarray | None = None) -> np.ndarray:
        """Slots with a word (int64 W), of the rows an op may change."""
        is_word_T = (self.flags() & WORD) != 0
        if active_N is not None:
            is_word_T &= active_N[self.row_T]
        return np.flatnonzero(is_word_T)

    def with_cores(self, slots: np.ndarray, cores: np.ndarray) -> Batch:
        """Other words in these slots; their forms stay."""
        core_T, chunk_T = self.core_T.copy(), self.chunk_T.copy()
        core_T[slots] = cores
        chunk_T[slots] = -1
        return replace(self, core_T=core_T, chunk_T=chunk_T)

    def places(self) -> np.ndarray:
        """How many words of its row stand before each slot (int64 T)."""
        is_word_T = (self.flags() & WORD) != 0
        before_T = np.cumsum(is_word_T) - is_word_T
        first_N = np.searchsorted(
            self.row_T, np.arange(self.rows)
        )  # of a last row without slots: beyond the end, never used
        return before_T - before_T[np.minimum(first_N, len(before_T) - 1)][self.row_T]

    def take(self, slots: np.ndarray) -> Batch:
        """These slots alone, in this order."""
        return replace(
            self,
            core_T=self.core_T[slots],
            form_T=self.form_T[slots],
            chunk_T=self.chunk_T[slots],
            row_T=self.row_T[slots],
        )

    def select(self, rows: np.ndarray) -> Batch:
        """These rows alone (ascending)."""
        kept_N = np.zeros(self.rows, bool)
        kept_N[rows] = True
        found = self.take(np.flatnonzero(kept_N[self.row_T]))
        return replace(found, rows=len(rows), row_T=(np.cumsum(kept_N) - 1)[found.row_T])

    def joined(self) -> np.ndarray:
        """Does a slot follow the one before in the same row with no mark between? bool T."""
        joined_T = np.zeros(len(self.core_T), bool)
        words = self.words
        joined_T[1:] = (self.row_T[1:] == self.row_T[:-1]) & ~words.closes.array[self.form_T[:-1]]
        joined_T[1:] &= ~words.opens.array[self.form_T[1:]]
        return joined_T

    def split_phrases(self) -> Batch:
        """Each slot that holds several words becomes as many slots (English)."""
        if self.language != "en":
            return self
        spaced = np.flatnonzero(self.flags() & SPACED)
        if not len(spaced):
            return self
        words = self.words
        parts = [words.parts[core] for core in self.core_T[spaced].tolist()]
        count_T = np.ones(len(self.core_T), np.int64)
        count_T[spaced] = list(map(len, parts))
        first_T = np.cumsum(count_T) - count_T
        whole_form = self.form_T[spaced]
        found = self.take(np.repeat(np.arange(len(self.core_T)), count_T))
        inside = np.repeat(first_T[spaced], count_T[spaced]) + ramp(count_T[spaced])
        found.core_T[inside] = list(chain.from_iterable(parts))
        found.chunk_T[inside] = -1
        found.form_T[inside] = words.bare
        last = first_T[spaced] + count_T[spaced] - 1
        found.form_T[first_T[spaced]] = words.heads(whole_form)
        found.form_T[last] = words.tails(whole_form)
        return found

    def texts(self) -> list[str]:
        """One text a row."""
        words, mark = self.words, self.words.MARK
        at_T = np.arange(len(self.chunk_T)) + self.row_T
        filled = np.full(len(self.chunk_T) + self.rows, words.mark, np.int32)
        filled[at_T] = self.chunk_T
        pieces = words.chunk_texts.array[filled]
        changed = np.flatnonzero(self.chunk_T < 0)
        pairs = (self.core_T[changed].astype(np.int64) << 32 | self.form_T[changed]).tolist()
        pieces[at_T[changed]] = [words.shown[pair] for pair in pairs]
        between = " " if self.language == "en" else ""
        whole = between.join(pieces[:-1].tolist())
        texts = whole.split(f"{between}{mark}{between}")
        if self.language == "en" and "\n" in whole:
            texts = [_with_lines(text) if "\n" in text else text for text in texts]
        return texts


def _with_lines(text: str) -> str:
    """A line break is a slot of its own, which may have come to a text's start or end."""
    whole = f" {text} ".replace(" \n ", "\n")
    return whole.removeprefix(" ").removesuffix(" ")


def parse(texts: Sequence[str], form: str, words: Vocabulary) -> Batch:
    """A batch of texts of one language (`en` or `zh`); none may hold the character U+0000."""
    if form == "en":
        flat = words.chunker(_english(texts, words.MARK))
    else:
        flat = np.array([words.chunks[piece] for piece in _chinese(texts, words.MARK)], np.int32)
    is_mark = flat == words.mark
    return of_chunks(flat[~is_mark], np.cumsum(is_mark)[~is_mark], len(texts), form, words)


def of_chunks(chunk_T: np.ndarray, row_T: np.ndarray, rows: int, form: str, words: Vocabulary) -> Batch:
    """A batch of numbered chunks, rows end to end."""
    begins_T = _begins(words, chunk_T, row_T)
    core_T = np.where(begins_T, words.low_core_of.array[chunk_T], words.core_of.array[chunk_T])
    form_T = np.where(begins_T, words.low_form_of.array[chunk_T], words.form_of.array[chunk_T])
    return Batch(words, form, rows, core_T, form_T, chunk_T, row_T)


def _english(texts: Sequence[str], mark: str) -> str:
    whole = f" {mark} ".join(texts)
    return whole.replace("\n", " \n ") if "\n" in whole else whole


def _chinese(texts: Sequence[str], mark: str) -> list[str]:
    cut = _segmenter()
    pieces: list[str] = []
    for text in texts:
        pieces += cut(text) or [""]
        pieces.append(mark)
    pieces.pop()
    return pieces


@lru_cache(maxsize=1)
def _segmenter() -> Any:
    import rjieba

    return rjieba.cut


def _begins(words: Vocabulary, chunk_T: np.ndarray, row_T: np.ndarray) -> np.ndarray:
    """Does a sentence start in this slot? After a row's start, or a slot that ends one; spaces between do not count."""
    core_T, form_T = words.core_of.array[chunk_T], words.form_of.array[chunk_T]
    flags_T = words.flags.array[core_T]
    # Only a title-case word asks, so only its surroundings are looked at.
    titles = np.flatnonzero(flags_T & TITLE)
    before = titles - 1
    empty = words.cores[""]
    while len(skipped := np.flatnonzero((before >= 0) & (core_T[before] == empty) & (form_T[before] == words.bare))):
        before[skipped] -= 1
    starts = (before < 0) | (row_T[before] != row_T[titles])
    starts |= words.ends.array[form_T[before]] | ((flags_T[before] & ENDS) != 0) | words.begins.array[form_T[titles]]
    begins_T = np.zeros(len(chunk_T), bool)
    begins_T[titles[starts]] = True
    return begins_T


def ramp(count_N: np.ndarray) -> np.ndarray:
    """0, 1 ... count-1 for each count, end to end."""
    return np.arange(count_N.sum()) - np.repeat(np.cumsum(count_N) - count_N, count_N)

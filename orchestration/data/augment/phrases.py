"""Lemmas of several words as one slot. Takes a batch and a lexicon; gives the batch with each phrase of the thesaurus (take place, in
any of its forms) in one slot, where no mark divides it. Called by the ops with `unit: phrase`; `Batch.split_phrases` undoes it."""

from __future__ import annotations

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.lexicon import MAX_PHRASE, Lexicon

_UNKNOWN = 4


class Merger:
    """Remembers which words may start or follow in a phrase, and which phrases there are."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._ends_K = np.zeros(0, np.uint8)  # of a core: 1 may start a phrase, 2 may come next
        self._known: dict[tuple[int, ...], int] = {}  # cores -> core of the phrase, -1: none

    def __call__(self, batch: Batch) -> Batch:
        starts_T, follows_T = self._ends_of(batch)
        joined_T = batch.joined()
        candidates = np.flatnonzero(starts_T[:-1] & follows_T[1:] & joined_T[1:])
        gone_T = np.zeros(len(batch.core_T), bool)
        core_T, form_T, chunk_T = batch.core_T.copy(), batch.form_T.copy(), batch.chunk_T.copy()
        done = 0
        for slot in candidates.tolist():
            if slot < done:
                continue
            length, core = self._longest(batch, joined_T, slot)
            if length:
                done = slot + length
                core_T[slot], chunk_T[slot] = core, -1
                form_T[slot] = _around(batch, slot, done - 1)
                gone_T[slot + 1 : done] = True
        merged = Batch(batch.words, batch.language, batch.rows, core_T, form_T, chunk_T, batch.row_T)
        return merged.take(np.flatnonzero(~gone_T))

    def _ends_of(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        if len(batch.words.core_texts) > len(self._ends_K):
            more = np.full(2 * len(batch.words.core_texts) - len(self._ends_K), _UNKNOWN, np.uint8)
            self._ends_K = np.concatenate([self._ends_K, more])
        ends_T = self._ends_K[batch.core_T]
        for core in set(batch.core_T[ends_T == _UNKNOWN].tolist()):
            self._ends_K[core] = self._lexicon.may_start(core) + 2 * self._lexicon.may_follow(core)
        ends_T = self._ends_K[batch.core_T]
        return (ends_T & 1) != 0, (ends_T & 2) != 0

    def _longest(self, batch: Batch, joined_T: np.ndarray, slot: int) -> tuple[int, int]:
        """(slots, core) of the longest phrase that starts here; (0, -1) without one."""
        for length in range(MAX_PHRASE, 1, -1):
            end = slot + length
            if end <= len(batch.core_T) and joined_T[slot + 1 : end].all():
                core = self._phrase(tuple(batch.core_T[slot:end].tolist()), batch)
                if core >= 0:
                    return length, core
        return 0, -1

    def _phrase(self, cores: tuple[int, ...], batch: Batch) -> int:
        if cores not in self._known:
            parts = [batch.words.core_texts[core] for core in cores]
            text = (" " if batch.language == "en" else "").join(parts)
            known = self._lexicon.known_phrase(text.lower())
            self._known[cores] = batch.words.cores[text] if known else -1
        return self._known[cores]


def _around(batch: Batch, first: int, last: int) -> int:
    """The form of a phrase: the opening marks and the capital of its first word, the closing marks of its last."""
    lead, _, capital = batch.words.form_texts[batch.form_T[first]]
    return batch.words.forms[(lead, batch.words.form_texts[batch.form_T[last]][1], capital)]

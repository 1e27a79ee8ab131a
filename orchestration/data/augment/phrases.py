"""Lemmas of several words as one slot. Takes a batch and a lexicon; gives the batch with each phrase of the thesaurus (take place, in
any of its forms) in one slot, where no mark divides it. Called by the ops with `unit: phrase`; `Batch.split_phrases` undoes it."""

from __future__ import annotations

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.lexicon import MAX_PHRASE, Lexicon


class Merger:
    """Remembers which words may start or follow in a phrase, and which phrases there are."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._ends: dict[int, tuple[bool, bool]] = {}
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
        cores, inverse = np.unique(batch.core_T, return_inverse=True)
        for core in cores.tolist():
            if core not in self._ends:
                self._ends[core] = self._lexicon.may_start(core), self._lexicon.may_follow(core)
        found = np.array([self._ends[core] for core in cores.tolist()], bool).reshape(-1, 2)[inverse]
        return found[:, 0], found[:, 1]

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

"""Taking words out without breaking what stands around them. Takes a batch and the slots that go; gives the batch without them.
Called by the deleting ops. The marks of a word that goes pass to its neighbours: closing ones to the word before, opening ones
and a sentence's capital to the word after; a pair of brackets around that word alone goes with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.words import WORD, Vocabulary

_WEAK, _STRONG = ",;:，、；：", ".!?…。！？"


def remove(batch: Batch, slots: np.ndarray) -> Batch:
    stays_T = np.ones(len(batch.core_T), bool)
    stays_T[slots] = False
    marked = slots[batch.form_T[slots] != batch.words.bare]
    found = _pass_on(batch, marked, stays_T) if len(marked) else batch
    return found.take(np.flatnonzero(stays_T))


def _pass_on(batch: Batch, marked: np.ndarray, stays_T: np.ndarray) -> Batch:
    words, form_T, chunk_T = batch.words, batch.form_T.copy(), batch.chunk_T.copy()
    kept = np.flatnonzero(stays_T & ((batch.flags() & WORD) != 0))
    behind = np.searchsorted(kept, marked)
    before = np.where(behind > 0, kept[behind - 1] if len(kept) else -1, -1)
    after = np.where(behind < len(kept), kept[np.minimum(behind, len(kept) - 1)] if len(kept) else -1, -1)
    row = batch.row_T
    for slot, left, right in zip(marked.tolist(), before.tolist(), after.tolist(), strict=True):
        lead, trail, capital = words.form_texts[batch.form_T[slot]]
        if len(lead) == 1 and lead + trail[:1] in ("()", "[]", "{}", '""', "“”", "‘’", "''"):
            lead, trail = "", trail[1:]
        if trail and left >= 0 and row[left] == row[slot]:
            form_T[left] = _with_trail(words, int(form_T[left]), trail)
            chunk_T[left] = -1
        if (lead or capital) and right >= 0 and row[right] == row[slot]:
            form_T[right] = _with_lead(words, int(form_T[right]), lead, capital)
            chunk_T[right] = -1
    return replace(batch, form_T=form_T, chunk_T=chunk_T)


def _with_trail(words: Vocabulary, form: int, trail: str) -> int:
    """A sentence's end wins over a comma; what ends a sentence already keeps its end."""
    lead, own, capital = words.form_texts[form]
    if own[-1:] and own[-1] in _STRONG:
        trail = trail.lstrip(_WEAK + _STRONG)
    elif own[-1:] and own[-1] in _WEAK:
        own = own[:-1] if trail[0] in _WEAK + _STRONG else own
    return words.forms[(lead, own + trail, capital)]


def _with_lead(words: Vocabulary, form: int, lead: str, capital: bool) -> int:
    own, trail, own_capital = words.form_texts[form]
    return words.forms[(lead + own, trail, capital or own_capital)]

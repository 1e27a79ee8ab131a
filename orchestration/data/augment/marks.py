"""Taking words out without breaking what stands around them. Takes a batch and the slots that go; gives the batch without them.
Called by the deleting ops. The marks of words that go pass to their neighbours: closing ones to the word before, opening ones and a
sentence's capital to the word after; brackets and quotes around nothing else go too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.words import WORD, Vocabulary

_WEAK, _STRONG = ",;:，、；：", ".!?…。！？"
_STOPS = frozenset(_WEAK + _STRONG)
_CLOSER = {"(": ")", "[": "]", "{": "}", "“": "”", "‘": "’", '"': '"', "'": "'", "«": "»", "<": ">", "*": "*", "_": "_"}


def remove(batch: Batch, slots: np.ndarray) -> Batch:
    stays_T = np.ones(len(batch.core_T), bool)
    stays_T[slots] = False
    marked = slots[batch.form_T[slots] != batch.words.bare]
    found = _pass_on(batch, marked, stays_T) if len(marked) else batch
    empty = np.flatnonzero(batch.core_T == batch.words.cores[""])  # between two spaces
    stays_T[empty[~stays_T[empty - 1]]] = False
    return found.take(np.flatnonzero(stays_T))


def _pass_on(batch: Batch, marked: np.ndarray, stays_T: np.ndarray) -> Batch:
    words, form_T, chunk_T = batch.words, batch.form_T.copy(), batch.chunk_T.copy()
    kept = np.flatnonzero(stays_T & ((batch.flags() & WORD) != 0))
    # Word slots before and after each; -1 where the row has none.
    padded, behind = np.concatenate([[-1], kept, [-1]]), np.searchsorted(kept, marked)
    left, right = padded[behind], padded[behind + 1]
    left[(left >= 0) & (batch.row_T[left] != batch.row_T[marked])] = -1
    right[(right >= 0) & (batch.row_T[right] != batch.row_T[marked])] = -1
    runs = zip(left.tolist(), right.tolist(), batch.row_T[marked].tolist(), batch.form_T[marked].tolist(), strict=True)
    for (before, after, _), run in groupby(runs, key=lambda item: item[:3]):
        closing, opening, capital = _condense(words.form_texts[form] for *_, form in run)
        if closing and before >= 0:
            form_T[before], chunk_T[before] = _with_trail(words, int(form_T[before]), closing), -1
        if (opening or capital) and after >= 0:
            lead, trail, own = words.form_texts[form_T[after]]
            form_T[after], chunk_T[after] = words.forms[(opening + lead, trail, own or capital)], -1
    return replace(batch, form_T=form_T, chunk_T=chunk_T)


def _condense(forms: Iterable[tuple[str, str, bool]]) -> tuple[str, str, bool]:
    """Closing marks, opening marks and capital that remain of a run of words; a pair goes with all that stood inside."""
    closing, open_, capitals = "", [], []
    for lead, trail, capital in forms:
        capitals.append(capital)
        open_ += [(mark, len(closing)) for mark in lead]
        rest = ""
        for mark in trail:
            if open_ and _CLOSER.get(open_[-1][0]) == mark:
                closing, rest = closing[: open_.pop()[1]], ""
            else:
                rest += mark
        closing = _joined(closing, rest)
    return closing, "".join(mark for mark, _ in open_), any(capitals)


def _with_trail(words: Vocabulary, form: int, trail: str) -> int:
    lead, own, capital = words.form_texts[form]
    return words.forms[(lead, _joined(own, trail), capital)]


def _joined(own: str, more: str) -> str:
    """Closing marks of two words. A sentence's end wins over a comma; of two of a kind the first stays."""
    bare = more.lstrip(_WEAK + _STRONG)
    if not own or own[-1] not in _STOPS or bare == more:
        return own + more
    return own + bare if own[-1] in _STRONG or more[0] in _WEAK else own[:-1] + more

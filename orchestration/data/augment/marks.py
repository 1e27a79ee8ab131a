"""Taking words out without breaking what stands around them. Takes a batch and the slots that go; gives the batch without them.
Called by the deleting ops. The marks of words that go pass to their neighbours: closing ones to the word before, opening ones and a
sentence's capital to the word after; brackets and quotes around nothing else go too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

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
    behind = ~stays_T[empty - 1] & (batch.row_T[empty - 1] == batch.row_T[empty]) & (empty > 0)
    stays_T[empty[behind]] = False
    return found.take(np.flatnonzero(stays_T))


def _pass_on(batch: Batch, marked: np.ndarray, stays_T: np.ndarray) -> Batch:
    words, form_T, chunk_T = batch.words, batch.form_T.copy(), batch.chunk_T.copy()
    kept = np.flatnonzero(stays_T & ((batch.flags() & WORD) != 0))
    # Word slots before and after each; -1 where the row has none.
    padded, behind = np.concatenate([[-1], kept, [-1]]), np.searchsorted(kept, marked)
    left, right = padded[behind], padded[behind + 1]
    left[(left >= 0) & (batch.row_T[left] != batch.row_T[marked])] = -1
    right[(right >= 0) & (batch.row_T[right] != batch.row_T[marked])] = -1
    gone_M, ends = batch.form_T[marked].tolist(), np.ones(len(marked) + 1, bool)
    ends[1:-1] = (left[1:] != left[:-1]) | (right[1:] != right[:-1]) | (np.diff(batch.row_T[marked]) != 0)
    bounds = np.flatnonzero(ends)
    starts = bounds[:-1]
    runs = zip(starts.tolist(), bounds[1:].tolist(), left[starts].tolist(), right[starts].tolist(), strict=True)
    # One after the other: a word between two runs takes marks of both.
    for start, end, before, after in runs:
        name = (
            int(form_T[before]) if before >= 0 else -1,
            *gone_M[start:end],
            int(form_T[after]) if after >= 0 else -1,
        )
        found = words.passed.get(name)
        if found is None:
            found = words.passed[name] = _passed(words, name)
        if found[0] != name[0]:
            form_T[before], chunk_T[before] = found[0], -1
        if found[1] != name[-1]:
            form_T[after], chunk_T[after] = found[1], -1
    return replace(batch, form_T=form_T, chunk_T=chunk_T)


def _passed(words: Vocabulary, name: tuple[int, ...]) -> tuple[int, int]:
    """The forms of the words before and after a run of forms that goes; -1 stands for no word."""
    before, *gone, after = name
    closing, opening, capital = _condense(words.form_texts[form] for form in gone)
    if before >= 0 and closing:
        lead, trail, own = words.form_texts[before]
        before = words.forms[(lead, _joined(trail, closing), own)]
    if after >= 0:
        lead, trail, own = words.form_texts[after]
        after = words.forms[(opening + lead, trail, own or capital)]
    return before, after


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


def _joined(own: str, more: str) -> str:
    """Closing marks of two words. A sentence's end wins over a comma; of two of a kind the first stays."""
    bare = more.lstrip(_WEAK + _STRONG)
    if not own or own[-1] not in _STOPS or bare == more:
        return own + more
    return own + bare if own[-1] in _STRONG or more[0] in _WEAK else own[:-1] + more

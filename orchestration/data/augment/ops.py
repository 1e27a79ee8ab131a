"""The five ops on words. Each takes a batch, a key a row, which rows it may change, and its rate; gives the changed batch. Called by
`augmenter`. Laws, for a row of W words (slots with a letter or digit):

- synonyms: each word that has fitting synonyms with probability `rate`, one at least where there is one; all its synonyms alike.
- insert: n = max(1, int(rate x W)) times a synonym of a random word that has some, before a random word (EDA).
- substitute: n = max(1, int(rate x W)) different words that can be (all, where fewer can), by a random word of their class.
- delete: each word with probability `rate`; where all would go a random one stays. Phrase: a run of 2, 3 or 4 words, cut at marks,
  starts at each word with probability `rate` / 3, so that about `rate` of the words go.
- swap: n = max(1, int(rate x W)) times two random different words, one after the other (EDA). Phrase: each two neighbouring phrases
  between marks with probability `rate`, one pair at least; of overlapping pairs the first.

EDA: Wei and Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks", EMNLP 2019."""

from __future__ import annotations

import numpy as np

from orchestration.data.augment import draws
from orchestration.data.augment.batch import Batch, ramp
from orchestration.data.augment.lexicon import Lexicon, Options
from orchestration.data.augment.marks import remove
from orchestration.data.augment.words import NEGATES

RUN = 3  # words of a deleted phrase on average: 2, 3 or 4


def synonyms(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float, lexicon: Lexicon) -> Batch:
    slots, first_C, end_C = _replaceable(batch, active_N, lexicon, lexicon.synonyms)
    row_C = batch.row_T[slots]
    number_C = draws.mix(key_N[row_C], batch.places()[slots] + draws.STRIKE)
    hit = np.flatnonzero(draws.struck(number_C, rate, row_C, key_N))
    at = first_C[hit] + draws.below(number_C[hit], end_C[hit] - first_C[hit])
    return batch.with_cores(slots[hit], lexicon.cores[at])


def substitute(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float, lexicon: Lexicon) -> Batch:
    slots, first_C, end_C = _replaceable(batch, active_N, lexicon, lexicon.substitutes)
    fits = (batch.flags()[slots] & NEGATES) == 0
    slots, first_C, end_C = slots[fits], first_C[fits], end_C[fits]
    row_C = batch.row_T[slots]
    number_C = draws.mix(key_N[row_C], batch.places()[slots] + draws.STRIKE)
    count_N = draws.eda_counts(rate, np.bincount(batch.row_T[batch.word_slots()], minlength=batch.rows))
    hit = np.flatnonzero(draws.chosen(number_C, row_C, count_N))
    first, size = first_C[hit], (end_C - first_C)[hit]
    offset = draws.below(draws.mix(key_N[row_C[hit]], batch.places()[slots[hit]] + draws.PICK), size)
    same = lexicon.cores[first + offset] == batch.core_T[slots[hit]]
    cores = lexicon.cores[first + np.where(same, (offset + 1) % size, offset)]
    return batch.with_cores(slots[hit], cores)


def insert(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float, lexicon: Lexicon) -> Batch:
    slots, first_C, end_C = _replaceable(batch, active_N, lexicon, lexicon.synonyms)
    words = batch.word_slots(active_N)
    words_N = np.bincount(batch.row_T[words], minlength=batch.rows)
    sources_N = np.bincount(batch.row_T[slots], minlength=batch.rows)
    count_N = np.where(sources_N > 0, draws.eda_counts(rate, words_N), 0)
    row_I, turn_I = np.repeat(np.arange(batch.rows), count_N), ramp(count_N)
    pick_I, place_I = (draws.mix(key_N[row_I], turn_I + stream) for stream in (draws.PICK, draws.PLACE))
    source_I = (np.cumsum(sources_N) - sources_N)[row_I] + draws.below(pick_I, sources_N[row_I])
    size_I = end_C[source_I] - first_C[source_I]
    core_I = lexicon.cores[first_C[source_I] + ((pick_I >> np.uint64(32)) % size_I.astype(np.uint64)).astype(np.int64)]
    slot_I = words[(np.cumsum(words_N) - words_N)[row_I] + draws.below(place_I, words_N[row_I])]
    order = np.argsort(slot_I, kind="stable")
    return _put_before(batch, slot_I[order], core_I[order])


def _put_before(batch: Batch, slot_I: np.ndarray, core_I: np.ndarray) -> Batch:
    """New words before these slots (ascending). The first at a slot takes over its opening marks and capital."""
    added_T = np.bincount(slot_I, minlength=len(batch.core_T))
    moved_T = np.arange(len(batch.core_T)) + np.cumsum(added_T)
    found = batch.take(np.repeat(np.arange(len(batch.core_T)), added_T + 1))
    target_I = _free(moved_T, len(found.core_T))
    found.core_T[target_I], found.chunk_T[target_I], found.form_T[target_I] = core_I, -1, batch.words.bare
    at = np.flatnonzero(added_T)
    form_A = batch.form_T[at]
    marked = form_A != batch.words.bare
    at, form_A = at[marked], form_A[marked]
    found.form_T[moved_T[at] - added_T[at]] = batch.words.heads(form_A)
    found.form_T[moved_T[at]] = batch.words.tails(form_A)
    found.chunk_T[moved_T[at]] = -1
    return found


def _free(taken: np.ndarray, total: int) -> np.ndarray:
    is_free = np.ones(total, bool)
    is_free[taken] = False
    return np.flatnonzero(is_free)


def delete(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float) -> Batch:
    words = batch.word_slots(active_N)
    row_W = batch.row_T[words]
    place_W, words_N = draws.places(row_W, batch.rows)
    gone_W = draws.mix(key_N[row_W], place_W + draws.STRIKE) <= draws.threshold(rate)
    return remove(batch, words[_one_stays(gone_W, row_W, words_N, key_N)])


def delete_phrases(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float) -> Batch:
    words = batch.word_slots(active_N)
    row_W = batch.row_T[words]
    place_W, words_N = draws.places(row_W, batch.rows)
    number_W = draws.mix(key_N[row_W], place_W + draws.STRIKE)
    bounds = _phrase_bounds(batch, words)
    end_W = np.repeat(bounds[1:], np.diff(bounds))
    starts = np.flatnonzero(number_W <= draws.threshold(rate / RUN))
    length = np.minimum(2 + draws.below(number_W[starts] * np.uint64(3), 3), end_W[starts] - starts)
    starts, length = starts[length > 1], length[length > 1]
    gone_W = np.zeros(len(words), bool)
    gone_W[np.repeat(starts, length) + ramp(length)] = True
    return remove(batch, words[_one_stays(gone_W, row_W, words_N, key_N)])


def _one_stays(gone_W: np.ndarray, row_W: np.ndarray, words_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    gone_N = np.bincount(row_W[gone_W], minlength=len(key_N))
    empty_N = np.flatnonzero((gone_N == words_N) & (words_N > 0))
    first_N = np.cumsum(words_N) - words_N
    gone_W[first_N[empty_N] + draws.below(draws.mix(key_N[empty_N], draws.ONE), words_N[empty_N])] = False
    return gone_W


def swap(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float) -> Batch:
    words = batch.word_slots(active_N)
    words_N = np.bincount(batch.row_T[words], minlength=batch.rows)
    order_W = swapped(words_N, key_N, rate)
    moved = np.flatnonzero(order_W != np.arange(len(words)))
    return batch.with_cores(words[moved], batch.core_T[words[order_W[moved]]])


def swapped(words_N: np.ndarray, key_N: np.ndarray, rate: float) -> np.ndarray:
    """Which word stands at each place after the swaps (int64 W, places counted over all rows)."""
    order_W, first_N = np.arange(words_N.sum()), np.cumsum(words_N) - words_N
    count_N = np.where(words_N > 1, draws.eda_counts(rate, words_N), 0)
    rows, turn = np.flatnonzero(count_N), 0
    while len(rows):
        one = draws.below(draws.mix(key_N[rows], draws.SWAP + 2 * turn), words_N[rows])
        two = draws.below(draws.mix(key_N[rows], draws.SWAP + 2 * turn + 1), words_N[rows] - 1)
        two += two >= one
        one, two = one + first_N[rows], two + first_N[rows]
        order_W[one], order_W[two] = order_W[two], order_W[one]
        turn += 1
        rows = rows[count_N[rows] > turn]
    return order_W


def swap_phrases(batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None, rate: float) -> Batch:
    words = batch.word_slots(active_N)
    bounds = _phrase_bounds(batch, words)
    start_P, end_P = bounds[:-1], bounds[1:]
    row_P = batch.row_T[words[start_P]]
    pairs = np.flatnonzero(row_P[1:] == row_P[:-1])  # a phrase that has a neighbour behind it
    place, _ = draws.places(row_P[pairs], batch.rows)
    hit = np.zeros(len(start_P) + 1, bool)
    hit[pairs] = draws.struck(draws.mix(key_N[row_P[pairs]], place + draws.SWAP), rate, row_P[pairs], key_N)
    hit[1:] &= ~hit[:-1]
    one = np.flatnonzero(hit)
    two = one + 1
    return _exchange(
        batch, words[start_P[one]], words[end_P[one] - 1] + 1, words[start_P[two]], words[end_P[two] - 1] + 1
    )


def _exchange(batch: Batch, start: np.ndarray, stop: np.ndarray, second: np.ndarray, end: np.ndarray) -> Batch:
    """Slots start..stop and second..end change places; what stands between stays between, and marks stay where they were."""
    size, back = end - start, end - second
    place, pair = ramp(size), np.repeat(np.arange(len(start)), size)
    at = start[pair] + place
    moved_between = place - back[pair] + stop[pair]
    moved_first = place - (size - (stop - start))[pair] + start[pair]
    from_ = np.where(place < back[pair], second[pair] + place, moved_between)
    from_ = np.where(place >= (size - (stop - start))[pair], moved_first, from_)
    order_T = np.arange(len(batch.core_T))
    order_T[at] = from_
    words, found = batch.words, batch.take(order_T)
    for first, last, old_first, old_last in (
        (start, start + back - 1, start, stop - 1),
        (end - (stop - start), end - 1, second, end - 1),
    ):
        found.form_T[first], found.form_T[last] = words.bare, words.bare
        found.form_T[first] = words.heads(batch.form_T[old_first])
        found.form_T[last] = words.around(found.form_T[last], words.tails(batch.form_T[old_last]))
        found.chunk_T[first], found.chunk_T[last] = -1, -1
    return found


def _phrase_bounds(batch: Batch, words: np.ndarray) -> np.ndarray:
    """Where phrases start, in places of `words`, and the end: a phrase ends at a mark, a slot that is no word, the row's end."""
    breaks = np.ones(len(words) + 1, bool)
    breaks[1:-1] = (np.diff(words) != 1) | ~batch.joined()[words[1:]]
    return np.flatnonzero(breaks)


def _replaceable(
    batch: Batch, active_N: np.ndarray | None, lexicon: Lexicon, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots whose word has options that fit the article before it, with the range of these options (int64 C)."""
    can_T = options.exists(batch.core_T)
    if active_N is not None:
        can_T &= active_N[batch.row_T]
    if lexicon.language != batch.language:
        can_T[:] = False
    slots = np.flatnonzero(can_T)
    first_C, end_C = lexicon.fitting(options, batch, slots)
    fits = end_C > first_C
    return slots[fits], first_C[fits], end_C[fits]

"""The text ops on token ids, with no text in between. Takes rows of ids end to end; gives changed rows. Called by `epochs` for
`augment.when: epoch`, where a row changes in each epoch. The same ops by the same laws as on texts: a word is a group of tokens
(WordPiece: a piece and its `##` pieces; byte-level BPE and Unigram: from a leading space on), known by a number like any other word.

What ids do not show is lost: to WordPiece `well-made` is two words and a mark, and marks are slots of their own that stay in place.
Special tokens stay, in their order. Chinese rows stay as they are: their tokens are characters, which show no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from orchestration.data.augment import draws as keys
from orchestration.data.augment.batch import Batch, of_chunks, ramp
from orchestration.data.augment.chunker import Slots
from orchestration.data.augment.pieces import NeedsText, Pieces
from orchestration.data.augment.runner import Runner
from orchestration.data.augment.words import Column, Known
from orchestration.data.config import AugmentConfig

BATCH_TOKENS = 60_000  # at a time
_SPECIAL = "\1."  # the chunk of special tokens: no word, and a sentence may start behind it

Rows = tuple[np.ndarray, np.ndarray]  # ids (int32 T) and the row of each (int64 T, ascending)


class IdAugmenter:
    """The text ops of a spec on the ids of one tokenizer."""

    def __init__(
        self,
        config: AugmentConfig,
        tokenizer_folder: Path,
        *,
        labels: list[str],
        tables: list[str],
        storage_url: str,
        seed: int,
        max_length: int,
    ) -> None:
        """Raises NeedsText for the op `voice`, and for a tokenizer whose pieces do not show where a word starts."""
        if any(op.op == "voice" for op in config.ops):
            raise NeedsText("voice parses sentences")
        self._seed, self._max_length = seed, max_length
        self._runner = Runner(config, labels=labels, tables=tables, storage_url=storage_url)
        self._pieces = Pieces(Path(tokenizer_folder))
        self.reads_texts = self._runner.reads_texts  # does an op skip rows by their words?
        self._forget()

    def _forget(self) -> None:
        self._runner.forget()
        self._chunk_V = np.full(len(self._pieces.starts_V), -1, np.int32)  # of a word of one token
        self._chunk_of: dict[int, int] = {}  # hash of a word of several tokens -> chunk
        self._slots = Slots()  # the same, for arrays
        self._places = Slots()  # of words that were written, for arrays
        self._written = Known(self._write)  # (core << 32 | form) << 1 | first of its row -> place in the columns below
        self._pool, self._start, self._length = Column(np.int32), Column(np.int64), Column(np.int64)

    def ids(
        self,
        values_T: np.ndarray,
        offsets_N1: np.ndarray,
        row_ids: Sequence[bytes],
        labels: Sequence[int],
        draws: Sequence[int],
        texts: Sequence[str] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changed ids (int32, rows end to end) and their offsets (int64 N+1). A row that no draw could change stays as it is, one
        that grows beyond `max_length` loses its last words. `row_ids`, `labels`, `draws` as for `Augmenter.texts`. `texts`: of
        the rows, where `reads_texts`; else they are not looked at."""
        values_T, row_T, rows = _flat(values_T, offsets_N1)
        key_N, label_N = keys.row_keys(self._seed, row_ids, draws), np.asarray(labels, np.int64)
        chinese_N = self._pieces.chinese(values_T, row_T, rows)
        stays_T = chinese_N[row_T]
        found = [(values_T[stays_T], row_T[stays_T])]
        found += self._pieced(values_T[~stays_T], row_T[~stays_T], label_N, key_N, texts)
        values, row = _in_order(found) if chinese_N.any() else tuple(map(np.concatenate, zip(*found, strict=True)))
        return values, np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])

    def chinese(self, values_T: np.ndarray, offsets_N1: np.ndarray) -> np.ndarray:
        """Rows that stay as they are, since only their texts have words (bool N)."""
        return self._pieces.chinese(*_flat(values_T, offsets_N1))

    def _pieced(
        self, values_T: np.ndarray, row_T: np.ndarray, label_N: np.ndarray, key_N: np.ndarray, texts: Sequence[str]
    ) -> list[Rows]:
        """Parts of whole rows, some BATCH_TOKENS each: arrays that stay in the processor's cache."""
        found, start = [], 0
        while start < len(values_T):
            end = int(np.searchsorted(row_T, row_T[min(start + BATCH_TOKENS, len(row_T)) - 1], side="right"))
            rows, local_T = np.unique(row_T[start:end], return_inverse=True)
            own = [texts[row] for row in rows.tolist()] if self.reads_texts else ()
            values, row = self._part(values_T[start:end], local_T, label_N[rows], key_N[rows], own)
            found.append((values, rows[row]))
            start = end
        return found

    def _part(
        self, values_T: np.ndarray, row_T: np.ndarray, label_N: np.ndarray, key_N: np.ndarray, texts: Sequence[str]
    ) -> Rows:
        if self._runner.full:
            self._forget()
        rows, groups = len(key_N), _Groups(values_T, row_T, self._pieces)
        chunk_G = self._chunks(groups)
        whole = of_chunks(chunk_G, groups.row_G, rows, "en", self._runner.words)
        whole = replace(whole, chunk_T=np.arange(len(chunk_G), dtype=np.int32))  # which group an unchanged slot is
        slots_N = np.bincount(whole.row_T, minlength=rows)
        done: list[Rows] = []
        left_N = np.ones(rows, bool)

        def use(part: np.ndarray, after: Batch, fit_N: np.ndarray) -> np.ndarray:
            changed_N = np.bincount(after.row_T, after.chunk_T < 0, minlength=len(part)) > 0
            changed_N |= np.bincount(after.row_T, minlength=len(part)) != slots_N[part]
            done_N = fit_N & changed_N
            if done_N.any():
                after = after if done_N.all() else after.select(np.flatnonzero(done_N))
                ids, row = self._short(*self._shown(after, groups))
                done.append((ids, part[done_N][row]))
                left_N[part[done_N]] = False
            return done_N

        self._runner.tries(whole, texts, label_N, key_N, use)
        stays_T = left_N[row_T]
        return _in_order([*done, (values_T[stays_T], row_T[stays_T])])

    # ---------------------------------------------------------------- ids to words

    def _chunks(self, groups: _Groups) -> np.ndarray:
        """The number of each group's text (int32 G)."""
        first_G = groups.values_T[groups.start_G]
        chunk_G = self._chunk_V[first_G]
        one_G = groups.length_G == 1
        for token in set(first_G[one_G & (chunk_G < 0)].tolist()):
            self._chunk_V[token] = self._named([token])
        chunk_G = self._chunk_V[first_G]
        several = np.flatnonzero(~one_G)
        hash_S = groups.hashes(several)
        chunk_S, strange = self._slots.find(hash_S)
        for at, number in zip(strange.tolist(), hash_S[strange].tolist(), strict=True):
            if number not in self._chunk_of:
                self._chunk_of[number] = self._named(groups.tokens(int(several[at])))
            chunk_S[at] = self._chunk_of[number]
        self._slots.keep(hash_S[strange], chunk_S[strange])
        chunk_G[several] = chunk_S
        return chunk_G

    def _named(self, tokens: list[int]) -> int:
        words = self._runner.words
        text = _SPECIAL if self._pieces.special_V[tokens[0]] else self._pieces.decode(tokens)
        return words.chunks[text if text != words.MARK else _SPECIAL]

    # ---------------------------------------------------------------- words to ids

    def _shown(self, batch: Batch, groups: _Groups) -> Rows:
        """Unchanged slots have the ids of their group, others those of their word alone."""
        chunk_T = batch.chunk_T
        first_T = np.zeros(len(chunk_T), bool)
        if self._pieces.first_differs:
            special_T = (chunk_T >= 0) & groups.special_G[chunk_T]
            first_T = _firsts(~special_T, batch.row_T)
            chunk_T = np.where((chunk_T >= 0) & ~special_T & (groups.first_G[chunk_T] != first_T), -1, chunk_T)
        new = np.flatnonzero(chunk_T < 0)
        names = (batch.core_T[new].astype(np.int64) << 32 | batch.form_T[new]) << 1 | first_T[new]
        number = self._numbers(names)
        start_T, length_T = groups.start_G[chunk_T], groups.length_G[chunk_T]
        start_T[new] = self._start.array[number] + len(groups.values_T)
        length_T[new] = self._length.array[number]
        source = np.concatenate([groups.values_T, self._pool.array])
        return source[np.repeat(start_T, length_T) + ramp(length_T)], np.repeat(batch.row_T, length_T)

    def _numbers(self, names: np.ndarray) -> np.ndarray:
        """The place of each name's ids in the columns. Distinct names have distinct hashes: the mixer is a bijection."""
        hash_K = keys.mix(names.astype(np.uint64), 0)
        number_K, strange = self._places.find(hash_K)
        number_K[strange] = [self._written[name] for name in names[strange].tolist()]
        self._places.keep(hash_K[strange], number_K[strange])
        return number_K

    def _write(self, name: int) -> int:
        pair, first = name >> 1, bool(name & 1)
        ids = self._pieces.encode(self._runner.words.render(pair >> 32, pair & 0xFFFFFFFF), first=first)
        self._start.append(len(self._pool))
        self._length.append(len(ids))
        self._pool.extend(ids)
        return len(self._start) - 1

    def _short(self, values_T: np.ndarray, row_T: np.ndarray) -> Rows:
        """Rows of at most `max_length`: the last tokens that are not special leave."""
        length_N = np.bincount(row_T)
        if length_N.max() <= self._max_length:
            return values_T, row_T
        special_T = self._pieces.special_V[values_T]
        room_N = self._max_length - np.bincount(row_T, special_T).astype(np.int64)
        place_T = np.cumsum(~special_T)
        before_N = place_T[np.cumsum(length_N) - length_N] - ~special_T[np.cumsum(length_N) - length_N]
        stays_T = special_T | (place_T - before_N[row_T] <= room_N[row_T])
        return values_T[stays_T], row_T[stays_T]


class _Groups:
    """Words of rows of ids: where each starts, how many tokens it has, its row."""

    def __init__(self, values_T: np.ndarray, row_T: np.ndarray, pieces: Pieces) -> None:
        self.values_T = values_T
        self.start_G = np.flatnonzero(pieces.word_starts(values_T, row_T))
        self.length_G = np.diff(np.append(self.start_G, len(values_T)))
        self.row_G = row_T[self.start_G]
        self.special_G = pieces.special_V[values_T[self.start_G]]
        self.first_G = _firsts(~self.special_G, self.row_G)

    def tokens(self, group: int) -> list[int]:
        return self.values_T[self.start_G[group] : self.start_G[group] + self.length_G[group]].tolist()

    def hashes(self, groups: np.ndarray) -> np.ndarray:
        """A 64-bit hash of the tokens of each group in their order (uint64)."""
        length = self.length_G[groups]
        place = ramp(length)
        token = self.values_T[np.repeat(self.start_G[groups], length) + place].astype(np.uint64)
        number = keys.mix(token << np.uint64(16) | place.astype(np.uint64), 0)
        return keys.mix(np.add.reduceat(number, np.cumsum(length) - length), 0) if len(groups) else number


def _flat(values_T: np.ndarray, offsets_N1: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Tokens, the row of each, and how many rows there are."""
    rows = len(offsets_N1) - 1
    values_T = np.asarray(values_T[offsets_N1[0] : offsets_N1[-1]], np.int32)
    return values_T, np.repeat(np.arange(rows), np.diff(offsets_N1)), rows


def _firsts(counts_T: np.ndarray, row_T: np.ndarray) -> np.ndarray:
    """Is this the first slot of its row that counts? bool T."""
    found_T = np.zeros(len(row_T), bool)
    places = np.flatnonzero(counts_T)
    new = np.ones(len(places), bool)
    new[1:] = row_T[places[1:]] != row_T[places[:-1]]
    found_T[places[new]] = True
    return found_T


def _in_order(parts: list[Rows]) -> Rows:
    values, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return values[order], row[order]

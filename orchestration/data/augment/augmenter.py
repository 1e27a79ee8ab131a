"""Augmented copies of rows. Takes texts (or one image, sound or series) with their row ids, labels and copy numbers or epochs; gives
the changed ones. Called by `prepare` in workers, by `eagleray data preview` and by training. Every choice is a pure function of
(seed, row id, copy or epoch, op, place in the row): a row alone and the same row in any batch become the same text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from orchestration.data import rng
from orchestration.data.augment import draws, ops, thesaurus
from orchestration.data.augment.batch import Batch, language, parse
from orchestration.data.augment.filters import passes
from orchestration.data.augment.inflect import KEPT
from orchestration.data.augment.lexicon import Lexicon, forms
from orchestration.data.augment.phrases import Merger
from orchestration.data.augment.skip import Skip
from orchestration.data.augment.stage import TAGGER
from orchestration.data.augment.words import Vocabulary
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, AugmentConfig
from orchestration.storage import Storage

BATCH_CHARS = 150_000  # at a time: arrays stay in the processor's cache
MAX_CHUNKS = 1_000_000  # distinct words remembered, some 300 MB; then the vocabulary starts anew
MEDIA_OPS = {"image": IMAGE_OPS, "audio": AUDIO_OPS, "series": ("noise", "time_mask")}


class Augmenter:
    """The ops of a spec, ready to use. Keeps what it learnt of words from batch to batch, which changes no result."""

    def __init__(
        self, config: AugmentConfig, *, labels: list[str], tables: list[str], storage_url: str, seed: int
    ) -> None:
        """`tables` as `stage_ops` gave them."""
        self._config, self._seed, self._tables, self._storage_url = config, seed, tables, storage_url
        self._skips = [Skip(op.skip, labels) for op in config.ops]
        self._text_ops = [number for number, op in enumerate(config.ops) if op.op in TEXT_OPS]
        self._media = lru_cache(maxsize=64)(self._build_media)
        self._voice = lru_cache(maxsize=8)(self._build_voice)
        self._forget()

    def _forget(self) -> None:
        self._words = Vocabulary(self._common)
        self._lexicons: dict[int, Lexicon] = {}
        self._mergers: dict[int, Merger] = {}

    # ---------------------------------------------------------------- texts

    def texts(
        self, texts: Sequence[str], row_ids: Sequence[bytes], labels: Sequence[int], draws: Sequence[int]
    ) -> list[str | None]:
        """The text of each row's copy; None where no draw changed it and passed the filter. `draws`: copy numbers or epochs,
        `row_ids`: 16 bytes each, `labels`: class numbers (-1: none)."""
        found: list[str | None] = [None] * len(texts)
        kinds: dict[str, list[int]] = {"en": [], "zh": []}
        for number, text in enumerate(texts):
            kinds[language(text)].append(number)
        for kind, rows in kinds.items():
            for part in _parts(rows, texts):
                changed = self._part(
                    kind,
                    [texts[row] for row in part],
                    [row_ids[row] for row in part],
                    np.array([labels[row] for row in part], np.int64),
                    [draws[row] for row in part],
                )
                for row, new in zip(part, changed, strict=True):
                    found[row] = new
        return found

    def _part(
        self, kind: str, texts: list[str], row_ids: list[bytes], label_N: np.ndarray, copies: list[int]
    ) -> list[str | None]:
        if len(self._words) > MAX_CHUNKS:
            self._forget()
        found: list[str | None] = [None] * len(texts)
        rows = np.arange(len(texts))
        key_N = draws.row_keys(self._seed, row_ids, copies)
        whole = parse(texts, kind, self._words)
        filter_ = self._config.filter
        for turn in range(filter_.tries if filter_ else 1):
            before = whole if turn == 0 else whole.select(rows)
            own = texts if turn == 0 else [texts[row] for row in rows]
            after = self._apply(before, own, label_N[rows], draws.mix(key_N[rows], turn))
            good_N = passes(before, after, filter_) if filter_ else np.ones(len(rows), bool)
            good = good_N.tolist()
            for number, (row, text) in enumerate(zip(rows.tolist(), after.texts(), strict=True)):
                if text != texts[row] and good[number]:
                    found[row] = text
            rows = np.array([row for row in rows.tolist() if found[row] is None], np.int64)
            if not len(rows):
                break
        return found

    def _apply(self, batch: Batch, texts: list[str], label_N: np.ndarray, key_N: np.ndarray) -> Batch:
        """All ops in order, or one a row."""
        pick_N = draws.below(draws.mix(key_N, draws.PICK), len(self._text_ops)) if self._config.pick == "one" else None
        for turn, number in enumerate(self._text_ops):
            active_N = self._skips[number].active(texts, label_N)
            if pick_N is not None:
                active_N = (pick_N == turn) if active_N is None else active_N & (pick_N == turn)
            batch = self._run(number, batch, draws.mix(key_N, number), active_N)
        return batch

    def _run(self, number: int, batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None) -> Batch:
        op: Any = self._config.ops[number]
        if op.op == "voice":
            return self._voiced(number, batch, key_N, active_N)
        phrase = op.unit == "phrase"
        if op.op == "delete":
            return (ops.delete_phrases if phrase else ops.delete)(batch, key_N, active_N, op.rate)
        if op.op == "swap":
            return (ops.swap_phrases if phrase else ops.swap)(batch, key_N, active_N, op.rate)
        lexicon = self._lexicon(number)
        if lexicon.language != batch.language:
            return batch
        if phrase:
            batch = self._mergers[number](batch)
        change = {"synonyms": ops.synonyms, "insert": ops.insert, "substitute": ops.substitute}[op.op]
        return change(batch, key_N, active_N, op.rate, lexicon).split_phrases()

    def _lexicon(self, number: int) -> Lexicon:
        if number not in self._lexicons:
            op: Any = self._config.ops[number]
            table = thesaurus.load(self._storage_url, self._tables[number])
            self._lexicons[number] = Lexicon(table, self._words, phrases=op.unit == "phrase")
            self._mergers[number] = Merger(self._lexicons[number])
        return self._lexicons[number]

    def _voiced(self, number: int, batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None) -> Batch:
        """Voice works on whole texts: the batch is shown, changed, and read again."""
        if batch.language != "en":
            return batch
        active = range(batch.rows) if active_N is None else np.flatnonzero(active_N).tolist()
        texts, change = batch.texts(), self._voice(number)
        for row in active:
            texts[row] = change(texts[row], int(key_N[row]))
        return parse(texts, batch.language, self._words)

    def _build_voice(self, number: int) -> Callable[[str, int], str]:
        from orchestration.data.augment import voice

        folder = Storage(self._storage_url).fetch(self._tables[number])
        return voice.build(self._config.ops[number], folder / TAGGER)  # type: ignore[arg-type]

    @cached_property
    def _tables_en(self) -> list[dict[str, list[Any]]]:
        named = {rel for op, rel in zip(self._config.ops, self._tables, strict=True) if hasattr(op, "thesaurus")}
        tables = [thesaurus.load(self._storage_url, rel) for rel in sorted(named)]
        return [table["words"] for table in tables if table["language"] == "en"]

    def _common(self, lower: str) -> bool:
        """A word of grammar or of a thesaurus, in any form: no name, so it loses its capital inside a sentence."""
        if lower in KEPT:
            return True
        bases = [lower, *(base for base, _ in forms(lower))]
        return any(base in table for table in self._tables_en for base in bases)

    # ---------------------------------------------------------------- media

    def media(self, kind: str, array: np.ndarray, *, row_id: bytes, label: int, text: str, draw: int) -> np.ndarray:
        """One image (frames x size x size x 3), sound (samples) or series (window x columns) of a row, changed by the ops of its
        kind; `text` is the row's, for ops that skip rows by words."""
        row_key = draws.row_keys(self._seed, [row_id], [draw])
        numbers = [number for number, op in enumerate(self._config.ops) if op.op in MEDIA_OPS[kind]]
        if self._config.pick == "one" and numbers:
            numbers = [numbers[int(draws.below(draws.mix(row_key, draws.PICK), len(numbers))[0])]]
        for number in numbers:
            active_N = self._skips[number].active([text], np.array([label]))
            if active_N is None or active_N[0]:
                array = self._media(kind, number)(array, rng.mix(int(row_key[0]), number))
        return array

    def _build_media(self, kind: str, number: int) -> Callable[[np.ndarray, int], np.ndarray]:
        if kind == "image":
            from orchestration.data.augment import image as module
        else:
            from orchestration.data.augment import audio as module  # type: ignore[no-redef]
        return module.build(self._config.ops[number])


def _parts(rows: list[int], texts: Sequence[str]) -> list[list[int]]:
    """Rows in runs of some BATCH_CHARS characters, without the few that hold the character that marks rows."""
    parts: list[list[int]] = []
    room = 0
    for row in rows:
        if Vocabulary.MARK in texts[row]:
            continue
        if room <= 0:
            parts.append([])
            room = BATCH_CHARS
        parts[-1].append(row)
        room -= len(texts[row]) + 1
    return parts

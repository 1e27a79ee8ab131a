"""The text ops of a spec over a batch. Takes a batch and a key a row; gives changed batches, drawn again where the filter says no.
Called by `augmenter` (texts) and `ids` (token ids), which differ only in how a batch is read and shown. Keeps what it learnt of
words from batch to batch, which changes no result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from orchestration.data.augment import draws, ops, thesaurus
from orchestration.data.augment.batch import Batch, parse
from orchestration.data.augment.filters import passes
from orchestration.data.augment.inflect import KEPT
from orchestration.data.augment.lexicon import Lexicon, forms, may_be_form
from orchestration.data.augment.phrases import Merger
from orchestration.data.augment.skip import Skip
from orchestration.data.augment.stage import TAGGER
from orchestration.data.augment.words import Vocabulary
from orchestration.data.config import TEXT_OPS, AugmentConfig
from orchestration.storage import Storage

MAX_CHUNKS = 1_000_000  # distinct words remembered, some 300 MB; then the vocabulary starts anew

# (rows, the batch of them changed, which of them pass the filter) -> which of them are done; the others are drawn again.
Use = Callable[[np.ndarray, Batch, np.ndarray], np.ndarray]


class Runner:
    def __init__(self, config: AugmentConfig, *, labels: list[str], tables: list[str], storage_url: str) -> None:
        """`tables` as `stage_ops` gave them."""
        self.config, self._tables, self._storage_url = config, tables, storage_url
        self._skips = [Skip(op.skip, labels) for op in config.ops]
        self._text_ops = [number for number, op in enumerate(config.ops) if op.op in TEXT_OPS]
        self._voice = lru_cache(maxsize=8)(self._build_voice)
        self.forget()

    def forget(self) -> None:
        self.words = Vocabulary(self._common)
        self._lexicons: dict[tuple[str, str], tuple[Lexicon, Merger]] = {}

    @property
    def full(self) -> bool:
        return len(self.words) > MAX_CHUNKS

    @property
    def reads_texts(self) -> bool:
        """Does an op skip rows by their words?"""
        return any(self._skips[number].reads_texts for number in self._text_ops)

    def tries(self, whole: Batch, texts: Sequence[str], label_N: np.ndarray, key_N: np.ndarray, use: Use) -> None:
        """Change the rows and hand them to `use`, again and again with those that it could not use. `texts`: for ops that skip
        rows by words; may be empty where none does."""
        rows, filter_ = np.arange(whole.rows), self.config.filter
        active = [self._skips[number].active(texts, label_N) for number in self._text_ops]
        for turn in range(filter_.tries if filter_ else 1):
            before = whole if turn == 0 else whole.select(rows)
            own = [active_N if active_N is None else active_N[rows] for active_N in active]
            after = self.apply(before, own, draws.mix(key_N[rows], turn))
            fit_N = passes(before, after, filter_) if filter_ else np.ones(len(rows), bool)
            rows = rows[~use(rows, after, fit_N)]
            if not len(rows):
                return

    def apply(self, batch: Batch, active: list[np.ndarray | None], key_N: np.ndarray) -> Batch:
        """All ops in order, or one a row. `active`: of each op, which rows it may change (None: all)."""
        pick_N = draws.below(draws.mix(key_N, draws.PICK), len(self._text_ops)) if self.config.pick == "one" else None
        for turn, (number, active_N) in enumerate(zip(self._text_ops, active, strict=True)):
            if pick_N is not None:
                active_N = (pick_N == turn) if active_N is None else active_N & (pick_N == turn)
            batch = self.run(number, batch, draws.mix(key_N, number), active_N)
        return batch

    def run(self, number: int, batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None) -> Batch:
        """One op."""
        op: Any = self.config.ops[number]
        if op.op == "voice":
            return self._voiced(number, batch, key_N, active_N)
        phrase = op.unit == "phrase"
        if op.op == "delete":
            return (ops.delete_phrases if phrase else ops.delete)(batch, key_N, active_N, op.rate)
        if op.op == "swap":
            return (ops.swap_phrases if phrase else ops.swap)(batch, key_N, active_N, op.rate)
        lexicon, merger = self._lexicon(number)
        if lexicon.language != batch.language:
            return batch
        if phrase:
            batch = merger(batch)
        change = {"synonyms": ops.synonyms, "insert": ops.insert, "substitute": ops.substitute}[op.op]
        return change(batch, key_N, active_N, op.rate, lexicon).split_phrases()

    def _lexicon(self, number: int) -> tuple[Lexicon, Merger]:
        """One for all ops that read the same table alike: its words are looked up once."""
        op: Any = self.config.ops[number]
        name = (self._tables[number], op.unit)
        if name not in self._lexicons:
            table = thesaurus.load(self._storage_url, self._tables[number])
            lexicon = Lexicon(table, self.words, phrases=op.unit == "phrase")
            self._lexicons[name] = lexicon, Merger(lexicon)
        return self._lexicons[name]

    def _voiced(self, number: int, batch: Batch, key_N: np.ndarray, active_N: np.ndarray | None) -> Batch:
        """Voice works on whole texts: the batch is shown, changed, and read again."""
        if batch.language != "en":
            return batch
        active = range(batch.rows) if active_N is None else np.flatnonzero(active_N).tolist()
        texts, change = batch.texts(), self._voice(number)
        for row in active:
            texts[row] = change(texts[row], int(key_N[row]))
        return parse(texts, batch.language, self.words)

    def _build_voice(self, number: int) -> Callable[[str, int], str]:
        from orchestration.data.augment import voice

        folder = Storage(self._storage_url).fetch(self._tables[number])
        return voice.build(self.config.ops[number], folder / TAGGER)  # type: ignore[arg-type]

    @cached_property
    def _english(self) -> list[dict[str, list[Any]]]:
        named = {rel for op, rel in zip(self.config.ops, self._tables, strict=True) if hasattr(op, "thesaurus")}
        tables = [thesaurus.load(self._storage_url, rel) for rel in sorted(named)]
        return [table["words"] for table in tables if table["language"] == "en"]

    def _common(self, lower: str) -> bool:
        """A word of grammar or of a thesaurus, in any form: no name, so it loses its capital inside a sentence."""
        if lower in KEPT:
            return True
        return any(
            lower in table or (may_be_form(lower, table) and any(base in table for base, _ in forms(lower)))
            for table in self._english
        )

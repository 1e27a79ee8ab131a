"""Augmented copies of rows. Takes texts (or one image, sound or series) with their row ids, labels and copy numbers or epochs; gives
the changed ones. Called by `prepare` in workers, by `eagleray data preview` and by training. Every choice is a pure function of
(seed, row id, copy or epoch, op, place in the row): a row alone and the same row in any batch become the same text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import ne

import numpy as np

from orchestration.data import rng
from orchestration.data.augment import draws as keys
from orchestration.data.augment.batch import Batch, language, parse
from orchestration.data.augment.runner import Runner
from orchestration.data.augment.skip import Skip
from orchestration.data.augment.words import Vocabulary
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, AugmentConfig

BATCH_CHARS = 150_000  # at a time: arrays stay in the processor's cache
MEDIA_OPS = {"image": IMAGE_OPS, "audio": AUDIO_OPS, "series": ("noise", "time_mask")}


class Augmenter:
    """The ops of a spec, ready to use."""

    def __init__(
        self, config: AugmentConfig, *, labels: list[str], tables: list[str], storage_url: str, seed: int
    ) -> None:
        """`tables` as `stage_ops` gave them."""
        self._config, self._seed = config, seed
        self._runner = Runner(config, labels=labels, tables=tables, storage_url=storage_url)
        self._skips = [Skip(op.skip, labels) for op in config.ops]
        self._change = lru_cache(maxsize=64)(self._build)

    def texts(
        self, texts: Sequence[str], row_ids: Sequence[bytes], labels: Sequence[int], draws: Sequence[int]
    ) -> list[str | None]:
        """The text of each row's copy; None where no draw changed it and passed the filter. `draws`: copy numbers or epochs,
        `row_ids`: 16 bytes each, `labels`: class numbers (-1: none)."""
        found: list[str | None] = [None] * len(texts)
        if not len(texts):
            return found
        key_N, label_N = keys.row_keys(self._seed, row_ids, draws), np.asarray(labels, np.int64)
        ascii_N = np.fromiter(map(str.isascii, texts), bool, len(texts))
        chinese_N = np.zeros(len(texts), bool)
        chinese_N[~ascii_N] = [language(texts[row]) == "zh" for row in np.flatnonzero(~ascii_N).tolist()]
        for kind, own_N in (("en", ~chinese_N), ("zh", chinese_N)):
            for part, own in _parts(np.flatnonzero(own_N), texts):
                changed = self._part(kind, own, label_N[part], key_N[part])
                for row, new in zip(part.tolist(), changed, strict=True):
                    found[row] = new
        return found

    def _part(self, kind: str, texts: list[str], label_N: np.ndarray, key_N: np.ndarray) -> list[str | None]:
        if self._runner.full:
            self._runner.forget()
        found: list[str | None] = [None] * len(texts)

        def use(rows: np.ndarray, after: Batch, fit_N: np.ndarray) -> np.ndarray:
            shown = after.texts()
            own = texts if len(rows) == len(texts) else [texts[row] for row in rows.tolist()]
            done_N = fit_N & np.fromiter(map(ne, shown, own), bool, len(rows))
            for number, row in zip(np.flatnonzero(done_N).tolist(), rows[done_N].tolist(), strict=True):
                found[row] = shown[number]
            return done_N

        self._runner.tries(parse(texts, kind, self._runner.words), texts, label_N, key_N, use)
        return found

    def media(self, kind: str, array: np.ndarray, *, row_id: bytes, label: int, text: str, draw: int) -> np.ndarray:
        """One image (frames x size x size x 3), sound (samples) or series (window x columns) of a row, changed by the ops of its
        kind; `text` is the row's, for ops that skip rows by words."""
        row_key = keys.row_keys(self._seed, [row_id], [draw])
        numbers = [number for number, op in enumerate(self._config.ops) if op.op in MEDIA_OPS[kind]]
        if self._config.pick == "one" and numbers:
            numbers = [numbers[int(keys.below(keys.mix(row_key, keys.PICK), len(numbers))[0])]]
        for number in numbers:
            active_N = self._skips[number].active([text], np.array([label]))
            if active_N is None or active_N[0]:
                array = self._change(kind, number)(array, rng.mix(int(row_key[0]), number))
        return array

    def _build(self, kind: str, number: int) -> Callable[[np.ndarray, int], np.ndarray]:
        if kind == "image":
            from orchestration.data.augment.image import build
        else:
            from orchestration.data.augment.audio import build
        return build(self._config.ops[number])


def _parts(rows: np.ndarray, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Rows and their texts in runs of some BATCH_CHARS characters, without the few that hold the character that marks rows."""
    own = list(texts) if len(rows) == len(texts) else [texts[row] for row in rows.tolist()]
    if Vocabulary.MARK in "".join(own):
        rows = rows[[Vocabulary.MARK not in text for text in own]]
        own = [texts[row] for row in rows.tolist()]
    chars_N = np.cumsum(np.fromiter(map(len, own), np.int64, len(own)) + 1)
    cuts = [0, *(np.flatnonzero(np.diff(chars_N // BATCH_CHARS)) + 1).tolist(), len(own)]
    for start, end in itertools.pairwise(cuts):
        if end > start:
            yield rows[start:end], own[start:end]

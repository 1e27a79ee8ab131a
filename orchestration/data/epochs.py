"""Rows in another form each epoch. Takes a split whose spec says `augment.when: epoch`; gives token ids and media of rows in an epoch.
Called by training ranks one step ahead (`Feed`). Nothing is stored: a row's form is a pure function of (seed, row id, epoch, op), so
it is the same on any rank and after a resume.

Ids become ids wherever they show what the ops need. Texts are changed and encoded again for the op `voice`, Chinese rows, and
tokenizers whose pieces do not show where a word starts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from orchestration.data.augment import Augmenter
from orchestration.data.augment.ids import IdAugmenter
from orchestration.data.augment.pieces import NeedsText
from orchestration.data.config import TEXT_OPS, AugmentConfig
from orchestration.data.tokenize import Tokenizer
from orchestration.storage import Storage


class EpochForms:
    """`split`: of `store`, whose manifest has the ops, their tables and the seed. `weights_rel`: a sealed folder with the tokenizer
    that made the store."""

    def __init__(self, store: Any, split: Any, *, storage: Storage, weights_rel: str) -> None:
        config = AugmentConfig.model_validate(store.meta["spec"]["augment"])
        self.split, self.labels_N = split, split.labels
        self.changes_text = any(op.op in TEXT_OPS for op in config.ops)
        self._folder = storage.fetch(weights_rel)
        self._max_length: int = store.meta["preprocessing"]["tokenize"]["max_length"]
        self._ops: dict[str, Any] = {
            "config": config,
            "labels": store.labels,
            "tables": store.meta["tables"],
            "storage_url": storage.url,
            "seed": store.meta["seed"],
        }

    @cached_property
    def by_ids(self) -> IdAugmenter | None:
        """None where only texts will do."""
        try:
            return IdAugmenter(**self._ops, tokenizer_folder=self._folder, max_length=self._max_length)
        except NeedsText:
            return None

    @cached_property
    def by_text(self) -> Augmenter:
        return Augmenter(**self._ops)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self._folder, self._max_length)

    def ids(self, indices: np.ndarray, epoch: int) -> list[np.ndarray]:
        """int32 token ids of each row; those that the store holds where no draw changes it."""
        indices, found = np.asarray(indices), self.split.input_ids(indices)
        if not (self.changes_text and len(found)):
            return found
        rows = np.arange(len(found))
        if self.by_ids is not None:
            values_T, offsets_N1 = np.concatenate(found), np.cumsum([0, *map(len, found)])
            rows = np.flatnonzero(self.by_ids.chinese(values_T, offsets_N1))
            texts = self.split.texts(indices) if self.by_ids.reads_texts else []
            values_T, offsets_N1 = self.by_ids.ids(values_T, offsets_N1, *self._keys(indices, epoch), texts)
            found = np.split(values_T, offsets_N1[1:-1])
        if len(rows):
            texts = self.split.texts(indices[rows])
            changed = self.by_text.texts(texts, *self._keys(indices[rows], epoch))
            new = {row: text for row, text in zip(rows.tolist(), changed, strict=True) if text is not None}
            for row, ids in zip(new, self.tokenizer.encode(list(new.values())), strict=True):
                found[row] = np.asarray(ids, np.int32)
        return found

    def _keys(self, indices: np.ndarray, epoch: int) -> tuple[list[bytes], list[int], list[int]]:
        """Row ids, labels and draws."""
        return self.split.ids_of(indices), np.asarray(self.labels_N[indices]).tolist(), [epoch + 1] * len(indices)

    def media(self, kind: str, indices: np.ndarray, epoch: int) -> list[np.ndarray | None]:
        """Images, sounds or series of each row; None where it has none."""
        found = self.split.media(kind, indices)
        labels, texts = np.asarray(self.labels_N[indices]).tolist(), self.split.texts(indices)
        return [
            None
            if array is None
            else self.by_text.media(kind, array, row_id=row_id, label=label, text=text, draw=epoch + 1)
            for array, row_id, label, text in zip(found, self.split.ids_of(indices), labels, texts, strict=True)
        ]


def forms(store: Any, split: Any, *, storage: Storage, weights_rel: str) -> EpochForms | None:
    """None for a store whose copies were made by `prepare`, or without augmentation."""
    augment = (store.meta.get("spec") or {}).get("augment")
    if not augment or augment["when"] != "epoch":
        return None
    return EpochForms(store, split, storage=storage, weights_rel=weights_rel)

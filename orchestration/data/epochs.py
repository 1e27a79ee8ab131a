"""Rows in another form each epoch. Takes a split whose spec says `augment.when: epoch`; gives token ids and media of rows in an epoch.
Called by training ranks one step ahead (`Feed`). Nothing is stored: a row's form is a pure function of (seed, row id, epoch, op), so
it is the same on any rank and after a resume."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestration.data.augment import Augmenter
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
        self.augmenter = Augmenter(
            config,
            labels=store.labels,
            tables=store.meta["tables"],
            storage_url=storage.url,
            seed=store.meta["seed"],
        )
        self.tokenizer = Tokenizer(storage.fetch(weights_rel), store.meta["preprocessing"]["tokenize"]["max_length"])

    def ids(self, indices: np.ndarray, epoch: int) -> list[np.ndarray]:
        """int32 token ids of each row; those that the store holds where no draw changes the text."""
        stored = self.split.input_ids(indices)
        if not self.changes_text:
            return stored
        texts = self.split.texts(indices)
        labels = np.asarray(self.labels_N[indices]).tolist()
        changed = self.augmenter.texts(texts, self.split.ids_of(indices), labels, [epoch + 1] * len(texts))
        at = [i for i, text in enumerate(changed) if text is not None]
        encoded = self.tokenizer.encode([changed[i] for i in at])  # type: ignore[misc]
        for i, ids in zip(at, encoded, strict=True):
            stored[i] = np.asarray(ids, np.int32)
        return stored

    def media(self, kind: str, indices: np.ndarray, epoch: int) -> list[np.ndarray | None]:
        """Images, sounds or series of each row; None where it has none."""
        found = self.split.media(kind, indices)
        labels, texts = np.asarray(self.labels_N[indices]).tolist(), self.split.texts(indices)
        return [
            None
            if array is None
            else self.augmenter.media(kind, array, row_id=row_id, label=label, text=text, draw=epoch + 1)
            for array, row_id, label, text in zip(found, self.split.ids_of(indices), labels, texts, strict=True)
        ]


def forms(store: Any, split: Any, *, storage: Storage, weights_rel: str) -> EpochForms | None:
    """None for a store whose copies were made by `prepare`, or without augmentation."""
    augment = (store.meta.get("spec") or {}).get("augment")
    if not augment or augment["when"] != "epoch":
        return None
    return EpochForms(store, split, storage=storage, weights_rel=weights_rel)

"""A text written for what the other towers read: a caption of a picture (Vinyals et al. 2015, "Show and Tell"), what a sound says. The row's own text is
the target; each of its tokens is asked for behind those before it and the picture, the first behind a token that begins every text. Rows without text
ask for nothing. Shapes: B rows, L tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models import tokens
from models.config import ModelConfig
from models.loss import IGNORED
from models.tasks.base import Rows, Tensors
from models.tasks.language import Language
from models.tasks.tagging import aligned


class Captioning(Language):
    """`begin_id`, `end_id`: what stands before and behind each text, whatever the tokenizer puts there."""

    packs = False

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        vocabulary = tokens.read(folder)
        self.end_id = vocabulary.need("eos", f"model.task={config.task}")
        self.begin_id = vocabulary.special.get("bos", self.end_id)
        self._special_V = np.zeros(vocabulary.size, bool)
        self._special_V[[*vocabulary.special_ids, self.begin_id, self.end_id]] = True

    def plain(self, row: Sequence[int] | np.ndarray) -> np.ndarray:
        """The row's tokens without special ones."""
        ids = np.asarray(row, np.int64)
        return ids[~self._special_V[ids]]

    def begun(self, row: Sequence[int] | np.ndarray) -> np.ndarray:
        """The row as the model reads it."""
        return np.concatenate([[self.begin_id], self.plain(row)])

    def given(self, rows: Rows, pad_id: int) -> Tensors:
        return super().given(replace(rows, ids=[self.begun(row) for row in rows.ids]), pad_id)

    def targets(self, rows: Rows) -> Tensors:
        return {"tokens": aligned([self._asked(row) for row in rows.ids])}

    def _asked(self, row: np.ndarray) -> np.ndarray:
        plain = self.plain(row)
        return np.append(plain, self.end_id if len(plain) else IGNORED)

    def count(self, rows: Rows) -> int:
        return sum(int((self._asked(row) != IGNORED).sum()) for row in rows.ids)

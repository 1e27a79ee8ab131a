"""Encoder-decoder models: a text is read, another is written (Sutskever et al. 2014; Raffel et al. 2020, T5). The decoder is given the
target one token late and asked for each of its tokens. Shapes: B rows, L tokens of the longest text, T of the longest target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.config import ModelConfig
from models.families import decoder_start
from models.processing import collate
from models.tasks.base import Rows, Tensors
from models.tasks.language import Language
from models.tasks.tagging import aligned


class Seq2Seq(Language):
    """Targets are the store's `target_ids`, special tokens too."""

    columns: ClassVar[tuple[str, ...]] = ("targets",)
    packs = False

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.start_id = decoder_start(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        return {**super().given(rows, pad_id), **self._decoder(rows.columns["targets"], pad_id)}

    def given(self, rows: Rows, pad_id: int) -> Tensors:
        """A text whose target is not known is given to the decoder too: its numbers then hang on the whole model."""
        return {**super().given(rows, pad_id), **self._decoder(rows.ids, pad_id)}

    def _decoder(self, targets: Sequence[np.ndarray], pad_id: int) -> Tensors:
        """What stands before each token of the targets. Padding behind them is seen by no token that is asked for."""
        late = [np.concatenate([[self.start_id], np.asarray(row)[:-1]]) for row in targets]
        return {"decoder_input_ids": collate(late, pad_id)[0]}

    def targets(self, rows: Rows) -> Tensors:
        return {"tokens": aligned([np.asarray(row) for row in rows.columns["targets"]])}

    def count(self, rows: Rows) -> int:
        return sum(len(row) for row in rows.columns["targets"])

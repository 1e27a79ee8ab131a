"""In place of a tokenizer where the model reads no text: texts stay in the store, and every row has 0 tokens. `tokenizer_of` says which a
model folder has; model folders of text are refused without tokenizer.json when they are staged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestration.data.config import TokenizeConfig
from orchestration.data.tokenize import Entries, Framed, Tokenizer


def tokenizer_of(folder: Path, max_length: int) -> Tokenizer | NoTokens:
    """The folder's tokenizer; raises UserError as Tokenizer does."""
    there = (Path(folder) / "tokenizer.json").is_file()
    return Tokenizer(folder, max_length) if there else NoTokens()


class NoTokens:
    """What entries, samples and packages ask of a tokenizer."""

    pad_id = 0
    vocab_size = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[] for _ in texts]

    def entries(self, texts: Sequence[str], config: TokenizeConfig, keys: Sequence[int] | None = None) -> Entries:
        rows = np.arange(len(texts))
        none_N1 = np.zeros(len(texts) + 1, np.int64)
        return Entries(np.empty(0, np.int32), none_N1, rows, np.zeros(len(texts), np.int16), truncated=0)

    def framed(self, *texts: Sequence[str]) -> list[Framed]:
        nothing = np.empty(0, np.int32)
        return [Framed(nothing, tuple(slice(0, 0) for _ in texts), cut=False) for _ in texts[0]]

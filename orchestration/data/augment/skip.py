"""Rows that an op leaves alone. Takes the op's `skip`; gives which rows it may change. Called by `augmenter`. A row is judged by its
label and by its text as it was before any op."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from orchestration.data.config import SkipConfig


class Skip:
    def __init__(self, config: SkipConfig | None, labels: list[str]) -> None:
        self._classes = np.array([labels.index(name) for name in config.labels], np.int64) if config else np.zeros(0)
        self._words = _pattern(config.words) if config and config.words else None

    @property
    def reads_texts(self) -> bool:
        return self._words is not None

    def active(self, texts: Sequence[str], label_N: np.ndarray) -> np.ndarray | None:
        """bool N; None: all of them."""
        if not len(self._classes) and self._words is None:
            return None
        active_N = ~np.isin(label_N, self._classes)
        if self._words is not None:
            active_N &= np.array([self._words.search(text) is None for text in texts], bool)
        return active_N


def _pattern(words: list[str]) -> re.Pattern[str]:
    """Whole words in any case. Chinese has no spaces: there a word is found wherever its characters stand."""
    return re.compile("|".join(_whole(word) for word in words), re.IGNORECASE)


def _whole(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)" if word.isascii() else re.escape(word)

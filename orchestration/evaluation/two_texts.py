"""A pair of texts as words for classical baselines. Takes a split of a store of pairs; gives one line a row. Called by `evaluate` and `assess`
inside their tasks. The words are token ids with the side they stand on, and once more those that stand on both: a linear model cannot
find by itself that two texts share words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def lines(store: Any, split: Any, rows: Iterable[int]) -> list[str]:
    """Texts of the rows for TF-IDF: as they are, or of pairs both at once."""
    chosen = list(rows)
    if not store.pairs:
        return list(split.texts(chosen))
    pairs = zip(split.input_ids(chosen), split.pair_at(chosen), strict=True)
    return [_line(ids[:start].tolist(), ids[start:].tolist()) for ids, start in pairs]


def _line(first: list[int], second: list[int]) -> str:
    shared = sorted(set(first) & set(second))
    words = [
        *(f"a{token}" for token in first),
        *(f"b{token}" for token in second),
        *(f"both{token}" for token in shared),
    ]
    return " ".join(words)

"""Rows of the store as questions to a model. Takes a split and what the model reads; gives texts, or rows of several parts as the package
takes them, or as a client sends them. Called by the evaluation and by the pipeline's questions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestration import probes


def stored_rows(split: Any, rows: Any, reads: tuple[str, ...]) -> list[Any]:
    """Texts where the model reads nothing else; else what each row has, media as arrays."""
    if reads == ("text",):
        return list(split.texts(rows))
    columns = {kind: split.texts(rows) if kind == "text" else split.media(kind, rows) for kind in reads}
    every = zip(*columns.values(), strict=True)
    return [{kind: value for kind, value in zip(columns, row, strict=True) if _there(value)} for row in every]


def _there(value: Any) -> bool:
    return bool(value) if isinstance(value, str) else value is not None


def stored_pairs(store: Any, split: Any, rows: Any) -> list[Any]:
    """Rows of two texts as the model sees them: the store keeps a pair as tokens alone."""
    from orchestration.package import Encoded

    withheld = split.withheld(rows) if "knowledge" in store.meta else [()] * len(rows)
    found = zip(split.input_ids(rows), split.pair_at(rows), withheld, strict=True)
    return [Encoded(ids.tolist(), False, pair_at=int(at), withheld=tuple(held)) for ids, at, held in found]


def sendable(found: Sequence[dict[str, Any]], *, rate: int) -> list[dict[str, Any]]:
    """JSON values: pictures as PNG, several frames as a video without loss, and sounds as WAV, in base64; series as lists."""
    return [{kind: _sent(kind, value, rate) for kind, value in row.items()} for row in found]


def _sent(kind: str, value: Any, rate: int) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if kind == "series":
        return value.tolist()
    if kind == "image":
        return base64.b64encode(probes.png(value[0]) if len(value) == 1 else probes.video(value)).decode()
    return base64.b64encode(probes.wav(value, rate)).decode()

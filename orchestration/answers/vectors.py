"""Answers of two encoders that share a space: the vector of each part that a row has, of length 1, so that a product of two is their cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.answers.rows import Classes
from orchestration.package import Encoded


class Vectors(Classes):
    def payload(self, items: Sequence[Encoded], found: Sequence[np.ndarray], options: Mapping[str, Any]) -> Any:
        return [self._told(item, value_C) for item, value_C in zip(items, found, strict=True)]

    def _told(self, item: Encoded, value_C: np.ndarray) -> dict[str, Any]:
        parts = zip(self.package.task.config.reads, np.split(value_C.astype(np.float64), 2), strict=True)
        lengths = {name: (vector_P, float(np.linalg.norm(vector_P))) for name, vector_P in parts}
        there = {name: (vector_P / length).tolist() for name, (vector_P, length) in lengths.items() if length}
        return {"vectors": there, "truncated": item.truncated}

"""Answers of a matching head: how surely a row's text belongs to the rest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.answers.rows import Classes
from orchestration.package import Encoded


class Matches(Classes):
    def payload(self, items: Sequence[Encoded], found: Sequence[np.ndarray], options: Mapping[str, Any]) -> Any:
        """The probability of the second of two logits."""
        chance_N = 1 / (1 + np.exp([float(logits_2[0]) - float(logits_2[1]) for logits_2 in found]))
        return [
            {"match": float(chance), "truncated": item.truncated} for item, chance in zip(items, chance_N, strict=True)
        ]

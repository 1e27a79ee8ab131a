"""Answers of one row each: a class with its scores, a number. Shapes: N texts, C outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.answers.base import Answers
from orchestration.package import Encoded


class Classes(Answers):
    """What travels is the array of logits: scores by name are made once, where the answer is written."""

    def items(self, texts: Sequence[Any], options: Mapping[str, Any]) -> list[Encoded]:
        return self.package.encode(texts)

    def compute(self, items: Sequence[Encoded]) -> list[np.ndarray]:
        return list(self.package.logits_of(items, micro_batch=self.micro_batch))

    def payload(self, items: Sequence[Encoded], found: Sequence[np.ndarray], options: Mapping[str, Any]) -> Any:
        return np.stack(found), [item.truncated for item in items]


class Values(Classes):
    def payload(self, items: Sequence[Encoded], found: Sequence[np.ndarray], options: Mapping[str, Any]) -> Any:
        return [
            {"value": float(value_C[0]), "truncated": item.truncated}
            for item, value_C in zip(items, found, strict=True)
        ]


class Heads(Classes):
    """As of classes; the router knows by the labels which belong together."""

"""Answers of a model that learned what two texts are to each other: whether they stand in their order, or whether the second follows the first at all.
Shapes: B rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration import inference
from orchestration.answers.base import Answers
from orchestration.package import Encoded, starts


class Orders(Answers):
    said = "in_order"

    def items(self, texts: Sequence[Any], options: Mapping[str, Any]) -> list[Encoded]:
        return self.package.encode(texts)

    def compute(self, items: Sequence[Encoded]) -> list[float]:
        """Probability that the texts stand as they were found."""
        import numpy as np
        import torch

        from models.tasks.base import Rows

        found: dict[int, float] = {}
        with inference.torch_threads(self.package.threads), torch.inference_mode():
            for rows in inference.micro_batches([len(item.ids) for item in items], self.micro_batch):
                chosen = [items[row] for row in rows]
                batch = Rows([np.array(item.ids) for item in chosen], pair_at=starts(chosen))
                _, order_B2 = self.package.forward(**self.package.task.given(batch, self.package.pad_id))
                found.update(zip(rows, order_B2.softmax(-1)[:, 0].tolist(), strict=True))
        return [found[row] for row in range(len(items))]

    def payload(self, items: Sequence[Encoded], found: Sequence[float], options: Mapping[str, Any]) -> Any:
        pairs = zip(items, found, strict=True)
        return [{self.said: one >= 0.5, "probability": one, "truncated": item.truncated} for item, one in pairs]


class Follows(Orders):
    said = "follows"

"""Does this text belong to this picture (or sound)? The matching head of ViLBERT and its kin (Lu et al. 2019, arXiv 1908.02265, section 3.2). Each row is shown
with its own text, and with that of the next row of its group (`model.contrast.group`, as in `contrastive`): the order fixes groups, and makes others in each
epoch, so N workers give the numbers of one. A borrowed text that is equal to the row's own asks for nothing. Shapes: B rows of a group, 2B pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from models.config import ContrastConfig, ModelConfig
from models.inputs import Rows, Tensors
from models.loss import IGNORED
from models.tasks.base import Task
from models.tasks.rows import confusion, confusion_scores

OTHER, MATCH = 0, 1


class Matching(Task):
    counts_rows = False
    tallies = 4  # type: ignore[assignment]
    width = 2  # type: ignore[assignment]

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.size = self.group = (config.contrast or ContrastConfig()).group

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        """Of 2B pairs: the rows as they are, then each with the next one's text."""
        media = {kind: [*arrays, *arrays] for kind, arrays in rows.media.items()}
        lost = None if rows.lost is None else [*rows.lost, *rows.lost]
        return self.given(dataclasses.replace(rows, ids=[*rows.ids, *_next(rows.ids)], media=media, lost=lost), pad_id)

    def targets(self, rows: Rows) -> Tensors:
        borrowed = [
            IGNORED if np.array_equal(own, other) else OTHER
            for own, other in zip(rows.ids, _next(rows.ids), strict=True)
        ]
        return {"match": torch.tensor([MATCH] * len(rows) + borrowed)}

    def count(self, rows: Rows) -> int:
        """`rows`: of a whole batch, in its order."""
        groups = [Rows(rows.ids[at : at + self.size]) for at in range(0, len(rows), self.size)]
        return sum(int((self.targets(group)["match"] != IGNORED).sum()) for group in groups)

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        match, weight = targets["match"], weight_B.repeat(2)
        found = functional.cross_entropy(
            logits.float(), match, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing
        )
        return (found * weight).sum(), ((match != IGNORED) * weight).sum()

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        kept = targets["match"] != IGNORED
        return confusion(logits[kept].argmax(-1), targets["match"][kept], weight_B.repeat(2)[kept], 2)

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        return confusion_scores(total.view(2, 2))


def _next(ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [*ids[1:], *ids[:1]]

"""Two encoders, one space: the vectors of a row's two sides are to be nearer to each other than to those of other rows (Radford et al. 2021,
"Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020, figure 3). Other rows are those of its group
(`model.contrast.group`), which the order fixes: workers and micro-batches take whole groups, so N workers give the numbers of one and nothing is
exchanged between them. A micro-batch is one group. Shapes: B rows of a group, P values of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional

from models.config import ContrastConfig, ModelConfig
from models.inputs import Rows, Tensors
from models.tasks.base import Task


class Contrastive(Task):
    tallies = 3  # type: ignore[assignment]

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.contrast = config.contrast or ContrastConfig()
        self.group = self.contrast.group

    @property
    def width(self) -> int:
        return 2 * self.contrast.width

    def outcome(self, logits: torch.Tensor, attention_mask_BL: torch.Tensor | None) -> torch.Tensor:
        """Both vectors, side by side."""
        return logits.flatten(1)

    def targets(self, rows: Rows) -> Tensors:
        """None but the order: row i belongs to row i."""
        return {}

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy both ways, a row's two halved: `(sum over rows, rows)`."""
        alike_BB = similarity(logits)
        own_B = torch.arange(len(alike_BB), device=alike_BB.device)
        ways = [
            functional.cross_entropy(found_BB, own_B, reduction="none", label_smoothing=smoothing)
            for found_BB in (alike_BB, alike_BB.T)
        ]
        return (torch.stack(ways).mean(0) * weight_B).sum(), weight_B.sum()

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Rows whose other side is the nearest of the group, each way; rows."""
        alike_BB, weight_B = similarity(logits).cpu(), weight_B.double().cpu()
        own_B = torch.arange(len(alike_BB))
        hits = [((found_BB.argmax(1) == own_B).double() * weight_B).sum() for found_BB in (alike_BB, alike_BB.T)]
        return torch.stack([*hits, weight_B.sum()])

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        """`recall_at_1`: in groups, the mean of both ways."""
        return {"recall_at_1": float((total[0] + total[1]) / (2 * total[2])) if total[2] else 0.0}


def similarity(logits_B2P: torch.Tensor) -> torch.Tensor:
    """(B, B), fp32: first side of each row with the second of each."""
    return logits_B2P[:, 0].float() @ logits_B2P[:, 1].float().T

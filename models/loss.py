"""Losses as (sum, count), never a mean: who divides, and by which global count, is the loop's matter, so that accumulation,
world size and padding do not change the result. Shapes: B rows, C classes."""

from __future__ import annotations

import torch
from torch.nn import functional


def classification(
    logits_BC: torch.Tensor, labels_B: torch.Tensor, weight_B: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy in fp32: `(sum over rows, sum of weights)`, both scalars. A row of weight 0 changes neither.

    `smoothing`: share of the target spread evenly over all classes (Szegedy et al. 2016).
    """
    loss_B = functional.cross_entropy(logits_BC.float(), labels_B, reduction="none", label_smoothing=smoothing)
    return (loss_B * weight_B).sum(), weight_B.sum()

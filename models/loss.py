"""Losses as (sum, count), never a mean: who divides, and by which global count, is the loop's matter, so that accumulation,
world size and padding do not change the result. Shapes: B rows, L tokens, C classes or entries of a vocabulary."""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORED = -100  # a target that is none: a special token, padding, a token that nobody asked for


def classification(
    logits_BC: torch.Tensor, labels_B: torch.Tensor, weight_B: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy in fp32: `(sum over rows, sum of weights)`, both scalars. A row of weight 0 changes neither.

    `smoothing`: share of the target spread evenly over all classes (Szegedy et al. 2016).
    """
    loss_B = functional.cross_entropy(logits_BC.float(), labels_B, reduction="none", label_smoothing=smoothing)
    return (loss_B * weight_B).sum(), weight_B.sum()


def regression(
    values_B: torch.Tensor, wanted_B: torch.Tensor, weight_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted squared error in fp32: `(sum over rows, sum of weights)`."""
    return (functional.mse_loss(values_B.float(), wanted_B, reduction="none") * weight_B).sum(), weight_B.sum()


def tokens(
    logits_BLC: torch.Tensor, targets_BL: torch.Tensor, weight_B: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over the positions whose target is not IGNORED, in fp32: `(sum, how many)`; none of a row of weight 0."""
    targets_BL = torch.where(weight_B[:, None] > 0, targets_BL, IGNORED)
    kept_BL = targets_BL != IGNORED
    logits, targets = logits_BLC.flatten(0, 1), targets_BL.flatten()
    if logits.device.type == "cpu":
        # Masked language models ask for 15% of the positions, and the softmax over the vocabulary is the dearest part after the
        # matmuls. On a GPU picking them out would wait for the device.
        logits, targets = logits[kept_BL.flatten()], targets[kept_BL.flatten()]
    summed = functional.cross_entropy(
        logits.float(), targets, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing
    )
    return summed, kept_BL.sum().to(summed.dtype)


def spans(
    logits_BL2: torch.Tensor,
    span_B2: torch.Tensor,
    there_BL: torch.Tensor,
    weight_B: torch.Tensor,
    smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of an answer's first token and of its last one, the mean of both, over the tokens that are `there`, in fp32: `(sum over
    rows, sum of weights)`."""
    logits_BL2 = logits_BL2.float().masked_fill(~there_BL[:, :, None], -torch.inf)
    told_BL2 = -functional.log_softmax(logits_BL2, 1)
    loss_B2 = told_BL2.gather(1, span_B2[:, None, :])[:, 0]
    if smoothing:
        even_B2 = told_BL2.masked_fill(~there_BL[:, :, None], 0.0).sum(1) / there_BL.sum(1, keepdim=True)
        loss_B2 = (1 - smoothing) * loss_B2 + smoothing * even_B2
    return (loss_B2.mean(1) * weight_B).sum(), weight_B.sum()

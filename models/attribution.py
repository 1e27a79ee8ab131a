"""Which tokens, or which patches of an image, an answer rests on: integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365). Takes a model and
one row's inputs; gives a number a token. Works with any model that takes `inputs_embeds`. Shapes: L tokens, D width, S steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.families import ModelError

STEPS = 32  # of the way from nothing to the row; the midpoint rule's error falls with its square


def attribute(
    model: nn.Module, inputs: dict[str, torch.Tensor], target: int, *, blank_id: int, steps: int = STEPS
) -> tuple[torch.Tensor, float]:
    """`(score_L, gap)`: how much each token of the one row raises the logit of class `target` against the same row of blanks; over all
    tokens the difference of both logits but for `gap`, which is what the steps leave. Special tokens stay in the blank row.

    Raises ModelError for a model without a table of input embeddings."""
    embeddings = _embeddings(model)
    ids_1L = inputs["input_ids"]
    others = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    with torch.no_grad():
        row_LD = embeddings(ids_1L)[0]
        blank_LD = embeddings(torch.full_like(ids_1L, blank_id))[0]
        blank_LD[[0, -1]] = row_LD[[0, -1]]  # what begins and ends every row
    share_S = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
    total_LD = torch.zeros_like(row_LD)
    for part_S in share_S.split(8):
        mixed = (blank_LD + part_S[:, None, None] * (row_LD - blank_LD)).requires_grad_()
        logits = _logits(model, mixed, others)
        (grad,) = torch.autograd.grad(logits[:, target].sum(), mixed)
        total_LD += grad.sum(0)
    score_L = (total_LD / steps * (row_LD - blank_LD)).sum(-1)
    with torch.no_grad():
        ends = _logits(model, torch.stack([blank_LD, row_LD]), others)[:, target]
    return score_L.detach(), float(ends[1] - ends[0] - score_L.sum())


def _logits(model: nn.Module, mixed_SLD: torch.Tensor, others: dict[str, torch.Tensor]) -> torch.Tensor:
    repeated = {name: tensor.expand(len(mixed_SLD), *tensor.shape[1:]) for name, tensor in others.items()}
    found: torch.Tensor = model(inputs_embeds=mixed_SLD, **repeated).logits
    return found


def _embeddings(model: nn.Module) -> Any:
    found = getattr(model, "get_input_embeddings", lambda: None)()
    if not isinstance(found, nn.Module):
        raise ModelError(f"{type(model).__name__} has no table of input embeddings to attribute an answer to")
    return found

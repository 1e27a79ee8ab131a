"""Which tokens, or which patches of an image, an answer rests on: integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365). Takes a model and
one row's inputs; gives a number a token or a patch. Works with any model that takes `inputs_embeds`, or `pixel_values`. Shapes: L tokens, D
width, S pixels a side or steps, G patches a side."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.families import ModelError

STEPS = 32  # of the way from nothing to the row; the midpoint rule's error falls with its square
TOGETHER = 8  # of the steps in one pass


def attribute(
    model: nn.Module, inputs: dict[str, torch.Tensor], target: int, *, blank_id: int, steps: int = STEPS
) -> tuple[torch.Tensor, float]:
    """`(score_L, gap)`: how much each token of the one row raises the logit of class `target` against the same row of blanks; over all
    tokens the difference of both logits but for `gap`, which is what the steps leave. The first and the last token, special ones, stay in
    the blank row.

    Raises ModelError for a model without a table of input embeddings."""
    embeddings = _embeddings(model)
    ids_1L = inputs["input_ids"]
    with torch.no_grad():
        row_LD = embeddings(ids_1L)[0]
        blank_LD = embeddings(torch.full_like(ids_1L, blank_id))[0]
        blank_LD[[0, -1]] = row_LD[[0, -1]]
    score_LD, gap = _integrate(model, "inputs_embeds", _without(inputs, "input_ids"), row_LD, blank_LD, target, steps)
    return score_LD.sum(-1), gap


def attribute_patches(
    model: nn.Module, inputs: dict[str, torch.Tensor], target: int, *, side: int = 8, steps: int = STEPS
) -> tuple[torch.Tensor, float]:
    """`(score_GG, gap)`: the same of a picture's patches of `side` x `side` pixels, against a picture of the mean colour, of several frames their sum;
    what else the model reads stays as it is. A rest at the right and lower edges counts to the last patches."""
    row_XSS = inputs["pixel_values"][0]
    others = _without(inputs, "pixel_values")
    score_XSS, gap = _integrate(model, "pixel_values", others, row_XSS, torch.zeros_like(row_XSS), target, steps)
    size = row_XSS.shape[-1]
    at_S = (torch.arange(size) // side).clamp(max=max(0, size // side - 1))
    grid_GG = torch.zeros(int(at_S[-1]) + 1, int(at_S[-1]) + 1)
    grid_GG.index_put_(
        (at_S[:, None].expand(size, size), at_S[None].expand(size, size)),
        score_XSS.flatten(0, -3).sum(0),
        accumulate=True,
    )
    return grid_GG, gap


def _integrate(
    model: nn.Module,
    name: str,
    others: dict[str, torch.Tensor],
    row: torch.Tensor,
    blank: torch.Tensor,
    target: int,
    steps: int,
) -> tuple[torch.Tensor, float]:
    """Each element's share of the logit's way from `blank` to `row`, both being the model's input `name`."""

    def logit_of(mixed_S: torch.Tensor) -> torch.Tensor:
        repeated = {key: tensor.expand(len(mixed_S), *tensor.shape[1:]) for key, tensor in others.items()}
        found: torch.Tensor = model(**{name: mixed_S}, **repeated).logits[:, target]
        return found

    share_S = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
    total = torch.zeros_like(row)
    for part_S in share_S.split(max(1, TOGETHER // (len(row) if row.ndim == 4 else 1))):
        mixed = (blank + part_S.view(-1, *[1] * row.ndim) * (row - blank)).requires_grad_()
        (grad,) = torch.autograd.grad(logit_of(mixed).sum(), mixed)
        total += grad.sum(0)
    score = (total / steps * (row - blank)).detach()
    with torch.no_grad():
        low, high = logit_of(torch.stack([blank, row])).tolist()
    return score, high - low - float(score.sum())


def _without(inputs: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in inputs.items() if key != name}


def _embeddings(model: nn.Module) -> Any:
    found = getattr(model, "get_input_embeddings", lambda: None)()
    if not isinstance(found, nn.Module):
        raise ModelError(f"{type(model).__name__} has no table of input embeddings to attribute an answer to")
    return found

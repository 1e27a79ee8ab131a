"""What a student learns from teachers beside the targets: the distribution of their outputs (Hinton et al. 2015). Takes both sides' outputs of
one micro-batch; gives a sum over the same rows or tokens that the task's own loss counts, so that any number of workers and any
micro-batching give the numbers of one. Knows neither files nor engines. Shapes: B rows, L tokens, C outputs, N rows or tokens asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from models.loss import IGNORED
from models.tasks.base import Task, Tensors


def divergence(
    task: Task,
    logits: torch.Tensor,
    taught: Sequence[torch.Tensor],
    targets: Tensors,
    weight_B: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Summed over what the task's loss counts: T^2 times the Kullback-Leibler divergence of the student's distribution from the mean of the
    teachers', both at temperature T, so that gradients keep their size at any T; of numbers the squared distance to their mean."""
    kind = task.config.task
    if kind == "regression":
        mean_B = torch.stack([one.float().squeeze(-1) for one in taught]).mean(0)
        return ((logits.float().squeeze(-1) - mean_B).square() * weight_B).sum()
    if kind == "heads":
        total = logits.new_zeros((), dtype=torch.float32)
        for head, place in task.heads.items():  # type: ignore[attr-defined]
            known_B = weight_B * (targets[head] != IGNORED)
            weight = task.config.head_weights.get(head, 1.0)
            total = total + weight * _summed(logits[:, place], [one[:, place] for one in taught], known_B, temperature)
        return total
    if kind == "classification":
        return _summed(logits, taught, weight_B, temperature)
    kept_BL = (targets["tags" if kind == "tagging" else "tokens"] != IGNORED) & (weight_B[:, None] > 0)
    ones_N = torch.ones(int(kept_BL.sum()), device=logits.device)
    return _summed(logits[kept_BL], [one[kept_BL] for one in taught], ones_N, temperature)


def _summed(
    logits_NC: torch.Tensor, taught: Sequence[torch.Tensor], weight_N: torch.Tensor, temperature: float
) -> torch.Tensor:
    chance_NC = torch.stack([(one.float() / temperature).softmax(-1) for one in taught]).mean(0)
    log_NC = (logits_NC.float() / temperature).log_softmax(-1)
    each_N = functional.kl_div(log_NC, chance_NC, reduction="none").sum(-1)
    return (each_N * weight_N).sum() * temperature**2

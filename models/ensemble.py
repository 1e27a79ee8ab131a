"""Several trained models that answer as one: the mean of their probabilities, of numbers the mean. Takes models of one task that read the
same inputs; gives a module whose `logits` are what the task reads of any model, so loss, scores and answers stay the task's own. Called
when a package of several is opened. Shapes: B rows, C classes (of heads: of all of them, side by side), M members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from models.labels import parted

MODEL_TYPE = "eagleray_ensemble"  # in config.json, so that nothing else takes the folder for one model
AVERAGED = (
    "classification",
    "heads",
    "regression",
    "tagging",
)  # tasks whose answers are probabilities of classes, or numbers


@dataclass(frozen=True)
class Output:
    """As a transformers model gives it."""

    logits: torch.Tensor


class Ensemble(nn.Module):
    """`task`: one of AVERAGED; `labels`: its outputs' names."""

    def __init__(self, members: Sequence[nn.Module], task: str, labels: Sequence[str]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.config = SimpleNamespace(model_type=MODEL_TYPE)
        heads = parted(list(labels)) if task == "heads" else {"": list(labels)}
        self.sizes = None if task == "regression" else [len(names) for names in heads.values()]

    def forward(self, **inputs: Any) -> Output:
        return Output(mean([member(**inputs).logits for member in self.members], self.sizes))


def mean(logits: Sequence[torch.Tensor], sizes: Sequence[int] | None) -> torch.Tensor:
    """The log of the members' mean probabilities, fp32, over each stretch of the last dimension that `sizes` divides it into; with None the
    mean itself. A softmax of it gives the mean probabilities back."""
    stacked_M = torch.stack([one.float() for one in logits])
    if sizes is None:
        return stacked_M.mean(0)
    parts = [part.log_softmax(-1).logsumexp(0) for part in stacked_M.split(list(sizes), -1)]
    return torch.cat(parts, -1) - math.log(len(logits))

"""Several classes a row: one encoder and a head for each question. The model is a classifier whose outputs are the heads' classes side by
side; labels are `head:class`. A row may lack the class of any head: it then teaches the others. Shapes: B rows, C classes of all heads."""

from __future__ import annotations

import numpy as np
import torch

from models import loss
from models.labels import parted
from models.loss import IGNORED
from models.tasks.base import Rows, Task, Tensors
from models.tasks.rows import confusion, confusion_scores


class Heads(Task):
    """The loss is the mean over all classes asked for, each times the weight of its head (`model.head_weights`); scores are the mean over
    heads, and those of each head under its name."""

    columns = ("heads",)
    counts_rows = False

    @property
    def heads(self) -> dict[str, slice]:
        """Head -> its places among the outputs."""
        found, at = {}, 0
        for head, names in parted(self.labels).items():
            found[head] = slice(at, at + len(names))
            at += len(names)
        return found

    def targets(self, rows: Rows) -> Tensors:
        asked = {head: np.asarray(rows.columns["heads"][head], np.int64) for head in self.heads}
        return {head: torch.from_numpy(np.where(found < 0, IGNORED, found)) for head, found in asked.items()}

    def count(self, rows: Rows) -> int:
        return sum(int((np.asarray(rows.columns["heads"][head]) >= 0).sum()) for head in self.heads)

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total, asked = logits.new_zeros((), dtype=torch.float32), weight_B.new_zeros(())
        for head, place in self.heads.items():
            known_B = weight_B * (targets[head] != IGNORED)
            named_B = targets[head].clamp(min=0)  # whatever stands where no class is known, its weight is 0
            summed, count = loss.classification(logits[:, place], named_B, known_B, smoothing)
            total, asked = total + self.config.head_weights.get(head, 1.0) * summed, asked + count
        return total, asked

    @property
    def tallies(self) -> int:
        return sum((place.stop - place.start) ** 2 for place in self.heads.values())

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        parts = []
        for head, place in self.heads.items():
            known_B, size = targets[head] != IGNORED, place.stop - place.start
            guess_B = logits[:, place].argmax(-1)
            parts.append(confusion(guess_B[known_B], targets[head][known_B], weight_B[known_B], size))
        return torch.cat(parts)

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        each, at = {}, 0
        for head, place in self.heads.items():
            size = place.stop - place.start
            counts_CC = total[at : at + size * size].view(size, size)
            at += size * size
            if counts_CC.sum() > 0:
                each[head] = confusion_scores(counts_CC)
        means = {key: float(np.mean([found[key] for found in each.values()])) for key in ("accuracy", "macro_f1")}
        if len(self.heads) == 1:
            return means
        return means | {f"{head}_{key}": value for head, found in each.items() for key, value in found.items()}

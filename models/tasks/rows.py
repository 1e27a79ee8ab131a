"""Tasks with one answer a row: a class, or a number. Shapes: B rows, C classes."""

from __future__ import annotations

import math

import numpy as np
import torch

from models import loss
from models.tasks.base import Rows, Task, Tensors


class Classification(Task):
    columns = ("labels",)

    def targets(self, rows: Rows) -> Tensors:
        return {"labels": torch.from_numpy(np.asarray(rows.columns["labels"], np.int64))}

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.classification(logits, targets["labels"], weight_B, smoothing)

    @property
    def tallies(self) -> int:
        return len(self.labels) ** 2

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        return confusion(logits.argmax(-1), targets["labels"], weight_B, len(self.labels))

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        return confusion_scores(total.view(len(self.labels), -1))


class Regression(Task):
    columns = ("values",)
    tallies = 7  # type: ignore[assignment]
    width = 1  # type: ignore[assignment]

    def targets(self, rows: Rows) -> Tensors:
        return {"values": torch.from_numpy(np.asarray(rows.columns["values"], np.float32))}

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.regression(logits.squeeze(-1), targets["values"], weight_B)

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Rows, sums of found, wanted, their squares and product, and of the absolute error."""
        x_B, y_B, w_B = logits.squeeze(-1).double().cpu(), targets["values"].double().cpu(), weight_B.double().cpu()
        parts = (torch.ones_like(x_B), x_B, y_B, x_B * x_B, y_B * y_B, x_B * y_B, (x_B - y_B).abs())
        return torch.stack([(part * w_B).sum() for part in parts])

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        """Pearson's correlation is 0 where one side does not vary."""
        _, x, y, xx, yy, xy, error = (total / total[0]).tolist()
        spread = math.sqrt(max(0.0, xx - x * x) * max(0.0, yy - y * y))
        square = max(0.0, xx - 2 * xy + yy)
        return {"pearson": (xy - x * y) / spread if spread > 1e-12 else 0.0, "mae": error, "rmse": math.sqrt(square)}


def confusion(found: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, classes: int) -> torch.Tensor:
    """Counts by (wanted, found), flattened; fp64 on the CPU."""
    cell = (wanted * classes + found).flatten().cpu()
    return torch.bincount(cell, weights=weight.flatten().double().cpu(), minlength=classes * classes)


def confusion_scores(confusion_CC: torch.Tensor) -> dict[str, float]:
    """`{"accuracy", "macro_f1"}` of counts by (true, predicted). Macro F1 is the mean over classes that occur in either."""
    hits_C = confusion_CC.diagonal()
    seen_C = confusion_CC.sum(0) + confusion_CC.sum(1)  # 2 hits + misses + false alarms
    f1_C = 2 * hits_C[seen_C > 0] / seen_C[seen_C > 0]
    return {"accuracy": float(hits_C.sum() / confusion_CC.sum()), "macro_f1": float(f1_C.mean())}

"""The interface of a task. Takes rows of the store as plain arrays; gives tensors for the model, targets for the loss, and scores that
add up over micro-batches and ranks. Knows neither store nor engine. Shapes: B rows, L tokens of the longest row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from models.config import ModelConfig
from models.processing import collate, collate_packed, segment_mask

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """Some rows as the store has them. `ids`: token ids a row. `columns`: those that the task asks for (`Task.columns`), by name.
    `random`: for a task that draws, uint64 numbers (`Task.draws`, L) a row, the same for a row and epoch everywhere. `segments`: lengths
    of the texts in each packed row."""

    ids: Sequence[np.ndarray]
    columns: dict[str, Any] = field(default_factory=dict)
    random: Sequence[np.ndarray] | None = None
    segments: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Task(ABC):
    """`columns`: what it reads of a row besides ids. `draws`: random numbers a token, where inputs and targets are drawn anew in each
    epoch. `counts_rows`: each row weighs one in the loss. `reads_tokens`: its targets stand at tokens, so all hidden states are needed,
    not the first alone. `packs`: a row may be several texts side by side."""

    columns: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[int] = 0
    counts_rows: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        self.config, self.labels, self.folder = config, list(labels), folder

    # ------------------------------------------------------------------------------------------ before the model

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        """Inputs and targets together."""
        return self.inputs(rows, pad_id), self.targets(rows)

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        """What the model takes, by name."""
        if rows.segments is None:
            return dict(zip(("input_ids", "attention_mask"), collate(rows.ids, pad_id), strict=True))
        ids_BL, segment_BL, position_BL = collate_packed(rows.ids, rows.segments, pad_id)
        return {"input_ids": ids_BL, "position_ids": position_BL, "attention_mask": self.mask(segment_BL)}

    def mask(self, segment_BL: torch.Tensor) -> torch.Tensor:
        """Which tokens of packed rows see each other, (B, 1, L, L)."""
        return segment_mask(segment_BL)

    @abstractmethod
    def targets(self, rows: Rows) -> Tensors:
        """What the loss compares with, by name."""

    def count(self, rows: Rows) -> int:
        """Weights of these rows in the loss, added up: the same number that `loss` counts over all ranks' parts of them."""
        return len(rows)

    # ------------------------------------------------------------------------------------------ behind it

    @property
    def width(self) -> int:
        """Numbers a row that `outcome` gives."""
        return len(self.labels)

    def outcome(self, logits: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
        """(B, width) numbers that hang on the whole model: what it says of each row, by which a package is verified."""
        return logits

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(sum, count)`; a row of weight 0 changes neither."""

    @property
    @abstractmethod
    def tallies(self) -> int:
        """How many numbers `tally` gives."""

    @abstractmethod
    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """fp64 numbers, on the CPU, that add up over rows."""

    @abstractmethod
    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        """Metrics of added-up tallies. `loss`: the mean over the same rows."""

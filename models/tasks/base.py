"""The interface of a task. Takes rows of the store as plain arrays; gives tensors for the model, targets for the loss, and scores that
add up over micro-batches and ranks. Knows neither store nor engine. Shapes: B rows, L tokens of the longest row."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from models.config import ModelConfig
from models.families import token_types
from models.inputs import Rows, Tensors, readers, without
from models.processing import collate, collate_packed, second_text, segment_mask

__all__ = ["Rows", "Task", "Tensors"]


class Task(ABC):
    """`columns`: what it reads of a row besides ids. `draws`: random numbers a token, where inputs and targets are drawn anew in each
    epoch. `counts_rows`: each row weighs one in the loss. `reads_tokens`: its targets stand at tokens, so all hidden states are needed,
    not the first alone. `packs`: a row may be several texts side by side. `group`: so many rows belong together in the loss, and are never
    in different micro-batches."""

    columns: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[int] = 0
    counts_rows: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = False
    packs: ClassVar[bool] = False
    group: int | None = None

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        self.config, self.labels, self.folder = config, list(labels), folder
        self.readers = readers(config.reads, folder)

    @property
    def media(self) -> tuple[str, ...]:
        """Kinds of media that it reads of a row."""
        return tuple(name for name in self.config.reads if name != "text")

    @property
    def modality_dropout(self) -> float:
        """Share of the modalities that a row loses while the model trains."""
        return self.config.fusion.modality_dropout if self.config.fusion else 0.0

    @cached_property
    def token_types(self) -> bool:
        """Whether the model is told which of two texts a token belongs to."""
        path = self.folder / "config.json"
        return path.is_file() and token_types(json.loads(path.read_text(encoding="utf-8"))) > 1

    def adapt(self, model: nn.Module) -> bool:
        """Have the model leave out what the task does not ask for in training and validation; whether it could. Called before the first batch
        is made for it."""
        return False

    # ------------------------------------------------------------------------------------------ before the model

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        """Inputs and targets together."""
        return self.inputs(rows, pad_id), self.targets(rows)

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        """What the model takes while it trains, by name."""
        return self.given(rows, pad_id)

    def given(self, rows: Rows, pad_id: int) -> Tensors:
        """What the model takes when it is asked: the row as it is."""
        if rows.segments is None:
            found = {name: tensor for reader in self.readers for name, tensor in reader(rows, pad_id).items()}
            if rows.lost is not None:
                always = ("text",) if self.reads_tokens else ()  # its targets stand there
                found = without(found, self.config.reads, rows.lost, self.modality_dropout, always)
            if rows.pair_at is not None and self.token_types:
                found["token_type_ids"] = second_text(rows.ids, rows.pair_at)
            if rows.withheld is not None and self.config.attends:
                found["withheld"] = collate(rows.withheld, -1)[0]
            return found
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

    def read(self, output: Any) -> Any:
        """Of what the model gives, what the loss and all below take: its logits; of a task with several heads a tuple of them."""
        return output.logits

    @property
    def width(self) -> int:
        """Numbers a row that `outcome` gives."""
        return len(self.labels)

    def outcome(self, logits: Any, attention_mask_BL: torch.Tensor | None) -> torch.Tensor:
        """(B, width) numbers that hang on the whole model: what it says of each row, by which a package is verified."""
        return logits

    @abstractmethod
    def loss(
        self, logits: Any, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(sum, count)`; a row of weight 0 changes neither."""

    @property
    @abstractmethod
    def tallies(self) -> int:
        """How many numbers `tally` gives."""

    @abstractmethod
    def tally(self, logits: Any, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """fp64 numbers, on the CPU, that add up over rows."""

    @abstractmethod
    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        """Metrics of added-up tallies. `loss`: the mean over the same rows."""

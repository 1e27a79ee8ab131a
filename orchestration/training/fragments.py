"""A training state in pieces. A tensor is flattened and cut wherever the ranks that hold it cut it; over all ranks every element
occurs exactly once. Engines give fragments, checkpoints store them, and any other number of ranks, under any ZeRO stage, puts
together what it needs. Knows neither."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + values.numel()) of the flattened tensor `name`; `values` is one-dimensional, on the CPU."""

    name: str
    start: int
    values: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of the state after an update: trainable parameters, persistent buffers, and `{parameter}.exp_avg` and
    `.exp_avg_sq`. `shapes`: of every tensor over all ranks. `steps`: updates behind the moments of each trainable parameter.
    `extra`: numbers of the engine's own, such as the loss scale of fp16."""

    weights: list[Fragment]
    moments: list[Fragment]
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, int]
    extra: dict[str, float] = field(default_factory=dict)

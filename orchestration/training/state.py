"""Where a fit stands between two updates. Plain JSON values: a checkpoint keeps them, the loop moves them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainState:
    """After `step` updates; the next batch is number `batch` of `epoch`.

    `pending`: (loss sum, row count) since the last report, over all ranks. `stale`: validations without improvement, for early
    stopping. `released`: how often frozen groups were released, `flat`: validations without improvement since then. `skipped`:
    batches left out because their loss was not finite. `best_rel`: the checkpoint of `best_step`.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_value: float | None = None
    best_step: int | None = None
    best_rel: str | None = None
    stale: int = 0
    released: int = 0
    flat: int = 0
    skipped: int = 0
    pending: tuple[float, float] = (0.0, 0.0)
    ended: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

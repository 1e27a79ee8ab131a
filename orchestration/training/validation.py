"""Loss and the task's metrics on the validation split, over all ranks. Takes the engine and a feed; gives plain numbers that are the same
on every rank. Called by the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from models.config import LOWER
from orchestration.training.bare import Engine
from orchestration.training.feed import Feed, ahead


def validate(
    engine: Engine,
    feed: Feed,
    *,
    reduce: Callable[[torch.Tensor], torch.Tensor],
    beat: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`{"loss", the task's metrics, "rows"}`; the loss without label smoothing. `reduce` sums a tensor over ranks, `beat` is called after
    each batch. Collective."""
    task = feed.task
    engine.train(False)
    total = torch.zeros(3 + task.tallies, dtype=torch.float64)  # loss sum, its count, rows; then the task's
    try:
        with torch.no_grad():
            for step in ahead(feed.in_length_order()):
                for micro in step.micros:
                    logits = _on_cpu(engine.forward(**micro.inputs))
                    summed, count = task.loss(logits, *micro.given)
                    total[:3] += torch.stack([summed, count, micro.weight_B.sum()]).double()
                    total[3:] += task.tally(logits, *micro.given)
                beat()
    finally:
        engine.train(True)
    sums = reduce(total)
    loss = float(sums[0] / sums[1])
    return {"loss": loss, **task.scores(sums[3:], loss), "rows": int(sums[2])}


def _on_cpu(logits: Any) -> Any:
    """Logits of one head, or a tuple of several."""
    return logits.cpu() if isinstance(logits, torch.Tensor) else tuple(part.cpu() for part in logits)


def improved(value: float, best: float | None, *, metric: str, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `min_delta`; a loss is better when lower. NaN never is."""
    if best is None:
        return value == value
    return best - value > min_delta if metric in LOWER else value - best > min_delta

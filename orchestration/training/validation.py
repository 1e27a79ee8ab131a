"""Loss, accuracy and macro F1 on the validation split, over all ranks. Takes the engine and a feed; gives plain numbers that are
the same on every rank. Called by the loop. Shapes: C classes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from models import loss
from orchestration.training.bare import Engine
from orchestration.training.feed import Feed, ahead


def validate(
    engine: Engine,
    feed: Feed,
    *,
    classes: int,
    reduce: Callable[[torch.Tensor], torch.Tensor],
    beat: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`{"loss", "accuracy", "macro_f1", "rows"}`; the loss without label smoothing. `reduce` sums a tensor over ranks, `beat` is
    called after each batch. Collective."""
    engine.train(False)
    total = torch.zeros(2, dtype=torch.float64)
    confusion_CC = torch.zeros(classes * classes, dtype=torch.float64)
    try:
        with torch.no_grad():
            for step in ahead(feed.in_length_order()):
                for micro in step.micros:
                    logits_BC = engine.forward(**micro.inputs).float().cpu()
                    summed, count = loss.classification(logits_BC, micro.labels_B, micro.weight_B)
                    total += torch.stack([summed, count]).double()
                    cell_B = micro.labels_B * classes + logits_BC.argmax(-1)
                    confusion_CC += torch.bincount(cell_B, weights=micro.weight_B.double(), minlength=classes * classes)
                beat()
    finally:
        engine.train(True)
    sums = reduce(torch.cat([total, confusion_CC])).tolist()
    return {
        "loss": sums[0] / sums[1],
        **scores(torch.tensor(sums[2:], dtype=torch.float64).view(classes, classes)),
        "rows": int(sums[1]),
    }


def scores(confusion_CC: torch.Tensor) -> dict[str, float]:
    """`{"accuracy", "macro_f1"}` of counts by (true, predicted). Macro F1 is the mean over classes that occur in either."""
    hits_C = confusion_CC.diagonal()
    seen_C = confusion_CC.sum(0) + confusion_CC.sum(1)  # 2 hits + misses + false alarms
    f1_C = 2 * hits_C[seen_C > 0] / seen_C[seen_C > 0]
    return {"accuracy": float(hits_C.sum() / confusion_CC.sum()), "macro_f1": float(f1_C.mean())}


def improved(value: float, best: float | None, *, metric: str, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `min_delta`; a loss is better when lower. NaN never is."""
    if best is None:
        return value == value
    return best - value > min_delta if metric == "loss" else value - best > min_delta

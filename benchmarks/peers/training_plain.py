"""A PyTorch training loop as anyone would write it: DataLoader, fused AdamW, LambdaLR, clipping. Takes a model and tokenised
rows; gives the losses. It knows nothing of ours: no store, no plan, no engine, no events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Settings:
    """Numbers of a run. `warmup`: steps."""

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    clip_norm: float
    warmup: int
    pad_id: int
    report_every: int


def train(
    model: Any,
    rows: Sequence[tuple[torch.Tensor, int]],
    batches: Sequence[list[int]],
    settings: Settings,
    on_report: Callable[[int, float], None],
) -> None:
    """One pass over `batches` (row numbers). `on_report(step, mean loss since the report before)` every so many steps."""

    def collate(items: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids_BL = pad_sequence([ids for ids, _ in items], batch_first=True, padding_value=settings.pad_id)
        mask_BL = pad_sequence([torch.ones_like(ids) for ids, _ in items], batch_first=True)
        return ids_BL, mask_BL, torch.tensor([label for _, label in items])

    def factor(step: int) -> float:
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        return 1.0 - (step - settings.warmup) / max(1, len(batches) - settings.warmup)

    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loader: Any = DataLoader(rows, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
    model.train()
    total = torch.zeros(())
    for step, (ids_BL, mask_BL, labels_B) in enumerate(loader, start=1):
        loss = cross_entropy(model(input_ids=ids_BL, attention_mask=mask_BL).logits, labels_B)
        loss.backward()
        clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        total += loss.detach()
        if step % settings.report_every == 0:
            on_report(step, float(total) / settings.report_every)
            total.zero_()

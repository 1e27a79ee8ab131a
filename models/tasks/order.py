"""Masked language modelling together with sentence order (Lan et al. 2020, ALBERT): of two texts that follow each other half are shown in
exchanged places, and the model says whether they are, beside the hidden tokens. Exchanges and masks are drawn from the row's random
numbers. Shapes: B rows, L tokens, V entries of the vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models import loss
from models.loss import IGNORED
from models.tasks.base import Rows, Tensors
from models.tasks.language import MaskedLM
from models.tasks.tagging import SHOWN

Both = tuple[torch.Tensor, torch.Tensor]  # logits of tokens (B, L, V), and of the order (B, 2)


class SentenceOrder(MaskedLM):
    """The loss is the mean over hidden tokens of their own loss plus that of their row's order, so that both are means over the whole batch
    with one count: for rows with equally many hidden tokens the sum of the two losses, as BERT and ALBERT have it."""

    draws = 4  # those of masks, and whether the texts are exchanged
    packs = False
    tallies = 5  # type: ignore[assignment]
    width = 1 + SHOWN + 2  # type: ignore[assignment]

    def read(self, output: Any) -> Any:
        order = output.sop_logits if hasattr(output, "sop_logits") else output.seq_relationship_logits
        return output.prediction_logits, order

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        shown = self._shown(rows)
        inputs, targets = super().batch(shown, pad_id)
        return inputs, {**targets, "order": torch.from_numpy(self._exchanged(rows).astype(np.int64))}

    def count(self, rows: Rows) -> int:
        return super().count(self._shown(rows))

    def _exchanged(self, rows: Rows) -> np.ndarray:
        assert rows.random is not None
        return np.array([int(random[3][0]) >> 63 == 1 for random in rows.random])

    def _shown(self, rows: Rows) -> Rows:
        """The rows in the order in which the model sees their texts."""
        assert rows.pair_at is not None
        pairs = zip(rows.ids, rows.pair_at, self._exchanged(rows), strict=True)
        made = [
            self._turned(np.asarray(row), int(at)) if turn else (np.asarray(row), int(at)) for row, at, turn in pairs
        ]
        return replace(rows, ids=[row for row, _ in made], pair_at=[at for _, at in made])

    def _turned(self, row: np.ndarray, at: int) -> tuple[np.ndarray, int]:
        """The two texts exchanged; special tokens before, between and behind them stay where they are."""
        plain_L = ~self._special_V[row]
        first, second = np.flatnonzero(plain_L[:at]), at + np.flatnonzero(plain_L[at:])
        if not len(first) or not len(second):
            return row, at
        a, b, c, d = first[0], first[-1] + 1, second[0], second[-1] + 1
        parts = row[:a], row[c:d], row[b:c], row[a:b], row[d:]
        return np.concatenate(parts), int(a + (d - c) + (c - b))

    def loss(
        self, logits: Both, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed, count = loss.tokens(logits[0], targets["tokens"], weight_B, smoothing)
        tokens_B = (targets["tokens"] != IGNORED).sum(1) * weight_B
        order_B = functional.cross_entropy(
            logits[1].float(), targets["order"], reduction="none", label_smoothing=smoothing
        )
        return summed + (order_B * tokens_B).sum(), count

    def tally(self, logits: Both, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Tokens asked for, those found, the sum of their losses; rows, and those whose order was found."""
        summed, _ = loss.tokens(logits[0], targets["tokens"], weight_B)
        right = ((logits[1].argmax(-1) == targets["order"]) * weight_B).sum()
        more = torch.stack([summed, weight_B.sum(), right]).double().cpu()
        return torch.cat([super().tally(logits[0], targets, weight_B), more])

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        tokens, _, summed, rows, right = total.tolist()
        own = super().scores(total[:2], summed / tokens if tokens else 0.0)
        return {"order_accuracy": right / rows if rows else 0.0, **own}

    def outcome(self, logits: Both, attention_mask_BL: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().outcome(logits[0], attention_mask_BL), logits[1].float()], 1)

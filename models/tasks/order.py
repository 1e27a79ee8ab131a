"""Masked language modelling together with what two texts are to each other, which the model says beside the hidden tokens. Half of the rows are changed:
sentence order (Lan et al. 2020, ALBERT) shows their texts in exchanged places, next sentence (Devlin et al. 2019, BERT) puts the second text of another
row in place of their own. Changes and masks are drawn from the rows' random numbers. Shapes: B rows, L tokens, V entries of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.config import ContrastConfig, ModelConfig
from models.loss import IGNORED
from models.tasks.base import Rows, Tensors
from models.tasks.language import MaskedLM
from models.tasks.tagging import SHOWN

Both = tuple[torch.Tensor, torch.Tensor]  # logits of tokens (B, L, V), and of the order (B, 2)
Part = tuple[int, np.ndarray]  # a row, and places in it


class SentenceOrder(MaskedLM):
    """The loss is the mean over hidden tokens of their own loss plus that of their row's order, so that both are means over the whole batch
    with one count: for rows with equally many hidden tokens the sum of the two losses, as BERT and ALBERT have it."""

    draws = 4  # those of masks, and whether the row is changed
    aim = "order_accuracy"
    packs = False
    tallies = 5  # type: ignore[assignment]
    width = 1 + SHOWN + 2  # type: ignore[assignment]

    def read(self, output: Any) -> Any:
        order = output.sop_logits if hasattr(output, "sop_logits") else output.seq_relationship_logits
        return output.prediction_logits, order

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        shown, changed = self._shown(rows)
        inputs, targets = super().batch(shown, pad_id)
        return inputs, {**targets, "order": torch.from_numpy(changed.astype(np.int64))}

    def count(self, rows: Rows) -> int:
        return super().count(self._shown(rows)[0])

    def _half(self, rows: Rows) -> np.ndarray:
        """(B,), bool: the rows that are drawn to be changed."""
        assert rows.random is not None
        return np.array([int(random[3][0]) >> 63 == 1 for random in rows.random])

    def _shown(self, rows: Rows) -> tuple[Rows, np.ndarray]:
        """The rows as the model sees them, and which of them are changed."""
        assert rows.pair_at is not None
        changed = self._half(rows)
        pairs = zip(rows.ids, rows.pair_at, changed, strict=True)
        made = [
            self._turned(np.asarray(row), int(at)) if turn else (np.asarray(row), int(at)) for row, at, turn in pairs
        ]
        return replace(rows, ids=[row for row, _ in made], pair_at=[at for _, at in made]), changed

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
        summed, count = super().loss(logits[0], targets, weight_B, smoothing)
        tokens_B = _hidden(targets, len(weight_B)) * weight_B
        order_B = functional.cross_entropy(
            logits[1].float(), targets["order"], reduction="none", label_smoothing=smoothing
        )
        return summed + (order_B * tokens_B).sum(), count

    def tally(self, logits: Both, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Tokens asked for, those found, the sum of their losses; rows, and those whose order was found."""
        summed, _ = super().loss(logits[0], targets, weight_B)
        right = ((logits[1].argmax(-1) == targets["order"]) * weight_B).sum()
        more = torch.stack([summed, weight_B.sum(), right]).double().cpu()
        return torch.cat([super().tally(logits[0], targets, weight_B), more])

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        tokens, _, summed, rows, right = total.tolist()
        own = super().scores(total[:2], summed / tokens if tokens else 0.0)
        return {self.aim: right / rows if rows else 0.0, **own}

    def outcome(self, logits: Both, attention_mask_BL: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().outcome(logits[0], attention_mask_BL), logits[1].float()], 1)


def _hidden(targets: Tensors, rows: int) -> torch.Tensor:
    """Hidden tokens of each row, (B,)."""
    if "rows" in targets:
        return torch.bincount(targets["rows"], minlength=rows)
    return (targets["tokens"] != IGNORED).sum(1)


class NextSentence(SentenceOrder):
    """The other row is the next one of the group (`model.contrast.group`): the order fixes groups, and makes others in each epoch, so N workers give the
    numbers of one. Second texts, own and borrowed alike, are cut to the shorter of the row's own and the next row's: a text without its end then tells
    nothing, and no row is longer than it was. Where what is shown would be the same, the row counts as unchanged."""

    aim = "next_accuracy"

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.size = self.group = (config.contrast or ContrastConfig()).group

    def count(self, rows: Rows) -> int:
        """`rows`: of a whole batch, in its order."""
        assert rows.random is not None
        assert rows.pair_at is not None
        parts = [slice(at, at + self.size) for at in range(0, len(rows), self.size)]
        return sum(
            super(NextSentence, self).count(
                replace(rows, ids=rows.ids[part], random=rows.random[part], pair_at=rows.pair_at[part])
            )
            for part in parts
        )

    def _second(self, rows: Rows) -> tuple[list[Part], list[Part]]:
        """Of each row what it may be shown as its second text: its own, and the next row's."""
        assert rows.pair_at is not None
        own, borrowed = [], []
        for row, at in enumerate(rows.pair_at):
            other = (row + 1) % len(rows)
            start, length, end = int(rows.pair_at[other]), len(rows.ids[row]), len(rows.ids[other])
            most = min(length - at, end - start) - 1  # the special token behind it stays
            own.append((row, np.append(np.arange(at, at + most), length - 1)))
            borrowed.append((other, np.append(np.arange(start, start + most), end - 1)))
        return own, borrowed

    def _shown(self, rows: Rows) -> tuple[Rows, np.ndarray]:
        """A borrowed token brings its random numbers along."""
        assert rows.random is not None
        assert rows.pair_at is not None
        drawn, changed, ids, random = self._half(rows), np.zeros(len(rows), bool), [], []
        for row, (own, borrowed) in enumerate(zip(*self._second(rows), strict=True)):
            same = np.array_equal(rows.ids[row][own[1]], rows.ids[borrowed[0]][borrowed[1]])
            changed[row] = drawn[row] and not same
            at, (other, kept) = int(rows.pair_at[row]), borrowed if changed[row] else own
            ids.append(np.concatenate([rows.ids[row][:at], rows.ids[other][kept]]))
            random.append(np.concatenate([rows.random[row][:, :at], rows.random[other][:, kept]], axis=1))
        return replace(rows, ids=ids, random=random), changed

"""Answers inside a text: a row is a question and a context, its target the first and last token of the answer in the context (Rajpurkar
et al. 2016, SQuAD), or token 0, the row's first, where the context holds none (Devlin et al. 2019 for SQuAD 2.0). Shapes: B rows, L
tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import loss, tokens
from models.config import ModelConfig
from models.tasks.base import Rows, Tensors
from models.tasks.tagging import TokenTask

MAX_TOKENS = 30  # of an answer that is found, as in SQuAD's scripts
NEVER = -1e30  # a score that no place has


class Spans(TokenTask):
    """Two numbers a token: how well an answer begins there, and ends there. Padding takes part in neither softmax, so a row's loss does
    not depend on the rows beside it."""

    columns = ("targets",)
    counts_rows = True
    tallies = 3  # type: ignore[assignment]

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.special_ids = tokens.read(folder).special_ids

    def read(self, output: Any) -> torch.Tensor:
        """(B, L, 2)."""
        return torch.stack([output.start_logits, output.end_logits], -1)

    def targets(self, rows: Rows) -> Tensors:
        """`span` (B, 2); `there` (B, L): tokens that are none of padding; `open` (B, L): those that an answer may lie on."""
        there_BL, open_BL = self.places(rows)
        span_B2 = torch.from_numpy(np.stack([np.asarray(row, np.int64) for row in rows.columns["targets"]]))
        return {"span": span_B2, "there": there_BL, "open": open_BL}

    def places(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """`there`, `open` of rows as an endpoint has them."""
        shape = len(rows), max(1, max(map(len, rows.ids)))
        there_BL, open_BL = np.zeros(shape, bool), np.zeros(shape, bool)
        starts = rows.pair_at if rows.pair_at is not None else [0] * len(rows)
        for i, (ids, start) in enumerate(zip(rows.ids, starts, strict=True)):
            there_BL[i, : len(ids)] = True
            open_BL[i, start : len(ids)] = ~np.isin(ids[start:], self.special_ids)
        return torch.from_numpy(there_BL), torch.from_numpy(open_BL)

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.spans(logits, targets["span"], targets["there"], weight_B, smoothing)

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Rows, those found exactly, and the sum of F1 over tokens."""
        found_B2, _ = best(logits, targets["open"])
        wanted_B2, weight = targets["span"], weight_B.double()
        exact_B = (found_B2 == wanted_B2).all(-1).double()
        shared_B = torch.minimum(found_B2[:, 1], wanted_B2[:, 1]) - torch.maximum(found_B2[:, 0], wanted_B2[:, 0]) + 1
        sizes_B = (found_B2[:, 1] - found_B2[:, 0]) + (wanted_B2[:, 1] - wanted_B2[:, 0]) + 2
        f1_B = 2 * shared_B.clamp(min=0).double() / sizes_B
        return torch.stack([weight.sum(), (exact_B * weight).sum(), (f1_B * weight).sum()]).cpu()

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        rows, exact, f1 = total.tolist()
        return {"exact_match": exact / rows, "f1": f1 / rows} if rows else {"exact_match": 0.0, "f1": 0.0}


def best(logits_BL2: torch.Tensor, open_BL: torch.Tensor, most: int = MAX_TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last token of the likeliest answer of each row, (B, 2), and its score, the sum of its two logits. Both lie on open
    tokens, or both on token 0: no answer."""
    start_BL, end_BL = logits_BL2.float().unbind(-1)
    allowed_BL = open_BL.clone()
    allowed_BL[:, 0] = True
    start_BL = start_BL.masked_fill(~allowed_BL, NEVER)
    length = start_BL.shape[1]
    found_score, found_start = torch.full_like(start_BL, NEVER), torch.zeros_like(open_BL, dtype=torch.int64)
    # For each last token the best first one within reach: `most` comparisons of (B, L) in place of one of (B, L, L).
    for back in range(min(most, length)):
        moved_BL = start_BL[:, : length - back]
        better_BL = moved_BL > found_score[:, back:]
        at_L = torch.arange(length - back, device=moved_BL.device).expand_as(moved_BL)
        crosses_BL = (at_L == 0) & (back > 0)  # no answer is token 0 alone
        better_BL &= ~crosses_BL
        found_score[:, back:] = torch.where(better_BL, moved_BL, found_score[:, back:])
        found_start[:, back:] = torch.where(better_BL, at_L, found_start[:, back:])
    score_B, last_B = (found_score + end_BL.masked_fill(~allowed_BL, NEVER)).max(1)
    first_B = found_start.gather(1, last_B[:, None])[:, 0]
    return torch.stack([first_B, last_B], 1), score_B

"""A tag a word: named entities, parts of speech. The store has the tag at each word's first token and IGNORED at all others. Tags in BIO are
scored by whole entities too. Shapes: B rows, L tokens, C tags."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models import entities, loss
from models.loss import IGNORED
from models.tasks.base import Rows, Task, Tensors
from models.tasks.rows import confusion, confusion_scores

SHOWN = 32  # outputs of a token that verify a package


def aligned(targets: list[np.ndarray]) -> torch.Tensor:
    """One row under the other, IGNORED behind the shorter ones."""
    aligned_BL = np.full((len(targets), max(1, max(map(len, targets)))), IGNORED, np.int64)
    for i, row in enumerate(targets):
        aligned_BL[i, : len(row)] = row
    return torch.from_numpy(aligned_BL)


class TokenTask(Task):
    """A task with an answer at each token. C outputs a token are told by their log of summed exponentials and their first few."""

    counts_rows = False
    reads_tokens = True
    width = 1 + SHOWN  # type: ignore[assignment]

    def outcome(self, logits: Any, attention_mask_BL: torch.Tensor | None) -> torch.Tensor:
        """Of each row's last token; outputs that are not there count as 0."""
        assert attention_mask_BL is not None
        last_B = attention_mask_BL.sum(1).clamp(min=1) - 1
        told_BC = logits[torch.arange(len(logits)), last_B].float()
        first = functional.pad(told_BC[:, :SHOWN], (0, max(0, SHOWN - told_BC.shape[1])))
        return torch.cat([told_BC.logsumexp(-1, keepdim=True), first], 1)


class Tagging(TokenTask):
    columns = ("targets",)

    def targets(self, rows: Rows) -> Tensors:
        return {"tags": aligned(rows.columns["targets"])}

    def count(self, rows: Rows) -> int:
        return sum(int((np.asarray(row) != IGNORED).sum()) for row in rows.columns["targets"])

    def loss(
        self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.tokens(logits, targets["tags"], weight_B, smoothing)

    @cached_property
    def types(self) -> list[str]:
        """Types of entity; none of tags that mark none."""
        return entities.types(self.labels)

    @property
    def tallies(self) -> int:
        return len(self.labels) ** 2 + 3 * len(self.types)

    def tally(self, logits: torch.Tensor, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        found_BL, kept_BL = logits.argmax(-1), targets["tags"] != IGNORED
        return self.tally_tags(found_BL, targets["tags"], kept_BL, weight_B)

    def tally_tags(
        self, found_BL: torch.Tensor, wanted_BL: torch.Tensor, kept_BL: torch.Tensor, weight_B: torch.Tensor
    ) -> torch.Tensor:
        """Of tags however they were found. `kept_BL`: where words begin."""
        weight_BL = weight_B[:, None].expand(kept_BL.shape)
        words = confusion(found_BL[kept_BL], wanted_BL[kept_BL], weight_BL[kept_BL], len(self.labels))
        if not self.types:
            return words
        whole = torch.zeros(3 * len(self.types), dtype=torch.float64)
        for found_L, wanted_L, kept_L, weight in zip(found_BL, wanted_BL, kept_BL, weight_B.tolist(), strict=True):
            told, meant = ([self.labels[tag] for tag in row[kept_L].tolist()] for row in (found_L, wanted_L))
            whole += weight * torch.tensor(entities.counts(told, meant, self.types), dtype=torch.float64)
        return torch.cat([words, whole])

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        words = len(self.labels) ** 2
        found = confusion_scores(total[:words].view(len(self.labels), -1))
        return found | (entities.scores(total[words:].tolist(), self.types) if self.types else {})

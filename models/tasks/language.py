"""Language modelling: the row's own tokens are the targets. Masked (Devlin et al. 2019) hides some of them and asks for those; causal
(Radford et al. 2018) asks for each token given the ones before. Shapes: B rows, L tokens, V entries of the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models import asked, loss, tokens
from models.config import MaskingConfig, ModelConfig
from models.loss import IGNORED
from models.tasks.base import Rows, Tensors
from models.tasks.tagging import TokenTask, aligned

FINITE = 80.0  # exp of it still is: a perplexity above 5e34 says nothing more


class Language(TokenTask):
    """A task whose targets are entries of the vocabulary."""

    packs = True
    tallies = 2  # type: ignore[assignment]

    def loss(
        self, logits: Any, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.tokens(logits, targets["tokens"], weight_B, smoothing)

    def tally(self, logits: Any, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        """Tokens asked for, and those found."""
        kept_BL = (targets["tokens"] != IGNORED) & (weight_B[:, None] > 0)
        hits = logits[kept_BL].argmax(-1) == targets["tokens"][kept_BL]
        return torch.tensor([float(hits.numel()), float(hits.sum())], dtype=torch.float64)

    def scores(self, total: torch.Tensor, loss: float) -> dict[str, float]:
        return {
            "perplexity": math.exp(min(loss, FINITE)),
            "accuracy": float(total[1] / total[0]) if total[0] else 0.0,
        }


class CausalLM(Language):
    """Each token but the first of its text is a target, at the position before it."""

    def targets(self, rows: Rows) -> Tensors:
        return {"tokens": aligned([_next(np.asarray(row), starts) for row, starts in self._starts(rows)])}

    def count(self, rows: Rows) -> int:
        return sum(len(row) - len(starts) for row, starts in self._starts(rows))

    def mask(self, segment_BL: torch.Tensor) -> torch.Tensor:
        length = segment_BL.shape[1]
        return super().mask(segment_BL) & torch.ones(length, length, dtype=torch.bool).tril()

    def _starts(self, rows: Rows) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each row, and where a text begins in it."""
        if rows.segments is None:
            return [(row, np.zeros(min(1, len(row)), np.int64)) for row in rows.ids]
        sizes = [np.asarray(lengths, np.int64) for lengths in rows.segments]
        return [(row, np.cumsum(size) - size) for row, size in zip(rows.ids, sizes, strict=True)]


def _next(row: np.ndarray, starts: np.ndarray) -> np.ndarray:
    following = np.append(row[1:], IGNORED).astype(np.int64)
    following[starts[starts > 0] - 1] = IGNORED  # the next text does not follow from this one
    return following


def _apart(logits: Any, targets: Tensors, weight_B: torch.Tensor) -> tuple[Any, Tensors, torch.Tensor]:
    """Tokens that were asked for alone, as rows of one token each."""
    if "rows" not in targets:
        return logits, targets, weight_B
    return logits[0][:, None], {"tokens": targets["tokens"][:, None]}, weight_B[targets["rows"]]


class MaskedLM(Language):
    """Masks are a pure function of the row's random numbers: the same for any number of workers, others in each epoch."""

    draws = 3  # which tokens, what becomes of each, and what replaces it
    narrow = False  # the model was told to give its output at the hidden tokens alone

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        self.vocabulary = tokens.read(folder)
        self.masking = config.masking or MaskingConfig()
        self.mask_id = self.vocabulary.need("mask", f"model.task={config.task}")
        self._special_V = np.zeros(self.vocabulary.size, bool)
        self._special_V[self.vocabulary.special_ids] = True
        self._ordinary = np.flatnonzero(~self._special_V)  # what a random token is drawn from

    def adapt(self, model: nn.Module) -> bool:
        self.narrow = asked.narrow(model)
        return self.narrow

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        """Where the model can be told so, it is asked for the hidden tokens alone: `tokens` (N,) and `rows` (N,), of the batch, that they
        stand in."""
        hidden = [self._hide(row, random) for row, random in self._drawn(rows)]
        inputs = self.given(replace(rows, ids=[seen for seen, _ in hidden]), pad_id)
        tokens_BL = aligned([targets for _, targets in hidden])
        if not self.narrow:
            return inputs, {"tokens": tokens_BL}
        row_N, at_N = (tokens_BL != IGNORED).nonzero(as_tuple=True)
        return {**inputs, "asked": row_N * tokens_BL.shape[1] + at_N}, {"tokens": tokens_BL[row_N, at_N], "rows": row_N}

    def loss(
        self, logits: Any, targets: Tensors, weight_B: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().loss(*_apart(logits, targets, weight_B), smoothing)

    def tally(self, logits: Any, targets: Tensors, weight_B: torch.Tensor) -> torch.Tensor:
        return super().tally(*_apart(logits, targets, weight_B))

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        return self.batch(rows, pad_id)[0]

    def targets(self, rows: Rows) -> Tensors:
        return self.batch(rows, 0)[1]

    def count(self, rows: Rows) -> int:
        return sum(len(self._chosen(row, random)) for row, random in self._drawn(rows))

    def _drawn(self, rows: Rows) -> list[tuple[np.ndarray, np.ndarray]]:
        assert rows.random is not None
        return list(zip(rows.ids, rows.random, strict=True))

    def _hide(self, row: np.ndarray, random_3L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row as the model sees it, and its targets."""
        chosen = self._chosen(row, random_3L)
        seen, targets = np.array(row, np.int64), np.full(len(row), IGNORED, np.int64)
        targets[chosen] = seen[chosen]
        share_K = (random_3L[1][chosen] >> np.uint64(11)) / (1 << 53)
        others_K = self._ordinary[random_3L[2][chosen] % np.uint64(len(self._ordinary))]
        rule = self.masking
        replaced_K = np.where(share_K < rule.mask + rule.random, others_K, seen[chosen])
        seen[chosen] = np.where(share_K < rule.mask, self.mask_id, replaced_K)
        return seen, targets

    def _chosen(self, row: np.ndarray, random_3L: np.ndarray) -> np.ndarray:
        """Positions to find again, ascending: the rate's share of the ordinary tokens, one at least; with whole words as many words as
        reach it, in the order in which they are drawn, so that the last one may go over it."""
        open_K = np.flatnonzero(~self._special_V[row])
        wanted = max(1, round(self.masking.rate * len(open_K)))
        if not self.masking.whole_words or not len(open_K):
            return np.sort(open_K[np.argsort(random_3L[0][open_K], kind="stable")[:wanted]])
        begins_K = ~self.vocabulary.continues_V[row[open_K]] | (np.diff(open_K, prepend=-2) > 1)
        word_K = np.cumsum(begins_K) - 1
        order = np.argsort(random_3L[0][open_K[begins_K]], kind="stable")
        reached = int(np.searchsorted(np.cumsum(np.bincount(word_K)[order]), wanted))
        return open_K[np.isin(word_K, order[: reached + 1])]

"""What happens at each step of a shared `generate`, a row by its own rules: which token is drawn, and whether the row is at its end.
Shapes: B rows, L tokens, V entries of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class Draws(LogitsProcessor):
    """A row with a temperature gets scores whose largest is a token drawn by its own generator. Dividing probabilities by exponential
    numbers and taking the largest is how torch draws one token itself, so a seed gives the text that `generate` gives after
    `torch.manual_seed`."""

    def __init__(self, rows: Sequence[tuple[Mapping[str, Any], int]]) -> None:
        """Options and seed of each row."""
        self._rows = [_Drawn(options, seed) if options["temperature"] else None for options, seed in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        told = [
            scores[row : row + 1] if drawn is None else drawn(input_ids[row : row + 1], scores[row : row + 1])
            for row, drawn in enumerate(self._rows)
        ]
        return torch.cat(told)


class _Drawn:
    def __init__(self, options: Mapping[str, Any], seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._warpers = [TemperatureLogitsWarper(float(options["temperature"]))]
        if options["top_k"]:
            self._warpers.append(TopKLogitsWarper(options["top_k"]))
        if options["top_p"] < 1:
            self._warpers.append(TopPLogitsWarper(float(options["top_p"])))

    def __call__(self, ids_1L: torch.Tensor, scores_1V: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            scores_1V = warper(ids_1L, scores_1V)
        chance_1V = scores_1V.softmax(-1)
        return chance_1V / torch.empty_like(chance_1V).exponential_(1, generator=self._generator)


class Ends(StoppingCriteria):
    """`most`: new tokens of each row; `stopped`: whether some new tokens are enough, None where nothing stops a row. `counts`: tokens
    of the rows that ended here; what follows in them is padding."""

    def __init__(self, most: Sequence[int], stopped: Sequence[Callable[[list[int]], bool] | None]) -> None:
        self._most, self._stopped = most, stopped
        self._start: int | None = None
        self.counts: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        length = input_ids.shape[1]
        self._start = (
            length - 1 if self._start is None else self._start
        )  # asked after each token, the first time after one
        count = length - self._start
        for row, (most, stopped) in enumerate(zip(self._most, self._stopped, strict=True)):
            if row in self.counts:
                continue
            if count >= most or (stopped is not None and stopped(input_ids[row, self._start :].tolist())):
                self.counts[row] = count
        return torch.tensor([row in self.counts for row in range(len(self._most))], device=input_ids.device)

"""Batches of alike lengths for the peers at their best: transformers' own grouping with its largest window (50 batches), which the samplers
that it ships take only for many rows; the batches come in random order. Imports nothing of Eagleray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

WINDOW = 50  # batches


class ByLength(Sampler):  # type: ignore[type-arg]
    """Row numbers of one epoch after the other, batch after batch; of each batch the rows of one rank."""

    def __init__(self, lengths: Sequence[int], batch: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.lengths, self.batch, self.rank, self.world = list(lengths), batch, rank, world
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths) // self.world

    def __iter__(self) -> Iterator[int]:
        rows = get_length_grouped_indices(self.lengths, self.batch, mega_batch_mult=WINDOW, generator=self.generator)
        whole = len(rows) // self.batch
        for number in [*torch.randperm(whole, generator=self.generator).tolist(), whole]:  # a short batch comes last
            yield from rows[number * self.batch + self.rank : (number + 1) * self.batch : self.world]

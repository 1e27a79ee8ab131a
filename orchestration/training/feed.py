"""From the token store to tensors, on one rank. Takes a split and the order's numbers; gives the steps of an epoch from any
position, collated one step ahead by one thread. The loop calls it. Every rank computes the same order by itself (contract of
`orchestration.data.order`), so nothing is exchanged and finding a position replays nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from models.processing import collate
from orchestration.data import order

T = TypeVar("T")
DEPTH = 2  # steps collated ahead


@dataclass(frozen=True)
class Micro:
    """One micro-batch. A row of weight 0 fills the place of a rank that has none left: it moves nothing."""

    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor
    labels_B: torch.Tensor
    weight_B: torch.Tensor


@dataclass(frozen=True)
class Step:
    """This rank's part of one global batch of `rows` rows; `batch` is its number in the epoch."""

    epoch: int
    batch: int
    rows: int
    micros: list[Micro]


class Feed:
    """`split`: as TokenStore.split gives it. `rows`: only the first so many. Batch sizes in rows."""

    def __init__(
        self,
        split: Any,
        *,
        fingerprint: str,
        batch: int,
        micro_batch: int,
        seed: int,
        pad_id: int,
        rank: int,
        world: int,
        rows: int | None = None,
    ) -> None:
        self.split, self.fingerprint, self.seed, self.pad_id = split, fingerprint, seed, pad_id
        self.batch, self.micro_batch, self.rank, self.world = batch, micro_batch, rank, world
        self.lengths_N = np.asarray(split.lengths)[:rows]
        self.labels_N = np.asarray(split.labels)[:rows]

    def __len__(self) -> int:
        return len(self.lengths_N)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self) // self.batch)

    def steps(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """The epoch's steps from batch number `start`."""
        batches = order.epoch_batches(self.fingerprint, self.lengths_N, batch=self.batch, seed=self.seed, epoch=epoch)
        for number in range(start, len(batches)):
            yield self._step(epoch, number, batches[number])

    def in_length_order(self) -> Iterator[Step]:
        """Every row once, longest first, for validation: least padding, and too little memory shows at once."""
        rows_N = np.argsort(-self.lengths_N.astype(np.int64), kind="stable")
        size = self.micro_batch * self.world
        for number, start in enumerate(range(0, len(rows_N), size)):
            yield self._step(0, number, rows_N[start : start + size])

    def _step(self, epoch: int, number: int, indices: np.ndarray) -> Step:
        parts = order.rank_micro_batches(
            indices, self.lengths_N, rank=self.rank, world=self.world, micro_batch=self.micro_batch
        )
        return Step(epoch, number, len(indices), [self._micro(part) for part in parts])

    def _micro(self, indices: np.ndarray) -> Micro:
        if not len(indices):
            return _filler(self.pad_id)
        ids_BL, mask_BL = collate(self.split.input_ids(indices), self.pad_id)
        return Micro(
            ids_BL, mask_BL, torch.from_numpy(self.labels_N[indices].astype(np.int64)), torch.ones(len(indices))
        )


def ahead(items: Iterator[T], depth: int = DEPTH) -> Iterator[T]:
    """The same items, made in one thread up to `depth` ahead. Its exceptions are raised here; leaving early ends the thread."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: T | None, error: BaseException | None = None) -> None:
        while not ended.is_set():
            try:
                ready.put((item, error), timeout=0.5)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if ended.is_set():
                    return
            put(None)
        except BaseException as error:
            put(None, error)

    threading.Thread(target=work, name="eagleray-feed", daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        ended.set()


def _filler(pad_id: int) -> Micro:
    one_BL = torch.ones((1, 1), dtype=torch.int64)
    return Micro(one_BL * pad_id, one_BL, torch.zeros(1, dtype=torch.int64), torch.zeros(1))

"""From the token store to tensors, on one rank. Takes a split and the order's numbers; gives the steps of an epoch from any
position, collated ahead by one thread. The loop calls it. Every rank computes the same order by itself (contract of
`orchestration.data.order`), so nothing is exchanged and finding a position replays nothing."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from models.tasks.base import Rows, Task
from orchestration.data import order, rng
from orchestration.data.draw import Mix, Stream

T = TypeVar("T")
Augment = Callable[[np.ndarray, int], list[np.ndarray]]  # (row indices, epoch) -> token ids
Media = Callable[[str, np.ndarray, int], list[np.ndarray | None]]  # (kind, row indices, epoch) -> an array a row
DEPTH = 2  # steps collated ahead
# What a task may ask for of a row besides its ids -> how the store gives it.
COLUMNS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "labels": lambda split, indices: split.labels[indices],
    "values": lambda split, indices: split.values[indices],
    "heads": lambda split, indices: {name: of_N[indices] for name, of_N in split.heads.items()},
    "targets": lambda split, indices: split.targets(indices),
}
JOIN_S = 10.0  # for the thread to finish the step it is making


class Outputs(Protocol):
    """Stored outputs of the frozen bottom of the model, by row of the split."""

    def inputs(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """What the top of the model takes for these rows."""


@dataclass(frozen=True)
class Micro:
    """One micro-batch. `inputs`: what the model takes, by name: `input_ids` and `attention_mask` (B x L, int64), or with a trunk
    `hidden` (B x L x D) in place of the ids. `targets`: what the task's loss takes. A row of weight 0 fills the place of a rank that
    has none left: it moves nothing. `tokens`: without padding."""

    inputs: dict[str, torch.Tensor]
    targets: dict[str, torch.Tensor]
    weight_B: torch.Tensor
    tokens: int

    @property
    def given(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """What the loss takes besides the model's output."""
        return self.targets, self.weight_B


@dataclass(frozen=True)
class Step:
    """This rank's part of one global batch of `rows` rows; `batch` is its number in the epoch, `last` says that none follows. `count`: what
    the loss of the whole batch is divided by, over all ranks: rows, or tokens that are asked for."""

    epoch: int
    batch: int
    rows: int
    count: int
    last: bool
    micros: list[Micro]


class Feed:
    """`split`: as TokenStore.split gives it, or its first `rows` rows. `task`: makes tensors of them. `packed`, `pairs`: of the store.

    `batch`: rows of a global batch. A rank takes it in micro-batches of `micro_batch` rows or, in place of that, `micro_tokens`
    tokens with padding. `mix`: draw from weighted sources. `stream(shards)`: waits until so many shards of a growing split are
    there, or no more will come, and gives those there are. `augment(indices, epoch)`: token ids of rows in that epoch, in place of
    the stored ones, and `media(kind, indices, epoch)` likewise; lengths, by which batches are made, stay the stored ones. Both must be
    pure functions of row and epoch.
    `trunk`: gives hidden states in place of token ids; the model then is only its top.
    """

    def __init__(
        self,
        split: Any,
        *,
        task: Task,
        packed: bool = False,
        pairs: bool = False,
        fingerprint: str,
        batch: int,
        micro_batch: int | None = None,
        micro_tokens: int | None = None,
        seed: int,
        pad_id: int,
        rank: int,
        world: int,
        rows: int | None = None,
        mix: Mix | None = None,
        stream: Callable[[int], Stream] | None = None,
        augment: Augment | None = None,
        media: Media | None = None,
        trunk: Outputs | None = None,
    ) -> None:
        self.split, self.task, self.packed = split, task, packed
        self.fingerprint, self.seed, self.pad_id = fingerprint, seed, pad_id
        self.batch, self.rank, self.world, self.rows = batch, rank, world, rows
        self.micro_batch, self.micro_tokens = micro_batch, micro_tokens
        self.mix, self.stream, self.augment, self.media, self.trunk = mix, stream, augment, media, trunk
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> order.Lengths:
        """Tokens a row. Asked for anew each time: a growing split has more of them later."""
        lengths: order.Lengths = self.split.lengths
        return lengths if self.rows is None else lengths[: self.rows]

    def order_of(self, epoch: int, shards: int = 0) -> order.Epoch:
        """The batches of an epoch; of a growing split once so many shards are there."""
        stream = self.stream(shards) if self.stream else None
        return order.Epoch(
            self.fingerprint,
            self.lengths,
            batch=self.batch,
            seed=self.seed,
            epoch=epoch,
            mix=self.mix,
            stream=stream,
        )

    @property
    def steps_per_epoch(self) -> int:
        """The same in every epoch; of a growing split so far."""
        return len(self.order_of(0))

    def steps(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """The epoch's steps from batch number `start`."""
        found = self.order_of(epoch)
        for number in count(start):
            while len(found) <= number + 1 and not found.complete:  # one more, or the last would not be known to be it
                found = self.order_of(epoch, found.shards_needed(number + 1))
            if number >= len(found):
                return
            yield self._step(epoch, number, found.batch(number), last=number + 1 == len(found), changing=True)

    def in_length_order(self) -> Iterator[Step]:
        """Every row once, longest first, for validation: least padding, and too little memory shows at once."""
        rows = np.arange(len(self))
        if self.task.group is None:
            rows = order.longest_first(rows, self.lengths)
        if self.task.group is not None:
            size = self.task.group * self.world
            batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        elif self.micro_tokens is None:
            size = int(self.micro_batch or 1) * self.world
            batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        else:
            pieces = order.cut_by_tokens(rows, self.lengths, self.micro_tokens)
            batches = [np.concatenate(pieces[i : i + self.world]) for i in range(0, len(pieces), self.world)]
        for number, indices in enumerate(batches):
            yield self._step(0, number, indices, last=number + 1 == len(batches))

    def _step(self, epoch: int, number: int, indices: np.ndarray, *, last: bool, changing: bool = False) -> Step:
        """`changing`: rows in their form of the epoch; else as they are stored."""
        parts = self._parts(indices)
        rows = len(indices)
        count = rows if self.task.counts_rows else self.task.count(self._rows(indices, epoch, changing))
        return Step(epoch, number, rows, max(1, count), last, [self._micro(part, epoch, changing) for part in parts])

    def _parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """This rank's micro-batches of a global batch."""
        if self.task.group is not None:
            return order.rank_groups(indices, rank=self.rank, world=self.world, group=self.task.group)
        return order.rank_micro_batches(
            indices,
            self.lengths,
            rank=self.rank,
            world=self.world,
            micro_batch=self.micro_batch,
            micro_tokens=self.micro_tokens,
        )

    def _micro(self, indices: np.ndarray, epoch: int, changing: bool) -> Micro:
        weight_B = torch.ones(len(indices)) if len(indices) else torch.zeros(1)
        filled = indices if len(indices) else np.zeros(1, np.int64)
        rows = self._rows(filled, epoch, changing)
        tokens = sum(map(len, rows.ids)) if len(indices) else 0
        if self.trunk is not None:
            return Micro(self.trunk.inputs(filled), self.task.targets(rows), weight_B, tokens)
        return Micro(*self.task.batch(rows, self.pad_id), weight_B, tokens)

    def _rows(self, indices: np.ndarray, epoch: int, changing: bool) -> Rows:
        ids = self.augment(indices, epoch) if self.augment and changing else self.split.input_ids(indices)
        columns = {name: COLUMNS[name](self.split, indices) for name in self.task.columns}
        segments = self.split.segments(indices) if self.packed else None
        drawn = self._random(ids, indices, epoch) if self.task.draws else None
        media = {kind: self._media(kind, indices, epoch, changing) for kind in self.task.media}
        pair_at = self.split.pair_at(indices) if self.pairs else None
        withheld = self.split.withheld(indices) if self.task.config.attends else None
        lost = self._lost(indices, epoch) if changing else None
        return Rows(ids, columns, drawn, segments, media, pair_at, withheld, lost)

    def _lost(self, indices: np.ndarray, epoch: int) -> list[np.ndarray] | None:
        """Of each row in this epoch a number a modality; None where the task takes none away."""
        count = np.arange(len(self.task.config.reads))
        return (
            [
                rng.mix_array(rng.key("modalities", self.seed, epoch, *name), count)
                for name in self.split.names_of(indices)
            ]
            if self.task.modality_dropout
            else None
        )

    def _media(self, kind: str, indices: np.ndarray, epoch: int, changing: bool) -> list[np.ndarray | None]:
        if self.media and changing:
            return self.media(kind, indices, epoch)
        found: list[np.ndarray | None] = self.split.media(kind, indices)
        return found

    def _random(self, ids: Sequence[np.ndarray], indices: np.ndarray, epoch: int) -> list[np.ndarray]:
        """The task's random numbers of each row in this epoch: of nothing but seed, entry and epoch."""
        found = []
        for row, (row_id, copy, part) in zip(ids, self.split.names_of(indices), strict=True):
            key = rng.key("task", self.seed, epoch, row_id, copy, part)
            found.append(rng.mix_array(key, np.arange(self.task.draws * len(row))).reshape(self.task.draws, len(row)))
        return found


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

    thread = threading.Thread(target=work, name="eagleray-feed", daemon=True)
    thread.start()
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
        with contextlib.suppress(queue.Empty):
            while True:  # room for what the thread still wants to put
                ready.get_nowait()
        # A process that ends while the thread is inside torch is aborted by C++ (seen with three ranks).
        thread.join(JOIN_S)

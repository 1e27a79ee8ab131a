"""Computes the blocks of a trunk that nobody has stored yet, on one rank. Takes the whole model and the rows of each feed; when it
returns, every block is there, whoever computed it. Called by `prepare` on all ranks. Ranks and concurrent trials agree through
the files and claims of `blocks` alone."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from models.tasks.base import Rows
from models.trunk import below_the_head, trunk_output
from orchestration.data import order
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage, digest
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob
from orchestration.training.trunk.blocks import FOLDER, Blocks, Claim, Need
from orchestration.training.trunk.cost import gib, token_bytes, width
from orchestration.training.trunk.numbers import encode
from orchestration.training.trunk.read import Reader
from orchestration.training.watchdog import beat

Report = Callable[[dict[str, Any]], None]
VERSION = 1  # of the layout and of what is computed
# With padding, through the bottom at once: 20 s of one thread where the model is BERT-large, far below STALE_S.
FILL_TOKENS = 2048
REPORT_S, POLL_S = 5.0, 0.25
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Part:
    """The rows of one feed and where their outputs lie. Folds of one store share them."""

    def __init__(self, model: nn.Module, depth: int, job: TrainJob, store: Any, feed: Feed) -> None:
        self.feed, self.whole = feed, store.whole(feed.split.name)
        self.places_N = _places(feed.split.rows_N[: len(feed)], self.whole.rows_N)
        self.lengths_N: np.ndarray = self.whole.lengths
        # A head for classes or numbers reads a row's first token alone, one for tokens all of them.
        self.first_only = below_the_head(model, depth) and not feed.task.reads_tokens
        storage = Storage(job.storage_url)
        self.blocks = Blocks(
            storage,
            f"{FOLDER}/{address(job, storage, depth=depth, store=store.fingerprint, split=feed.split.name)}",
            tokens_N=np.ones(len(self.whole), np.int64) if self.first_only else self.lengths_N,
            width=width(model.config.to_dict()),
            dtype=job.train.trunk.dtype,
        )
        self.needs = self.blocks.needed(self.places_N)

    @property
    def bytes(self) -> int:
        """Of what this feed needs."""
        tokens = sum(self.blocks.tokens(need.number, need.rows) for need in self.needs)
        return tokens * token_bytes(self.blocks.width, self.blocks.dtype)

    def reader(self) -> Reader:
        there = self.blocks.found()
        files = {need.number: there[need.number] for need in self.needs}
        return Reader(self.blocks, self.places_N, files)


def address(job: TrainJob, storage: Storage, *, depth: int, store: str, split: str) -> str:
    """Content address: what the values depend on. `store`: its fingerprint. Frozen weights are those of the model folder."""
    manifest = storage.manifest(job.weights_rel)
    weights = {name: wanted["sha256"] for name, wanted in manifest.files.items()} if manifest else job.weights_rel
    train, adapter = job.train, job.model.adapter
    # Frozen adapters change nothing as they begin, but prefixes do.
    beside: dict[str, Any] = {}
    if adapter and adapter.kind == "prefix":
        beside = {"adapter": adapter.model_dump(mode="json"), "seed": job.seed}
    if job.model.pooling == "mean":  # below the head alone, what is stored is the mean
        beside["pooling"] = "mean"
    return digest(
        {
            **beside,
            "version": VERSION,
            "weights": weights,
            "depth": depth,
            "store": store,
            "split": split,
            "dtype": train.trunk.dtype,
            "precision": train.precision,
        }
    )


class Filling:
    """This rank's share in computing what is missing."""

    def __init__(
        self,
        model: nn.Module,
        depth: int,
        job: TrainJob,
        parts: list[Part],
        *,
        rank: int,
        world: int,
        device: torch.device,
        report: Report,
    ) -> None:
        self.model, self.depth, self.parts, self.device, self.report = model, depth, parts, device, report
        self.rank, self.world, self.precision = rank, world, job.train.precision
        self.pad_id = parts[0].feed.pad_id
        self.storage = parts[0].blocks.storage
        # Concurrent trials begin at different blocks, ranks of a run evenly apart.
        salt = hashlib.sha256(job.run_rel.encode()).digest()
        self.start = int.from_bytes(salt[:4], "big") / 2**32 + rank / world
        self.began, self.told, self.computed = time.monotonic(), 0.0, 0

    def run(self) -> int:
        """Until every block is there; gives the rows that this rank computed."""
        self._drop_damaged()
        try:
            while left := self._missing():
                self._tell(left)
                if not self._pass(left):
                    time.sleep(POLL_S)  # all of it is being computed by others
                    beat()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            size = sum(part.bytes for part in self.parts)
            raise UserError(
                f"outputs of the frozen part need {gib(size)} in {self.storage.path(FOLDER)}: {os.strerror(error.errno)};"
                " make room, store a smaller train.trunk.dtype or set train.trunk.use=off"
            ) from None
        if self.told:
            self._tell([])
            for part in self.parts:
                part.blocks.tidy()
        return self.computed

    def _missing(self) -> list[tuple[Part, Need]]:
        return [(part, need) for part in self.parts for need in part.blocks.missing(part.needs)]

    def _pass(self, left: list[tuple[Part, Need]]) -> bool:
        """Compute what nobody has begun; False where there was nothing to do."""
        first, did = int(self.start % 1 * len(left)), False
        for part, need in left[first:] + left[:first]:
            with part.blocks.claim(need.number) as claim:
                if claim is None or not part.blocks.missing([need]):  # made since we looked
                    continue
                self._compute(part, need, claim)
                did = True
            if time.monotonic() - self.told > REPORT_S:
                self._tell(self._missing())
        return did

    def _compute(self, part: Part, need: Need, claim: Claim) -> None:
        """One block, longest rows first in batches of like length: hardly any padding."""
        blocks, folder = part.blocks, self.storage.staging()
        try:
            file = folder / "block.bin"
            values_TD, scales_T = blocks.create(need.number, need.rows, file)
            first = need.number * blocks.rows
            for rows in self._batches(part, first, need.rows):
                hidden_BLD = self._forward(part, rows)
                values_BLD, scales_BL = encode(hidden_BLD, blocks.dtype)
                for i, row in enumerate(rows.tolist()):
                    start, end = blocks.offsets_N1[row : row + 2] - blocks.offsets_N1[first]
                    values_TD[start:end] = values_BLD[i, : end - start]
                    if scales_T is not None and scales_BL is not None:
                        scales_T[start:end] = scales_BL[i, : end - start]
                claim.touch()
                beat()
            del values_TD, scales_T
            blocks.put(need.number, need.rows, file)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.computed += need.rows

    def _batches(self, part: Part, first: int, count: int) -> Iterator[np.ndarray]:
        rows = order.longest_first(np.arange(first, first + count), part.lengths_N)
        yield from order.cut_by_tokens(rows, part.lengths_N, FILL_TOKENS)

    def _forward(self, part: Part, rows: np.ndarray) -> torch.Tensor:
        pair_at = part.whole.pair_at(rows) if part.feed.pairs else None
        given = part.feed.task.given(Rows(part.whole.input_ids(rows), pair_at=pair_at), self.pad_id)
        inputs = {name: tensor.to(self.device) for name, tensor in given.items()}
        ids_BL, mask_BL = inputs.pop("input_ids"), inputs.pop("attention_mask")
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            hidden_BLD = trunk_output(self.model, self.depth, ids_BL, mask_BL, **inputs)
        return (hidden_BLD[:, :1] if part.first_only else hidden_BLD).float().cpu()

    def _drop_damaged(self) -> None:
        """Every block that will be read is checked once, each rank its part; a damaged one is named and goes."""
        wrong: list[str] = []
        for part in self.parts:
            there = part.blocks.found()
            names = [there[need.number][1] for need in part.needs if need.number in there]
            for name in names[self.rank :: self.world]:
                try:
                    part.blocks.check(name)
                except DamagedError as error:
                    part.blocks.drop(name)
                    wrong.append(str(error))
                beat()
        for sentence in _gathered(wrong, self.world):
            self.report({"type": "warning", "text": f"{sentence}; it is computed again"})

    def _tell(self, left: list[tuple[Part, Need]]) -> None:
        self.told = time.monotonic()
        of = sum(need.rows for part in self.parts for need in part.needs)
        done = of - sum(need.rows for _, need in left)
        self.report({"type": "trunk", "done": done, "of": of, "seconds": round(self.told - self.began, 3)})


def _places(rows_K: np.ndarray, whole_N: np.ndarray) -> np.ndarray:
    """Where entries of a split, or of a part of it, stand in the order of the whole one."""
    place_N = np.empty(len(whole_N), np.int64)
    place_N[whole_N] = np.arange(len(whole_N))
    return place_N[rows_K]


def _gathered(values: list[str], world: int) -> list[str]:
    """Of all ranks."""
    if world == 1:
        return values
    boxes: list[list[str]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(boxes, values)
    return [value for box in boxes for value in box]

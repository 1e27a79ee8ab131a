"""The frozen bottom of the model computes the same output for a row each time: this computes it once, stores it, and gives it to the
feeds in place of token ids. Takes the whole model, the planned table, an open store and the feeds, on every rank, before the engine is
built; leaves the model with its top alone. Called by `setup`. Epochs, runs and trials with the same weights, rows, depth, precision
and dtype share what is stored (`blocks` has the layout); each rank and each concurrent trial computes what is missing and
nobody else has begun. A stored value is that of the engine's own forward pass over the bottom, dropout off, but for the last bits
that other row lengths in a batch move. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.optim import GroupPlan
from models.trunk import frozen_depth, strip
from orchestration.errors import UserError
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob
from orchestration.training.trunk import cost
from orchestration.training.trunk.fill import Filling, Part

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trunk:
    """In use. `depth` groups are stored; `computed` rows of `rows` were not there and were computed by this rank."""

    depth: int
    rows: int
    computed: int
    bytes: int
    reason: str


def prepare(
    model: nn.Module,
    plan: list[GroupPlan],
    job: TrainJob,
    *,
    store: Any,
    feeds: list[Feed],
    epochs: float,
    rank: int,
    world: int,
    device: torch.device,
    report: Report,
) -> Trunk | None:
    """None: not used, model and feeds are as they were. Else the model is its top part, whose parameters keep their names, and the feeds
    give it stored hidden states; what was frozen is gone from memory. `feeds`: of the training and of the validation rows; `epochs`:
    still to come. Collective.

    Raises UserError where `train.trunk.use` is `on` and outputs cannot be stored, or do not fit on the disk.
    """
    depth, use = frozen_depth(plan), job.train.trunk.use
    if use == "off":
        return None
    refusal = _refusal(job, depth, feeds, model.config)
    parts = [] if refusal else [Part(model, depth, job, store, feed) for feed in feeds if len(feed)]
    if use == "auto" and parts:
        groups = len({row.name for row in plan})
        choice = _agreed(lambda: _choose(job, depth, groups, parts, epochs, device), rank, world)
        reason = choice.reason
        refusal = None if choice.use else reason
    else:
        reason = "train.trunk.use is on"
    if refusal or not parts:
        if depth:  # where nothing is frozen nobody asks
            report({"type": "trunk", "used": False, "text": f"outputs of the frozen part are not stored: {refusal}"})
        return None
    model.to(device)
    computed = Filling(model, depth, job, parts, rank=rank, world=world, device=device, report=report).run()
    for part in parts:
        part.feed.trunk = part.reader()
    strip(model, depth)
    report({"type": "trunk", "used": True, "text": f"outputs of the frozen part are stored: {reason}"})
    return Trunk(depth, sum(len(part.feed) for part in parts), computed, sum(part.bytes for part in parts), reason)


def _refusal(job: TrainJob, depth: int, feeds: list[Feed], config: Any) -> str | None:
    """Why outputs are not to be stored whatever it costs. Raises UserError where the spec says that they must be."""
    why = cost.impossible(
        depth=depth,
        family=config.model_type,
        shares=getattr(config, "share_layers", None) is not None,
        draws=any(feed.task.draws for feed in feeds),
        taught=job.train.distill is not None,
        unfreezes=job.train.layers.unfreeze is not None,
        streamed=any(feed.stream is not None for feed in feeds),
        changes=any(feed.augment is not None for feed in feeds),
    )
    if why and job.train.trunk.use == "on":
        raise UserError(f"train.trunk.use=on: {why}; set it to auto or off")
    if not why and job.train.trunk.use == "auto" and any(feed.mix is not None for feed in feeds):
        return cost.MIXED
    return why


def _choose(
    job: TrainJob, depth: int, groups: int, parts: list[Part], epochs: float, device: torch.device
) -> cost.Choice:
    first, rows = len(parts[0].feed), sum(len(part.feed) for part in parts)
    needs = sum(len(part.needs) for part in parts)
    missing = sum(len(part.blocks.missing(part.needs)) for part in parts)
    return cost.choose(
        rows=rows,
        mean_tokens=sum(int(part.lengths_N[part.places_N].sum()) for part in parts) / rows,
        depth=depth,
        groups=groups,
        passes=cost.passes(job.train, train_rows=first, validation_rows=rows - first, epochs=epochs),
        width=parts[0].blocks.width,
        dtype=job.train.trunk.dtype,
        free_bytes=cost.free_bytes(parts[0].blocks.storage),
        existing=1 - missing / needs,
        reads_tokens=parts[0].feed.task.reads_tokens,
        device=device.type,
        threads=torch.get_num_threads(),
    )


def _agreed(decide: Callable[[], cost.Choice], rank: int, world: int) -> cost.Choice:
    """Rank 0 decides: what is there and how much room is free changes while ranks look."""
    if world == 1:
        return decide()
    box = [decide() if rank == 0 else None]
    torch.distributed.broadcast_object_list(box, src=0)
    assert box[0] is not None
    return box[0]

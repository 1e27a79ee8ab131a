"""Where a step cannot be used: its loss is not finite, or it found too little memory. Takes what the loop saw; gives the fault that tells
the user what to change and the driver what happened. What is done about it is `decisions`' matter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from orchestration.training.faults import NotFinite, OutOfMemory
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob

ROWS_SHOWN = 16  # ids of a batch whose loss is not finite


@dataclass(frozen=True)
class Place:
    """A batch: after `step` updates, number `batch` of `epoch`."""

    step: int
    epoch: int
    batch: int


@dataclass
class Recent:
    """The loss sums of the steps since the last report, on this rank; looked at only when their sum is not finite, so that no step
    waits for the device."""

    steps: list[tuple[Place, torch.Tensor]] = field(default_factory=list)

    def add(self, place: Place, loss_sum: torch.Tensor) -> None:
        self.steps.append((place, loss_sum))

    def first_bad(self, *, world: int, device: torch.device) -> Place:
        """The first batch whose loss was not finite on some rank. Collective."""
        bad = (i for i, (_, loss_sum) in enumerate(self.steps) if not math.isfinite(float(loss_sum)))
        first = torch.tensor([float(next(bad, len(self.steps) - 1))], device=device)
        if world > 1:
            torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        return self.steps[int(first.item())][0]


def row_ids(feed: Feed, place: Place) -> list[str]:
    """Of the batch's first ROWS_SHOWN rows, as `prepare` names them."""
    indices = feed.order_of(place.epoch).batch(place.batch)[:ROWS_SHOWN]
    return [row_id.hex() for row_id in feed.split.ids_of(indices)]


def not_finite(job: TrainJob, place: Place, *, what: str = "loss", value: float, rows: list[str]) -> NotFinite:
    return NotFinite(
        f"step {place.step + 1}: the {what} is {value}; lower train.optimizer.lr (now {job.train.optimizer.lr * job.lr_scale:g}),"
        " lengthen train.schedule.warmup, set train.clip_norm, or say in train.failures.not_finite what to do;"
        f" rows of the batch: {', '.join(rows)}",
        step=place.step,
        epoch=place.epoch,
        batch=place.batch,
        rows=rows,
        value=str(value),
    )


def left_out(job: TrainJob, place: Place, *, times: int, rows: list[str]) -> str:
    return (
        f"step {place.step + 1}: the loss or a gradient is not finite; batch {place.batch} of epoch {place.epoch} is left out"
        f" ({times} of at most {job.train.failures.attempts}); its rows: {', '.join(rows)}"
    )


def too_large(
    job: TrainJob, error: BaseException, *, step: int, rank: int, micro_batch: int | None, device: torch.device
) -> OutOfMemory:
    tokens = job.train.micro_tokens
    size = f"train.micro_batch={micro_batch}" if tokens is None else f"train.micro_tokens={tokens}"
    return OutOfMemory(
        f"step {step + 1}: rank {rank} has too little memory with {size} on {device} ({str(error).splitlines()[0][:200]});"
        " lower it, or set train.failures.out_of_memory: smaller_micro_batch",
        step=step,
        micro_batch=micro_batch,
        micro_tokens=tokens,
        device=str(device),
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch has a class of its own for GPUs only, on a CPU it raises RuntimeError with these words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)

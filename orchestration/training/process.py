"""This process as a training worker: its device, threads, process group, and whether a found checkpoint is of its job. Called by
the loop at its start. Knows torch and the TrainJob, no model and no data."""

from __future__ import annotations

import atexit
import dataclasses
import os
from typing import Any

import torch

from models.config import ModelConfig
from orchestration.errors import UserError
from orchestration.training.checkpoint import Found
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob


def choose_device(job: TrainJob) -> torch.device:
    """Raises UserError where the job asks for a GPU that torch does not see."""
    if job.device == "cpu" or (job.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "cluster.gpus_per_worker asks for a GPU, but this worker's torch sees none; install the CUDA build of torch, or set it to 0"
        )
    return torch.device("cuda", torch.cuda.current_device())  # Ray Train has set it to this worker's own


def settle_precision(job: TrainJob, device: torch.device, world: int) -> TrainJob:
    """The job with `precision: auto` decided, the same on every rank. Collective."""
    if job.train.precision != "auto":
        return job
    quick = torch.tensor([int(quick_in_bf16(device))], device=device)
    if world > 1:
        torch.distributed.all_reduce(quick, op=torch.distributed.ReduceOp.MIN)
    train = job.train.model_copy(update={"precision": "bf16" if int(quick) else "fp32"})
    return dataclasses.replace(job, train=train)


def quick_in_bf16(device: torch.device) -> bool:
    """Whether it has units for bf16 products: GPUs since Ampere, CPUs with AMX. Others emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_amx_tile_supported())


def set_threads(job: TrainJob, world: int) -> None:
    """One thread a worker where several share the cores: more of them is the first cost on two cores."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    elif "OMP_NUM_THREADS" not in os.environ and world > 1:
        torch.set_num_threads(1)


def ensure_process_group(job: TrainJob, world: int) -> None:
    """DeepSpeed wants a process group even for one worker: make one where there is none. It stays to the end of the process,
    since DeepSpeed remembers it and fails in the next run (of a reused process) if it is gone."""
    if torch.distributed.is_initialized():
        return
    if world > 1:
        raise RuntimeError(f"world={world} needs an initialised process group; trainer.fit makes one")
    if job.train.zero.stage != "auto":
        backend = "nccl" if choose_device(job).type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
        atexit.register(torch.distributed.destroy_process_group)


def _completed(then: dict[str, Any]) -> dict[str, Any]:
    """An earlier version's identity with the keys that came since, at their defaults: they change nothing where nobody set them."""
    train = {key.removeprefix("train."): value for key, value in then.items() if key.startswith("train.")}
    try:
        train = TrainConfig.model_validate(train).model_dump(mode="json")
    except ValueError:
        return then  # of keys that are no more: compared as they are
    model = {f"model.{name}": field.default for name, field in ModelConfig.model_fields.items() if name != "path"}
    return {**model, **then, **{f"train.{key}": value for key, value in train.items()}}


def same_job(job: TrainJob, found: Found) -> None:
    """Raises UserError where the checkpoint was written by a run of other data, model, seed or rates."""
    now, then = job.identity(), _completed(found.meta["identity"])
    different = [f"{key} was {then.get(key)!r} and is {now[key]!r}" for key in now if now[key] != then.get(key)]
    if different:
        raise UserError(
            f"{found.rel} was written by another job ({'; '.join(different)}); resume with the same spec, or start a new run"
        )

"""The mean of several checkpoints' weights (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima"). Takes checkpoints of one run;
gives named tensors as one checkpoint does. Called by export."""

from __future__ import annotations

from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import format


def newest(storage: Storage, run_id: str, count: int) -> list[str]:
    """The run's newest `count` sealed checkpoints, oldest first. Raises UserError where it kept fewer."""
    folder = f"runs/{run_id}/checkpoints"
    sealed = [rel for name in sorted(storage.list(folder)) if format.read_seal(storage, rel := f"{folder}/{name}")]
    by_step = {
        rel.rpartition("/")[2].partition(".")[0]: rel for rel in sealed
    }  # of a step that two attempts wrote, the later
    found = list(by_step.values())
    if len(found) < count:
        raise UserError(
            f"--average {count}: run {run_id} kept {len(found)} checkpoints; set train.checkpoint.keep to {count} or more before training"
        )
    return found[-count:]


def mean(storage: Storage, rels: list[str]) -> dict[str, Any]:
    """Tensors of numbers are averaged, in fp64; what counts or indexes is the last one's. Raises UserError for checkpoints of other models."""
    import torch

    parts = [checkpoint.open(storage, rel).weights() for rel in rels]
    last = parts[-1]
    for rel, part in zip(rels, parts, strict=True):
        if {name: tensor.shape for name, tensor in part.items()} != {
            name: tensor.shape for name, tensor in last.items()
        }:
            raise UserError(f"{rel} holds other tensors than {rels[-1]}; weights of one architecture can be averaged")
    if len(parts) == 1:
        return last
    found = {}
    for name, tensor in last.items():
        if not tensor.is_floating_point():
            found[name] = tensor
            continue
        total = torch.zeros(tensor.shape, dtype=torch.float64)
        for part in parts:
            total += part[name]
        found[name] = (total / len(parts)).to(tensor.dtype)
    return found

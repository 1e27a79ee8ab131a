"""What a training worker is told and what it gives back. Plain values, picklable and cheap to import: drivers, trials and
workers share them without loading torch. The worker that gets a TrainJob needs nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from models.config import ModelConfig
from orchestration.training.config import TrainConfig

# What may change between a run and its resumption: it moves no row and no planned rate.
FREE = (
    "zero",
    "micro_batch",
    "micro_tokens",
    "report_every",
    "max_failures",
    "failures",
    "checkpoint",
    "precision",
    "activation_checkpointing",
    "compile",
    "trunk",
)


@dataclass(frozen=True)
class TrainJob:
    """One fit. `*_rel` are names in storage; `labels` in the order of the model's outputs.

    `threads`: torch threads of a worker; None: OMP_NUM_THREADS where set, else 1 with several workers and all cores with one.
    `checkpoints`: False for a sweep's trial, which nobody resumes: nothing is written. `device`: `auto` takes a GPU where
    torch sees one. `lr_scale` multiplies every rate: the driver lowers it when it rolls a run back.
    `profile`: steps to record; 0: none. `teachers`: packages that `train.distill` names.
    """

    train: TrainConfig
    model: ModelConfig
    labels: tuple[str, ...]
    seed: int
    storage_url: str
    weights_rel: str
    store_rel: str
    run_rel: str
    world: int = 1
    threads: int | None = None
    checkpoints: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    lr_scale: float = 1.0
    profile: int = 0
    teachers: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """What decides the best checkpoint: the spec's, or the task's own."""
        return self.train.validation.metric or self.model.metric

    def dump(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **values,
            "labels": list(self.labels),
            "teachers": list(self.teachers),
            "train": self.train.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
        }

    def identity(self) -> dict[str, Any]:
        """What a checkpoint and the job that resumes it must share, by the key path the user typed."""
        taught = {"teachers": list(self.teachers)} if self.teachers else {}
        train = {f"train.{key}": value for key, value in self.train.model_dump(mode="json").items() if key not in FREE}
        same = {"labels": list(self.labels), "seed": self.seed, "weights": self.weights_rel, "store": self.store_rel}
        # The path is not part of it: what lies there is in the weights' address.
        model = {f"model.{key}": value for key, value in self.model.model_dump(mode="json").items() if key != "path"}
        return {**train, **same, **model, **taught}


@dataclass(frozen=True)
class LoopResult:
    """What a fit gives; plain JSON values. `metric` and `best_value` belong to `best_checkpoint`, a name in storage.

    `history`: the step and validation events in order (a step's `loss` is the mean since the report before). `seconds`: by part.
    `zero_stage`: None for bare torch. `precision`: what `auto` came to. `ended`: finished, early_stopping or stopped (by the caller).
    """

    run_rel: str
    steps: int
    total_steps: int
    ended: str
    best_checkpoint: str | None
    best_step: int | None
    metric: str
    best_value: float | None
    last_checkpoint: str | None
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    plan: list[dict[str, Any]]
    zero_stage: int | None
    world: int
    resumed_from: str | None = None
    damaged: list[str] = field(default_factory=list)
    precision: str = "fp32"

    def dump(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def losses(self) -> list[float]:
        """The reported training losses, in order."""
        return [event["loss"] for event in self.history if event["type"] == "step"]

    @property
    def validations(self) -> list[dict[str, Any]]:
        return [event for event in self.history if event["type"] == "validation"]

"""The `train` part of the spec. Pydantic only: importing it loads no torch, Ray or DeepSpeed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

METRICS = ("loss", "accuracy", "macro_f1")
Metric = Literal["loss", "accuracy", "macro_f1"]


class OptimizerConfig(BaseModel, extra="forbid", frozen=True):
    name: Literal["adamw"] = "adamw"
    lr: float = Field(5e-5, gt=0.0, le=1.0, description="Peak learning rate of the top depth group.")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="Not applied to biases and normalisation weights.")
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    eps: float = Field(1e-8, gt=0.0, le=1e-2)


class LayersConfig(BaseModel, extra="forbid", frozen=True):
    """Layered learning rates and freeze depth, counted in depth groups from the input (embeddings are the first)."""

    decay: float = Field(
        1.0, gt=0.0, le=1.0, description="Each group's rate is this times the rate of the group above it."
    )
    freeze: int = Field(0, ge=0, le=10_000, description="Freezes the bottom k depth groups; embeddings are the first.")


class ScheduleConfig(BaseModel, extra="forbid", frozen=True):
    name: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[int, Field(ge=0, le=10**9)] | Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="Steps (whole number) or share of all steps (fraction)."
    )


class ZeroConfig(BaseModel, extra="forbid", frozen=True):
    stage: Literal["auto", 0, 1, 2, 3] = Field(
        "auto", description="DeepSpeed ZeRO stage. `auto`: the lowest stage that fits the worker's memory."
    )


class EarlyStoppingConfig(BaseModel, extra="forbid", frozen=True):
    patience: int = Field(2, ge=1, le=10_000, description="Validations without improvement before training stops.")
    min_delta: float = Field(0.0, ge=0.0)


class ValidationConfig(BaseModel, extra="forbid", frozen=True):
    every_steps: int | None = Field(None, ge=1, description="Absent: at the end of each epoch.")
    metric: Metric = Field("macro_f1", description="Decides the best checkpoint and early stopping.")
    rows: int | None = Field(None, ge=1, description="At most so many validation rows; absent: all.")


class CheckpointConfig(BaseModel, extra="forbid", frozen=True):
    every_steps: int | None = Field(None, ge=1, description="Absent: at each validation.")
    keep: int = Field(2, ge=1, le=1000, description="Newest checkpoints kept, besides the best one.")


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    epochs: int = Field(1, ge=1, le=100_000)
    rows: int | None = Field(
        None,
        ge=1,
        description="Train on the first so many rows of the training split (they are in hash order); absent: all.",
    )
    batch: int = Field(32, ge=1, le=10**6, description="Rows a step over all workers: the global batch.")
    micro_batch: int | None = Field(
        None, ge=1, le=10**6, description="Rows a worker takes through the model at once; absent: batch / workers."
    )
    micro_tokens: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Padded tokens a worker takes through the model at once, in place of micro_batch: short rows go in larger"
        " micro-batches.",
    )
    fold: int = Field(0, ge=0, lt=100, description="Which fold validates; needs data.split.folds.")
    optimizer: OptimizerConfig = OptimizerConfig()
    layers: LayersConfig = LayersConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    zero: ZeroConfig = ZeroConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    clip_norm: float | None = Field(
        1.0, gt=0.0, description="Largest global gradient norm; null switches clipping off."
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    validation: ValidationConfig = ValidationConfig()
    early_stopping: EarlyStoppingConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    report_every: int = Field(10, ge=1, le=10**6, description="Steps between progress lines.")
    max_failures: int = Field(3, ge=0, le=1000, description="Restarts of the worker group before the run fails.")

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise ValueError(
                f"micro_batch={self.micro_batch} is above batch={self.batch}, the rows a step over all workers"
            )
        if self.micro_batch is not None and self.micro_tokens is not None:
            raise ValueError(
                f"micro_batch={self.micro_batch} and micro_tokens={self.micro_tokens} say the same; leave one of the two out"
            )
        return self

"""The `train` part of the spec. Pydantic only: importing it loads no torch, Ray or DeepSpeed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

Metric = Literal["loss", "accuracy", "macro_f1", "pearson", "mae", "rmse", "perplexity", "entity_f1"]


ADAMS, SGD = ("beta1", "beta2", "eps"), ("momentum", "nesterov")
OWN_FIELDS = {"adamw": ADAMS, "adam": ADAMS, "lamb": ADAMS, "sgd": SGD}  # besides name, lr and weight_decay


class OptimizerConfig(BaseModel, extra="forbid", frozen=True):
    """beta1, beta2 and eps belong to adamw, adam and lamb; momentum and nesterov to sgd."""

    name: Literal["adamw", "adam", "sgd", "lamb"] = Field(
        "adamw",
        description="adamw and lamb shrink weights apart from the gradient, adam and sgd add the decay to it. lamb scales each"
        " tensor's step by the tensor's own norm: for very large batches.",
    )
    lr: float = Field(5e-5, gt=0.0, le=1.0, description="Peak learning rate of the top depth group.")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="Not applied to biases and normalisation weights.")
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    eps: float = Field(1e-8, gt=0.0, le=1e-2)
    momentum: float = Field(0.0, ge=0.0, lt=1.0, description="Of sgd; 0: none, and no state is kept.")
    nesterov: bool = Field(False, description="Of sgd with momentum: step as if the next gradient were this one.")

    @property
    def fields(self) -> tuple[str, ...]:
        """What may be said of the chosen optimizer."""
        return ("name", "lr", "weight_decay", *OWN_FIELDS[self.name])

    @property
    def moments(self) -> tuple[str, ...]:
        """The tensors, in its shape, that the chosen optimizer keeps of each parameter: the one list of them, which engines,
        checkpoints and memory counts go by. torch's own names."""
        if self.name == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("exp_avg", "exp_avg_sq")

    @model_validator(mode="after")
    def _only_its_own(self) -> OptimizerConfig:
        if foreign := [name for name in type(self).model_fields if name in self.model_fields_set - {*self.fields}]:
            raise ValueError(
                f"{', '.join(foreign)}: not a key of name={self.name}; allowed with it: {', '.join(self.fields)}"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true needs momentum above 0, found momentum=0")
        return self

    @model_serializer(mode="wrap")
    def _without_foreign(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that what is written can be read."""
        return {name: value for name, value in dump(self).items() if name in self.fields}


class UnfreezeConfig(BaseModel, extra="forbid", frozen=True):
    """Gradual unfreezing (Howard and Ruder 2018): training starts with `layers.freeze` groups frozen and releases more from the top."""

    when: Literal["epoch", "plateau"] = Field(
        "epoch", description="Release after so many epochs, or after so many validations without improvement."
    )
    every: int = Field(1, ge=1, le=10_000, description="Epochs, or validations without improvement, before a release.")
    groups: int = Field(1, ge=1, le=10_000, description="Depth groups released at once.")
    until: int = Field(0, ge=0, le=10_000, description="So many groups at the bottom stay frozen to the end.")


class TowerConfig(BaseModel, extra="forbid", frozen=True):
    """One tower of a model of several (encoder and decoder, text and image), counted for itself."""

    lr: float | None = Field(None, gt=0.0, le=1.0, description="Peak rate of its top group; absent: optimizer.lr.")
    decay: float | None = Field(None, gt=0.0, le=1.0, description="Absent: layers.decay.")
    freeze: int | None = Field(
        None, ge=0, le=10_000, description="Freezes its bottom k groups; absent: as layers.freeze says."
    )


class LayersConfig(BaseModel, extra="forbid", frozen=True):
    """Layered learning rates and freeze depth, counted in depth groups from the input (embeddings are the first)."""

    decay: float = Field(
        1.0, gt=0.0, le=1.0, description="Each group's rate is this times the rate of the group above it."
    )
    freeze: int = Field(0, ge=0, le=10_000, description="Freezes the bottom k depth groups; embeddings are the first.")
    unfreeze: UnfreezeConfig | None = Field(None, description="Release frozen groups while training goes on.")
    towers: dict[str, TowerConfig] = Field(
        {}, description="By tower, as `eagleray plan` names them: {encoder: {freeze: 3}, decoder: {lr: 1e-4}}."
    )

    @model_validator(mode="after")
    def _something_to_release(self) -> LayersConfig:
        if self.unfreeze and any(tower.freeze is not None for tower in self.towers.values()):
            raise ValueError(
                "unfreeze releases groups of the whole model, towers.*.freeze fixes those of one; leave one out"
            )
        if self.unfreeze and self.unfreeze.until >= self.freeze:
            raise ValueError(
                f"unfreeze.until={self.unfreeze.until} releases nothing of freeze={self.freeze}; set freeze above it"
            )
        return self


class ScheduleConfig(BaseModel, extra="forbid", frozen=True):
    name: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[int, Field(ge=0, le=10**9)] | Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="Steps (whole number) or share of all steps (fraction)."
    )


class ZeroConfig(BaseModel, extra="forbid", frozen=True):
    stage: Literal["auto", 0, 1, 2, 3] = Field(
        "auto",
        description="DeepSpeed ZeRO stage. `auto`: the lowest stage that fits the worker's memory; where that"
        " is 0, DeepSpeed is not loaded at all.",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="What lies in the machine's memory instead of the GPU's: optimizer state (stages 1 to 3), or weights too (stage 3).",
    )

    @model_validator(mode="after")
    def _offload_needs_a_stage(self) -> ZeroConfig:
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.offload != "none" and (self.stage == "auto" or self.stage < least):
            raise ValueError(
                f"offload={self.offload} needs stage {least}{' or above' if least < 3 else ''}, found stage={self.stage}"
            )
        return self


class TrunkConfig(BaseModel, extra="forbid", frozen=True):
    """The frozen bottom of the model gives the same output for a row each time: compute it once and store it."""

    use: Literal["auto", "on", "off"] = Field(
        "auto", description="`auto`: where a cost model says that storing it is cheaper than computing it again."
    )
    dtype: Literal["fp32", "bf16", "int8"] = Field(
        "fp32", description="How it is stored. fp32 gives the scores of no store."
    )

    @field_validator("use", mode="before")
    @classmethod
    def _as_written(cls, use: Any) -> Any:
        """YAML reads a bare on and off as true and false."""
        return ("off", "on")[use] if isinstance(use, bool) else use


class FailuresConfig(BaseModel, extra="forbid", frozen=True):
    """What to do where training cannot simply go on."""

    not_finite: Literal["stop", "skip", "roll_back"] = Field(
        "stop",
        description="A loss or gradient that is NaN or infinite: end with an error; leave the batch out; or go back to the newest"
        " checkpoint with half the rate.",
    )
    attempts: int = Field(
        3,
        ge=1,
        le=1000,
        description="Batches left out, roll-backs or smaller micro-batches before the run fails all the same.",
    )
    out_of_memory: Literal["stop", "smaller_micro_batch"] = Field(
        "stop",
        description="Too little memory: end with an error, or go on with half the micro-batch and the same global batch.",
    )
    hang_timeout_s: float = Field(
        600.0,
        gt=0.0,
        le=86_400.0,
        description="A worker that makes no progress for so long is ended and its group restarted.",
    )


class EarlyStoppingConfig(BaseModel, extra="forbid", frozen=True):
    patience: int = Field(2, ge=1, le=10_000, description="Validations without improvement before training stops.")
    min_delta: float = Field(0.0, ge=0.0)


class ValidationConfig(BaseModel, extra="forbid", frozen=True):
    every_steps: int | None = Field(None, ge=1, description="Absent: at the end of each epoch.")
    metric: Metric | None = Field(
        None, description="Decides the best checkpoint and early stopping. Absent: the task's own, macro_f1 of classes."
    )
    rows: int | None = Field(None, ge=1, description="At most so many validation rows; absent: all.")


class CheckpointConfig(BaseModel, extra="forbid", frozen=True):
    every_steps: int | None = Field(None, ge=1, description="Absent: at each validation.")
    every_s: float | None = Field(None, gt=0.0, description="Also when so many seconds went by since the one before.")
    keep: int = Field(2, ge=1, le=1000, description="Newest checkpoints kept, besides the best ones.")
    keep_best: int = Field(1, ge=1, le=1000, description="Best checkpoints kept, by the validation metric.")


class DistillConfig(BaseModel, extra="forbid", frozen=True):
    """Learn from the outputs of trained models beside the targets (Hinton et al. 2015)."""

    teacher: str | list[str] = Field(
        description="A package folder, `storage:packages/...`, `model:NAME` (the registered champion) or `model:NAME@VERSION`; of several the mean"
        " distribution teaches."
    )
    temperature: float = Field(2.0, gt=0.0, le=100.0, description="Above 1: the teacher's second guesses weigh more.")
    weight: float = Field(
        0.5, gt=0.0, le=1.0, description="Of the teacher's part in the loss; the rest is the targets'."
    )

    @field_validator("teacher")
    @classmethod
    def _someone(cls, teacher: Any) -> Any:
        if not teacher or not all(teacher):
            raise ValueError("name one teacher or more")
        return teacher


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
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32",
        description="Of forward and backward; weights and optimizer state stay fp32. fp16 scales the loss, on GPUs alone. auto: bf16 where every worker's GPU or CPU multiplies in it, else fp32.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute activations again in the backward pass instead of keeping them: less memory, a third more work.",
    )
    compile: bool = Field(
        False, description="torch.compile the model: pays in long runs on GPUs; needs a C++ compiler."
    )
    trunk: TrunkConfig = TrunkConfig()
    clip_norm: float | None = Field(
        1.0, gt=0.0, description="Largest global gradient norm; null switches clipping off."
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    distill: DistillConfig | None = Field(None, exclude_if=lambda value: value is None)
    validation: ValidationConfig = ValidationConfig()
    early_stopping: EarlyStoppingConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    report_every: int = Field(10, ge=1, le=10**6, description="Steps between progress lines.")
    max_failures: int = Field(3, ge=0, le=1000, description="Restarts of the worker group before the run fails.")
    failures: FailuresConfig = FailuresConfig()

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise ValueError(
                f"micro_batch={self.micro_batch} is above batch={self.batch}, the rows a step over all workers"
            )
        if self.trunk.use == "on" and self.layers.unfreeze is not None:
            raise ValueError(
                "trunk.use=on stores the output of what stays frozen, and layers.unfreeze releases it; leave one of the two out"
            )
        if self.micro_batch is not None and self.micro_tokens is not None:
            raise ValueError(
                f"micro_batch={self.micro_batch} and micro_tokens={self.micro_tokens} say the same; leave one of the two out"
            )
        return self

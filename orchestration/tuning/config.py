"""The `tune` part of the spec. Pydantic only. A sweep changes spec paths, nothing else."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from orchestration.training.config import Metric

FOLD = "train.fold"  # searched, it makes a sweep a cross-validation
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class Domain(BaseModel, extra="forbid", frozen=True):
    """One searched value: exactly one of the keys."""

    uniform: Pair | None = Field(None, description="[low, high], even.")
    loguniform: Pair | None = Field(None, description="[low, high], even in the logarithm; low above 0.")
    randint: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[low, high), whole numbers."
    )
    choice: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Domain:
        given = [name for name in ("uniform", "loguniform", "randint", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of uniform, loguniform, randint, choice; found {given or 'none'}")
        pair = self.uniform or self.loguniform or self.randint
        if pair and pair[0] >= pair[1]:
            raise ValueError(f"{given[0]} {pair} is empty: low must be below high")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform {self.loguniform} needs low above 0")
        return self


class AshaConfig(BaseModel, extra="forbid", frozen=True):
    """Asynchronous successive halving (Li et al. 2020), counted in validations."""

    grace: int = Field(1, ge=1, description="Validations every trial gets.")
    reduction: int = Field(3, ge=2, le=100, description="The share kept at each rung is 1 / reduction.")


class TuneConfig(BaseModel, extra="forbid", frozen=True):
    trials: int = Field(6, ge=1, le=100_000)
    space: dict[str, Domain] = Field(
        min_length=1, description="Spec path -> domain, e.g. train.optimizer.lr: {loguniform: [1e-5, 1e-4]}."
    )
    fixed: dict[str, Any] = Field({}, description="Spec path -> value for every trial, e.g. train.rows: 600.")
    search: Literal["random", "tpe", "grid"] = Field(
        "tpe", description="grid: every combination of the choices, once; `trials` is their number then."
    )
    asha: AshaConfig | None = AshaConfig()
    metric: Metric | None = Field(None, description="What trials are judged by; absent: that of train.validation.")
    workers: int = Field(
        1, ge=1, le=10_000, description="Workers a trial. One trains inside the trial's own, reused process."
    )
    concurrent: int | None = Field(None, ge=1, description="Trials at once; absent: as many as the live cluster holds.")

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, values: Any) -> Any:
        """A grid has as many trials as combinations; whoever gives another number is told."""
        if not isinstance(values, dict) or values.get("search") != "grid" or not isinstance(values.get("space"), dict):
            return values
        sizes = [
            len(domain["choice"] or ()) if isinstance(domain, dict) and isinstance(domain.get("choice"), list) else 0
            for domain in (one.model_dump() if isinstance(one, Domain) else one for one in values["space"].values())
        ]
        if not all(sizes):
            path = list(values["space"])[sizes.index(0)]
            raise ValueError(f"search=grid takes choices alone; write space.{path}: {{choice: [...]}}, or search: tpe")
        count = math.prod(sizes)
        if values.get("trials", count) != count:
            raise ValueError(f"trials={values['trials']}, but the grid has {count} combinations; leave trials out")
        return {**values, "trials": count}

    @model_validator(mode="after")
    def _whole_folds(self) -> TuneConfig:
        if FOLD in self.space and self.asha is not None:
            raise ValueError(
                f"asha ends poor trials early, so means over {FOLD} would be of unfinished ones; set asha: null"
            )
        return self

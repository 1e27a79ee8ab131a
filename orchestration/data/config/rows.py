"""Which rows go where and when: `data.split`, `mix`, `stream`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from orchestration.data.config.kinds import Fraction, Rows


class SplitConfig(BaseModel, extra="forbid", frozen=True):
    """Rows go to splits by a hash of their group (or normalised text), so equal texts never straddle. A whole number is
    rows (of the smallest hashes), a fraction is a share by threshold. The rest is the training split."""

    validation: Rows | Fraction = 0.1
    test: Rows | Fraction = 0.1
    stratify: bool = Field(
        False, description="Take the same share of each class (a group counts as its first row's class)."
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="k-fold: the rows outside the test split fall into k folds; train.fold says which one validates."
        " `validation` is not used then.",
    )

    @model_validator(mode="after")
    def _room(self) -> SplitConfig:
        if isinstance(self.validation, float) and isinstance(self.test, float) and self.validation + self.test >= 1.0:
            raise ValueError(
                f"validation={self.validation} + test={self.test} leave no training rows; their sum must be below 1"
            )
        return self


class MixConfig(BaseModel, extra="forbid", frozen=True):
    """Epochs mix the sources by their `weight`."""

    stop: Literal["first", "all"] = Field(
        "all",
        description="first: an epoch ends before the first source would repeat. all: when every row of every source has come;"
        " smaller sources repeat.",
    )


class StreamConfig(BaseModel, extra="forbid", frozen=True):
    """Training starts while rows are still being prepared."""

    window: int = Field(8, ge=1, le=10_000, description="Shards among which rows are shuffled.")

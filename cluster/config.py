"""The `cluster` part of the spec. Pydantic only: importing it loads no Ray."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

MOST = 100_000


class WorkersConfig(BaseModel, extra="forbid", frozen=True):
    """Elastic: training starts with as many workers as there is room for, loses some with their nodes and gains some with new ones. The
    global batch and the schedule stay the same."""

    min: int = Field(1, ge=1, le=MOST, description="Training waits while there is room for fewer.")
    max: int = Field(ge=1, le=MOST, description="More are not used.")
    look_s: float = Field(
        60.0,
        gt=0.0,
        le=86_400.0,
        description="Seconds between looks for room for more workers; a change starts them all again from a checkpoint.",
    )

    @model_validator(mode="after")
    def _a_range(self) -> WorkersConfig:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}")
        return self


def _kind(value: Any) -> str:
    return "range" if isinstance(value, (dict, WorkersConfig)) else "number"


Workers = Annotated[
    Annotated[int, Field(ge=1, le=MOST), Tag("number")] | Annotated[WorkersConfig, Tag("range")],
    Discriminator(_kind),  # of a plain union pydantic would tell the errors of both sides
]


class ClusterConfig(BaseModel, extra="forbid", frozen=True):
    address: str | None = Field(
        None,
        description="A running Ray cluster that this machine is part of (`auto`, `host:port`), or the dashboard that `eagleray submit` sends to"
        " (`http://host:8265`); absent: Ray starts inside this machine.",
    )
    workers: Workers = Field(
        2, description="Training workers: a number, or {min, max} for as many as there is room for."
    )
    cpus_per_worker: float = Field(1.0, gt=0.0, le=1024.0)
    gpus_per_worker: float | None = Field(
        None, ge=0.0, le=64.0, description="Absent: 1 where the cluster has GPUs for every worker, else 0."
    )
    env: dict[str, str] = Field({}, description="Environment variables of every worker.")

    @property
    def most_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def least_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @field_validator("address")
    @classmethod
    def _form(cls, address: str | None) -> str | None:
        if (
            address is None
            or address == "auto"
            or re.fullmatch(r"(https?://)?[^/\s:]+:\d{1,5}/?|https?://[^/\s:]+/?|\[[0-9a-fA-F:]+\]:\d{1,5}", address)
        ):
            return address
        raise ValueError(
            f"found {address!r}; allowed: auto, host:port, or a dashboard's http://host:8265 for `eagleray submit`"
        )

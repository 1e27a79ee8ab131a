"""The `cluster` part of the spec. Pydantic only: importing it loads no Ray."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field, field_validator


class ClusterConfig(BaseModel, extra="forbid", frozen=True):
    address: str | None = Field(
        None,
        description="A running Ray cluster that this machine is part of (`auto`, `host:port`), or the dashboard that `eagleray submit` sends to"
        " (`http://host:8265`); absent: Ray starts inside this machine.",
    )
    workers: int = Field(2, ge=1, le=100_000, description="Training workers.")
    cpus_per_worker: float = Field(1.0, gt=0.0, le=1024.0)
    gpus_per_worker: float | None = Field(
        None, ge=0.0, le=64.0, description="Absent: 1 where the cluster has GPUs for every worker, else 0."
    )
    env: dict[str, str] = Field({}, description="Environment variables of every worker.")

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

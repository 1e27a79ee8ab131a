"""The `cluster` part of the spec. Pydantic only: importing it loads no Ray."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ClusterConfig(BaseModel, extra="forbid", frozen=True):
    address: str | None = Field(None, description="A running Ray cluster (`auto`, `host:port`, `ray://...`); absent: Ray starts inside this process's machine.")
    workers: int = Field(2, ge=1, le=100_000, description="Training workers.")
    cpus_per_worker: float = Field(1.0, gt=0.0, le=1024.0)
    gpus_per_worker: float | None = Field(None, ge=0.0, le=64.0, description="Absent: 1 where the cluster has GPUs for every worker, else 0.")
    env: dict[str, str] = Field({}, description="Environment variables of every worker.")

"""The `features` part of the spec: how texts become vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class FeaturesConfig(BaseModel, extra="forbid", frozen=True):
    """For the verb `embed`."""

    pooling: Literal["mean", "cls"] = Field("mean", description="Over all tokens of a row, or its first token.")
    file_rows: int = Field(
        1024, ge=1, le=1_000_000, description="Rows of one file; an interrupted export keeps whole files."
    )

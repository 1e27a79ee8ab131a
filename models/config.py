"""The `model` part of the spec. Pydantic only: importing it loads no torch or transformers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ModelConfig(BaseModel, extra="forbid", frozen=True):
    """A pretrained encoder and what it is trained to do."""

    path: str = Field(
        min_length=1,
        description="A folder with config.json, safetensors and tokenizer, or `catalog:NAME`. Relative paths start at the spec's folder.",
    )
    task: Literal["classification"] = "classification"
    dropout: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Overrides every dropout rate of the encoder and its head; absent: the model's own.",
    )

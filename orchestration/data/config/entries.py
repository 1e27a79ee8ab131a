"""What a stored entry is made of: `data.tokenize`, `image`, `audio`, `series`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from orchestration.data.config.kinds import Rate, absent


class FimConfig(BaseModel, extra="forbid", frozen=True):
    """Fill in the middle (Bavarian et al. 2022): prefix, suffix, middle of a random cut, between special tokens."""

    rate: Rate = 0.5
    tokens: list[str] = Field(
        ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"],
        min_length=3,
        max_length=3,
        description="The tokenizer's names for prefix, middle and suffix.",
    )


class TokenizeConfig(BaseModel, extra="forbid", frozen=True):
    max_length: int = Field(128, ge=2, le=131_072, description="Tokens a row, special tokens counted.")
    target_length: int | None = Field(
        None, ge=1, le=131_072, exclude_if=absent, description="Tokens of a source's `target`; absent: max_length."
    )
    long: Literal["truncate", "windows"] = Field(
        "truncate", description="Rows that are longer: cut (and counted), or made into several overlapping entries."
    )
    stride: int = Field(0, ge=0, le=131_072, description="Tokens that neighbouring windows share.")
    pack: bool = Field(
        False,
        description="Put several rows into one entry of at most max_length tokens, by best fit, with their lengths kept; for"
        " data without labels.",
    )
    fim: FimConfig | None = None

    @model_validator(mode="after")
    def _windows(self) -> TokenizeConfig:
        if self.stride and self.long != "windows":
            raise ValueError("stride is the overlap of windows; set long: windows")
        if self.stride > self.max_length // 2:
            raise ValueError(f"stride={self.stride} is above half of max_length={self.max_length}")
        return self


class ImageConfig(BaseModel, extra="forbid", frozen=True):
    """Stored as RGB bytes of size x size: the shorter side is scaled to `size`, the middle is kept."""

    size: int = Field(64, ge=8, le=1024, description="Pixels.")
    frames: int = Field(1, ge=1, le=256, description="Frames of a video, evenly spaced.")
    max_pixels: int = Field(50_000_000, ge=64, le=10**9, description="Larger images are unusable rows, never decoded.")


class AudioConfig(BaseModel, extra="forbid", frozen=True):
    """Stored as 16-bit mono samples."""

    rate: int = Field(16_000, ge=1000, le=192_000, description="Samples a second.")
    max_seconds: float = Field(10.0, gt=0.0, le=3600.0, description="Longer rows are cut and counted.")


class SeriesConfig(BaseModel, extra="forbid", frozen=True):
    """Windows of a numeric series."""

    window: int = Field(64, ge=1, le=1_000_000, description="Time steps a row.")
    stride: int = Field(64, ge=1, le=1_000_000, description="Time steps from one window's start to the next.")

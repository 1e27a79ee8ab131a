"""Kinds of values that the parts of `data` share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Rows = Annotated[int, Field(ge=0, le=10**12)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]


def absent(value: Any) -> bool:
    """Leaves a key that is not set out of dumps: a spec from before there was such a key keeps its store's address."""
    return not value


def _rising(span: list[float]) -> list[float]:
    if span[0] > span[1]:
        raise ValueError(f"{span}: the lower number comes first")
    return span


Span = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_rising)]

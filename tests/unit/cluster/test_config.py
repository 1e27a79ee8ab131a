"""The `cluster` part: a number of workers, or a range."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cluster.config import ClusterConfig, WorkersConfig


def test_a_number_is_the_least_and_the_most() -> None:
    part = ClusterConfig(workers=3)
    assert (part.least_workers, part.most_workers) == (3, 3)


def test_a_range_is_elastic() -> None:
    part = ClusterConfig.model_validate({"workers": {"min": 2, "max": 5}}, strict=True)
    assert (part.least_workers, part.most_workers) == (2, 5)
    assert part.workers == WorkersConfig(min=2, max=5)
    assert ClusterConfig.model_validate(part.model_dump(mode="json"), strict=True) == part


@pytest.mark.parametrize(
    ("workers", "wrong"),
    [
        (0, "greater than or equal to 1"),
        (2.5, "valid integer"),
        ("two", "valid integer"),
        ({"min": 3, "max": 2}, "min=3 is above max=2"),
        ({"min": 1}, "max\n  Field required"),
        ({"max": 2, "most": 3}, "most\n  Extra inputs"),
    ],
)
def test_what_is_neither_is_refused_with_one_reason(workers: object, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong) as caught:
        ClusterConfig.model_validate({"workers": workers}, strict=True)
    assert len(caught.value.errors()) == 1

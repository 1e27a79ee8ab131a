"""Adapters on two ranks give what they give on one: losses, gradient norms and every weight."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.conftest import ADAPTERS
from tests.parity.test_stages import _same


@pytest.mark.parametrize(("kind", "stage"), ADAPTERS)
def test_two_ranks_train_an_adapter_to_the_weights_of_one(
    kind: str, stage: Any, of_two: dict[str, Any], bare: dict[str, Any], weights: Any
) -> None:
    found = of_two[f"{kind}-{stage}"]
    assert found["zero_stage"] == (None if stage == "auto" else stage)
    _same(found, bare[kind], weights)

"""Models with layers that share weights, and with a mean in place of the first token: two ranks give what one gives, under every way of
cutting the state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.conftest import MODELS
from tests.parity.test_stages import _same


@pytest.mark.parametrize("stage", ["auto", 3])
@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_train_a_changed_model_to_the_weights_of_one(
    name: str, stage: Any, of_two: dict[str, Any], bare: dict[str, Any], weights: Any
) -> None:
    found = of_two[f"{name}-{stage}"]
    assert found["zero_stage"] == (None if stage == "auto" else stage)
    _same(found, bare[name], weights)
    assert name != "shared" or not [tensor for tensor in weights(found) if ".layer.1." in tensor]

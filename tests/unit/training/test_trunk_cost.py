from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestration.training.config import TrainConfig
from orchestration.training.trunk import cost

MINILM = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6}
RUN: dict[str, Any] = {
    "rows": 10_000,
    "mean_tokens": 40.0,
    "depth": 6,
    "groups": 8,
    "passes": 4.0,
    "width": 384,
    "dtype": "fp32",
    "free_bytes": 100 << 30,
}


def test_several_epochs_over_a_deep_frozen_part_pay_and_the_reason_says_how_much() -> None:
    found = cost.choose(**RUN)
    assert found.use
    assert found.bytes == 10_000 * 40 * 384 * 4
    assert found.saved_s == pytest.approx(3 * 400_000 * 5 * 24 * 384**2 / cost.FLOPS["cpu"], rel=0.15)
    assert found.reason.startswith("it saves: about ")
    assert "4.0 passes; 586 MiB, none is there" in found.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"passes": 1.0}, "rows are read about once"),
        ({"rows": 100}, "it would not pay"),
        ({"depth": 1, "device": "cuda"}, "it would not pay"),
        ({"free_bytes": 1 << 30}, "it needs 586 MiB, the disk has 1.0 GiB free"),
    ],
)
def test_what_does_not_pay_or_fit_is_left_with_the_reason(change: dict[str, Any], why: str) -> None:
    found = cost.choose(**{**RUN, **change})
    assert not found.use
    assert found.reason.startswith(why)


def test_what_is_there_already_is_used_in_one_epoch_too_and_needs_no_room() -> None:
    assert cost.choose(**{**RUN, "passes": 1.0, "existing": 1.0, "free_bytes": 0}).use
    assert cost.choose(**{**RUN, "passes": 1.0, "existing": 0.8}).use
    assert not cost.choose(**{**RUN, "passes": 1.0, "existing": 0.01}).use


def test_more_passes_and_more_frozen_layers_never_save_less() -> None:
    by_passes = [cost.choose(**{**RUN, "passes": float(passes)}).saved_s for passes in range(1, 8)]
    by_depth = [cost.choose(**{**RUN, "depth": depth}).saved_s for depth in range(1, 8)]
    assert by_passes == sorted(by_passes)
    assert by_depth == sorted(by_depth)


def test_under_the_head_alone_a_token_a_row_is_enough_and_smaller_types_take_less() -> None:
    assert cost.choose(**{**RUN, "depth": 7}).bytes == 10_000 * 384 * 4
    assert [cost.token_bytes(384, dtype) for dtype in ("fp32", "bf16", "int8")] == [1536, 768, 388]


def test_validations_count_as_passes() -> None:
    train = TrainConfig(epochs=3)
    assert cost.passes(train, train_rows=900, validation_rows=100, epochs=3) == 3.0
    often = TrainConfig.model_validate({"epochs": 3, "batch": 30, "validation": {"every_steps": 10}})
    assert cost.passes(often, train_rows=900, validation_rows=100, epochs=3) == pytest.approx((2700 + 900) / 1000)


@pytest.mark.parametrize(
    ("train", "data", "use", "why"),
    [
        ({"epochs": 4, "layers": {"freeze": 6}}, {}, True, "it saves"),
        ({"epochs": 4, "layers": {"freeze": 6}, "trunk": {"use": "off"}}, {}, False, "train.trunk.use is off"),
        ({"epochs": 1, "layers": {"freeze": 6}, "trunk": {"use": "on"}}, {}, True, "train.trunk.use is on: 586 MiB"),
        ({"epochs": 4}, {}, False, "train.layers.freeze is 0"),
        ({"epochs": 4, "layers": {"freeze": 6, "unfreeze": {}}}, {}, False, "train.layers.unfreeze"),
        ({"epochs": 4, "layers": {"freeze": 6}}, {"streamed": True}, False, "data.stream"),
        ({"epochs": 4, "layers": {"freeze": 6}}, {"changes": True}, False, "data.augment.when"),
        ({"epochs": 4, "layers": {"freeze": 6}}, {"mixed": True}, False, "data.mix"),
        ({"epochs": 4, "layers": {"freeze": 6}, "trunk": {"use": "on"}}, {"mixed": True}, True, "train.trunk.use"),
    ],
)
def test_a_spec_alone_tells_what_a_run_will_do(
    train: dict[str, Any], data: dict[str, bool], use: bool, why: str
) -> None:
    known = {"streamed": False, "changes": False, "mixed": False, **data}
    found = cost.foresee(
        TrainConfig.model_validate(train), MINILM, rows=10_000, mean_tokens=40.0, free_bytes=100 << 30, **known
    )
    assert found.use is use
    assert found.reason.startswith(why)


def test_a_spec_that_stores_what_it_releases_is_wrong() -> None:
    with pytest.raises(ValidationError, match=r"trunk.use=on stores .* leave one of the two out"):
        TrainConfig.model_validate({"layers": {"freeze": 2, "unfreeze": {}}, "trunk": {"use": "on"}})

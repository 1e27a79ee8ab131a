from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from models.families import ModelError
from models.optim import TowerPlan, apply_freeze, plan_groups
from tests.families import SMALL


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **SMALL["bert"]))


def test_rates_fall_from_the_top_by_the_decay(model: Any) -> None:
    rates = {row.name: row.lr for row in plan_groups(model, lr=1e-3, weight_decay=0.01, decay=0.5)}
    assert rates == pytest.approx(
        {"head": 1e-3, "layer.2": 5e-4, "layer.1": 2.5e-4, "layer.0": 1.25e-4, "embeddings": 6.25e-5}
    )


def test_the_bottom_groups_are_frozen_embeddings_first(model: Any) -> None:
    plan = plan_groups(model, lr=1e-3, weight_decay=0.01, freeze=2)
    frozen = [row for row in plan if not row.trainable]
    assert [row.name for row in frozen] == ["embeddings", "layer.0"]
    assert all((row.lr, row.weight_decay) == (0.0, 0.0) for row in frozen)
    apply_freeze(model, plan)
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert names == {name for row in frozen for name in row.param_names}
    apply_freeze(model, plan_groups(model, lr=1e-3, weight_decay=0.01))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_biases_and_norms_take_no_weight_decay_and_all_else_does(model: Any) -> None:
    for row in plan_groups(model, lr=1e-3, weight_decay=0.01):
        for name in row.param_names:
            assert (row.weight_decay == 0.0) == (name.endswith("bias") or "LayerNorm" in name), name


def test_without_weight_decay_a_depth_group_is_one_row(model: Any) -> None:
    plan = plan_groups(model, lr=1e-3, weight_decay=0.0)
    assert [row.name for row in plan] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]


def test_the_plan_holds_every_parameter_once(model: Any) -> None:
    plan = plan_groups(model, lr=1e-3, weight_decay=0.01, freeze=1)
    names = [name for row in plan for name in row.param_names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert sum(row.numel for row in plan) == sum(parameter.numel() for parameter in model.parameters())


def test_freezing_everything_is_refused_with_the_names_of_the_groups(model: Any) -> None:
    with pytest.raises(
        ModelError,
        match=r"train\.layers\.freeze=14, but the model has 5 depth groups: embeddings, layer\.0.*head; at most 4",
    ):
        plan_groups(model, lr=1e-3, weight_decay=0.01, freeze=14)


@pytest.fixture(scope="module")
def two_towers() -> Any:
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **SMALL["t5"]))


def test_a_tower_that_is_named_has_its_own_rates_and_freeze_depth(two_towers: Any) -> None:
    towers = {"encoder": TowerPlan(lr=1e-4, decay=0.5, freeze=2), "decoder": TowerPlan(lr=1e-3)}
    plan = plan_groups(two_towers, lr=1e-2, weight_decay=0.0, decay=0.9, towers=towers)
    assert {row.name for row in plan if not row.trainable} == {"encoder.embeddings", "encoder.layer.0"}
    rates = {row.name: row.lr for row in plan if row.trainable}
    assert rates == pytest.approx(
        {
            "encoder.layer.1": 5e-5,
            "encoder.layer.2": 1e-4,
            "decoder.layer.0": 8.1e-4,
            "decoder.layer.1": 9e-4,
            "decoder.layer.2": 1e-3,
            "head": 1e-2,
        }
    )


def test_a_tower_without_a_freeze_depth_is_frozen_as_the_model_is(two_towers: Any) -> None:
    plan = plan_groups(two_towers, lr=1e-2, weight_decay=0.0, freeze=2, towers={"encoder": TowerPlan(lr=1e-3)})
    assert {row.name for row in plan if not row.trainable} == {"encoder.embeddings", "encoder.layer.0"}
    assert {row.lr for row in plan if row.name.startswith("encoder.layer")} == {0.0, 1e-3}


@pytest.mark.parametrize(
    ("towers", "words"),
    [
        ({"image": TowerPlan()}, r"towers\.image: the model has no such tower; it has encoder, decoder"),
        (
            {"encoder": TowerPlan(freeze=9)},
            r"towers\.encoder\.freeze=9, but the tower has 4 depth groups: encoder\.embeddings",
        ),
    ],
)
def test_a_tower_that_is_not_there_is_refused(two_towers: Any, towers: dict[str, TowerPlan], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        plan_groups(two_towers, lr=1e-2, weight_decay=0.0, towers=towers)

"""Layers that share their weights: counted once, named once, the same numbers as layers that are equal."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from models import text
from models.config import AdapterConfig, ModelConfig
from models.depth import depth_groups
from models.families import FAMILIES, ModelError, depth_names, owners, size_of
from models.optim import plan_groups
from models.sharing import tie
from models.state import named_state
from models.trunk import frozen_depth
from tests.families import SMALL

IDS = torch.tensor([[5, 6, 7, 8, 9], [6, 8, 10, 3, 4]])


def _model(family: str, distinct: int | None) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL[family])
    config.share_layers = distinct
    model = AutoModelForSequenceClassification.from_config(config).eval()
    tie(model)
    return model


@pytest.mark.parametrize(
    ("layers", "distinct", "found"),
    [(3, 1, [0, 0, 0]), (6, 2, [0, 0, 0, 3, 3, 3]), (5, 2, [0, 0, 0, 3, 3]), (3, 3, [0, 1, 2])],
)
def test_stretches_of_layers_use_the_weights_of_their_first(layers: int, distinct: int, found: list[int]) -> None:
    assert owners(layers, distinct) == found


@pytest.mark.parametrize("distinct", [1, 2])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "xlnet"])
def test_every_parameter_is_in_one_group_and_the_groups_are_those_of_config_json(family: str, distinct: int) -> None:
    model, plain = _model(family, distinct), _model(family, None)
    groups = depth_groups(model)
    members = [id(parameter) for _, group in groups for _, parameter in group]
    assert len(members) == len(set(members))
    assert set(members) == {id(parameter) for parameter in model.parameters()}
    assert [name for name, _ in groups] == depth_names(model.config.to_dict())
    assert len(groups) < len(depth_groups(plain))
    assert size_of(model.config.to_dict()) == size_of(plain.config.to_dict())  # as many layers are computed


def test_shared_layers_compute_what_equal_ones_do_and_their_gradients_add_up() -> None:
    shared, plain = _model("bert", 1), _model("bert", None)
    plain.load_state_dict(shared.state_dict())
    assert all(layer is not plain.bert.encoder.layer[0] for layer in plain.bert.encoder.layer[1:])
    losses = [model(input_ids=IDS).logits.square().sum() for model in (shared, plain)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    name = "attention.self.query.weight"
    apart = [layer.get_parameter(name).grad for layer in plain.bert.encoder.layer]
    assert torch.allclose(shared.bert.encoder.layer[0].get_parameter(name).grad, sum(apart), atol=1e-6)
    assert [key for key in named_state(shared) if key.endswith(name)] == [f"bert.encoder.layer.0.{name}"]


def test_freezing_and_rates_count_what_is_shared_as_one_layer() -> None:
    plan = plan_groups(_model("bert", 1), lr=1.0, weight_decay=0.0, decay=0.5, freeze=1)
    assert frozen_depth(plan) == 1
    rates = {row.name: row.lr for row in plan if row.trainable}
    assert rates == {"layer.0": 0.5, "head": 1.0}


def test_a_pretrained_folder_needs_only_the_layers_that_own_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole = copy.deepcopy(_model("bert", None))
    values = {name: value for name, value in whole.state_dict().items() if ".layer.0." in name or "layer" not in name}
    (tmp_path / "config.json").write_text(json.dumps({**whole.config.to_dict(), "share_layers": None}))
    save_file(values, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack or misfit"):
        text.build(ModelConfig(path="bert"), tmp_path, ["a", "b"])
    built = text.build(ModelConfig(path="bert", share_layers=1), tmp_path, ["a", "b"])
    layers = built.bert.encoder.layer  # type: ignore[union-attr]
    first = whole.bert.encoder.layer[0].output.dense.weight
    assert all(torch.equal(layer.output.dense.weight, first) for layer in layers)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="share_layers=4: the model has 3 layers; allowed: 1 to 3"):
        text.build(ModelConfig(path="bert", share_layers=4), tmp_path, ["a", "b"])


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(ValueError, match="share_layers and adapter do not go together"):
        ModelConfig(path="a", share_layers=1, adapter=AdapterConfig(kind="lora"))
    with pytest.raises(ValueError, match="share_layers belongs to a model of text, and this one reads image"):
        ModelConfig(family="vit", share_layers=1)

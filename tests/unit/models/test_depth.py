from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from models.depth import depth_groups, group_of
from models.families import FAMILIES, ModelError, depth_names

SMALL: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 20,
    },
    "roberta": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 20,
    },
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16, "vocab_size": 20},
}


def _model(family: str) -> Any:
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **SMALL[family]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_exactly_one_group_and_the_groups_are_those_that_the_spec_checks_count(
    family: str,
) -> None:
    model = _model(family)
    groups = depth_groups(model)
    assert (
        [name for name, _ in groups]
        == depth_names(model.config.to_dict())
        == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    )
    members = [id(parameter) for _, group in groups for _, parameter in group]
    assert len(members) == len(set(members))
    assert set(members) == {id(parameter) for parameter in model.parameters()}
    assert all(group for _, group in groups)


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_lie_from_input_to_output(family: str) -> None:
    held = {name: [parameter_name for parameter_name, _ in group] for name, group in depth_groups(_model(family))}
    assert all("embeddings" in name for name in held["embeddings"])
    assert all(".1." in name for name in held["layer.1"])
    assert any(name.startswith("classifier.") for name in held["head"])
    assert not any("layer." in name for name in held["head"])


def test_a_parameter_that_no_group_knows_is_refused_rather_than_put_somewhere() -> None:
    with pytest.raises(ModelError, match=r"bert\.encoder\.relative_bias.*lies in no depth group of family 'bert'"):
        group_of("bert.encoder.relative_bias", "bert")


def test_the_pooler_belongs_to_the_head() -> None:
    assert group_of("bert.pooler.dense.weight", "bert") == "head"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.config import ModelConfig
from models.families import ModelError
from models.text import build, skeleton
from orchestration.storage import Storage
from tests.tiny import BERT, make_weights

LABELS = ["low", "middle", "high"]
CONFIG = ModelConfig(path="tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    return root / make_weights(Storage(str(root)))


def test_the_head_is_drawn_from_the_seed_and_all_else_comes_from_the_folder(folder: Path) -> None:
    torch.manual_seed(1)
    one = build(CONFIG, folder, LABELS, seed=5).state_dict()
    torch.manual_seed(2)
    same, other = build(CONFIG, folder, LABELS, seed=5).state_dict(), build(CONFIG, folder, LABELS, seed=6).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"classifier.weight"}
    assert one["classifier.weight"].shape == (3, 32)
    assert 0.01 < one["classifier.weight"].std() < 0.03


def test_labels_go_into_the_config_in_the_order_of_the_outputs(folder: Path) -> None:
    config = build(CONFIG, folder, LABELS).config
    assert config.id2label == {0: "low", 1: "middle", 2: "high"}
    assert config.label2id == {"low": 0, "middle": 1, "high": 2}


def test_dropout_of_the_spec_reaches_every_dropout_of_the_model(folder: Path) -> None:
    def rates(model: nn.Module) -> set[float]:
        return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}

    assert rates(build(ModelConfig(path="tiny", dropout=0.3), folder, LABELS)) == {0.3}
    assert rates(build(ModelConfig(path="tiny", dropout=0.0), folder, LABELS)) == {0.0}
    assert rates(build(CONFIG, folder, LABELS)) == {0.1}
    ids_BL = torch.randint(2, 60, (2, 9))
    model = build(ModelConfig(path="tiny", dropout=0.0), folder, LABELS).train()
    assert torch.equal(model(input_ids=ids_BL).logits, model(input_ids=ids_BL).logits)  # attention's rate is 0 too


def test_a_saved_classifier_keeps_its_head(folder: Path, tmp_path: Path) -> None:
    model = build(CONFIG, folder, LABELS, seed=5)
    model.save_pretrained(tmp_path)
    assert torch.equal(build(CONFIG, tmp_path, LABELS, seed=6).classifier.weight, model.classifier.weight)
    assert build(CONFIG, tmp_path, ["no", "yes"], seed=6).classifier.weight.shape == (2, 32)


def test_a_skeleton_has_the_names_and_shapes_and_no_memory(folder: Path) -> None:
    wanted = {name: parameter.shape for name, parameter in build(CONFIG, folder, LABELS).named_parameters()}
    found = dict(skeleton(CONFIG, folder, LABELS).named_parameters())
    assert {name: parameter.shape for name, parameter in found.items()} == wanted
    assert {parameter.device.type for parameter in found.values()} == {"meta"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "no-such-family"}, "no-such-family"),
        ({"hidden_size": 8}, "Unrecognized model"),
        ({"model_type": "bert"}, "num_hidden_layers=None; it must be a positive whole number"),
        ([1, 2], "config.json"),
    ],
)
def test_a_foreign_model_is_refused_by_its_config_file(tmp_path: Path, config: Any, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        build(CONFIG, tmp_path, LABELS)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_config_or_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        build(CONFIG, tmp_path, LABELS)
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    with pytest.raises(ModelError, match=r"no \*\.safetensors; it must hold config\.json and weights"):
        build(CONFIG, tmp_path, LABELS)


def test_an_encoder_that_does_not_fit_its_config_is_refused_rather_than_drawn_at_random(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**BERT, "num_hidden_layers": 3}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(
        ModelError, match=r"lack or misfit \d+ tensors of the encoder, the first is bert\.encoder\.layer\.2\."
    ):
        build(CONFIG, tmp_path, LABELS)

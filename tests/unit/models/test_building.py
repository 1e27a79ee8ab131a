"""Encoders of pictures, sound and series as the spec makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.building import build
from models.config import ModelConfig
from models.config.origins import FAMILIES
from models.depth import depth_groups
from models.families import ModelError
from models.scratch import Shapes
from orchestration.storage import Storage
from orchestration.weights import stage_model

IMAGE_FAMILIES = [name for name, reads in FAMILIES.items() if reads == "image"]
SHAPES = Shapes(image=32)


def _staged(tmp_path: Path, family: str) -> tuple[ModelConfig, Path]:
    config = ModelConfig(family=family, size="tiny", dropout=0.0)  # type: ignore[arg-type]
    storage = Storage(str(tmp_path))
    return config, storage.fetch(stage_model(config, storage, shapes=SHAPES).rel)


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_a_row_of_a_training_batch_does_not_hang_on_its_company(tmp_path: Path, family: str) -> None:
    """Batch norms would make it; N workers could then not give the numbers of one."""
    config, folder = _staged(tmp_path, family)
    model = build(config, folder, ["a", "b", "c"], seed=4)
    assert model.training
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(2)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    together, alone = model(pixel_values=pixels).logits, model(pixel_values=pixels[:1]).logits
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert together.std() > 1e-4  # rows differ: nothing has died on the way
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_equal_seeds_give_equal_models_with_depth_groups_and_every_gradient(tmp_path: Path, family: str) -> None:
    config, folder = _staged(tmp_path, family)
    one, two = (build(config, folder, ["a", "b"], seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    groups = [name for name, _ in depth_groups(one)]
    assert groups[0] == ("layer.0" if family == "vgg" else "embeddings")
    assert groups[-1] == "head"
    assert len(groups) > 3
    one(pixel_values=torch.randn(3, 3, 32, 32)).logits.square().sum().backward()
    assert [name for name, parameter in one.named_parameters() if parameter.grad is None] == []


def test_statistics_of_a_model_from_scratch_bring_every_layer_to_deviation_one(tmp_path: Path) -> None:
    config, folder = _staged(tmp_path, "resnet")
    model = build(config, folder, ["a", "b"])
    seen: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: seen.append(float(output.detach().std())))
    model(pixel_values=torch.randn(64, 3, 64, 64))
    assert len(seen) > 8
    assert all(0.8 < deviation < 1.25 for deviation in seen)


def test_a_folder_of_another_modality_is_refused(tmp_path: Path) -> None:
    _, folder = _staged(tmp_path, "resnet")
    with pytest.raises(ModelError, match=r"reads image, and model.modalities says text"):
        build(ModelConfig(path=str(folder)), folder, ["a", "b"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"family": "resnet", "tokenizer": "t"}, "tokenizer belongs to a model that reads text"),
        ({"family": "resnet", "modalities": ["image"]}, "modalities belongs to path; family resnet reads image"),
        ({"path": "p", "modalities": ["image"], "task": "masked_lm"}, "task masked_lm reads text"),
        ({"path": "p", "modalities": ["image", "image"]}, "repeats one"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig.model_validate(values)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, ResNetConfig, ResNetModel

from models.families import ModelError
from models.vision.vgg import STAGES, VGGConfig, VGGForImageClassification, VGGModel

# Of the whole models: the three fully connected layers (123,642,856 in each) taken off what the paper's weights hold.
PARAMETERS = {11: 9_220_480, 13: 9_404_992, 16: 14_714_688, 19: 20_024_384}
NORMALISED = {11: 2_752, 13: 2_944, 16: 4_224, 19: 5_504}  # channels that batch norm gives a gain and a bias
SMALL: dict[str, Any] = {"depth": 11, "hidden_sizes": [4, 6, 8, 8, 10]}


def _model(**changes: Any) -> VGGModel:
    torch.manual_seed(1)
    return VGGModel(VGGConfig(**{**SMALL, **changes})).eval()


@pytest.mark.parametrize("depth", STAGES)
def test_parameters_are_as_many_as_the_papers(depth: int) -> None:
    for batch_norm, extra in ((False, 0), (True, 2 * NORMALISED[depth])):
        with torch.device("meta"):
            model = VGGModel(VGGConfig(depth=depth, batch_norm=batch_norm))
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[depth] + extra
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
        assert convolutions == depth - 3  # the paper counts its head


@pytest.mark.parametrize("sides", [(64, 96), (33, 70)])
def test_outputs_have_the_shapes_of_a_resnet_of_transformers(sides: tuple[int, int]) -> None:
    pixels_BCHW = torch.randn(2, 3, *sides)
    resnet = ResNetModel(
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1], layer_type="basic")
    )
    peer, mine = resnet.eval()(pixels_BCHW), _model()(pixels_BCHW)
    assert mine.last_hidden_state.shape == (2, 10, sides[0] // 32, sides[1] // 32)
    assert mine.pooler_output.shape == peer.pooler_output.shape == (2, 10, 1, 1)
    assert list(mine) == list(peer)
    assert torch.allclose(mine.pooler_output[..., 0, 0], mine.last_hidden_state.mean((2, 3)), atol=1e-6)


def test_a_convolution_layer_written_as_loops_gives_the_first_stage() -> None:
    model = _model()
    pixels_BCHW = torch.randn(1, 3, 32, 32)
    states = model(pixels_BCHW, output_hidden_states=True).hidden_states
    assert torch.equal(states[0], pixels_BCHW)
    assert [tuple(state.shape[1:]) for state in states[1:]] == [
        (4, 16, 16),
        (6, 8, 8),
        (8, 4, 4),
        (8, 2, 2),
        (10, 1, 1),
    ]
    convolution = model.stages[0].layers[0]
    padded = torch.nn.functional.pad(pixels_BCHW[0], (1, 1, 1, 1))
    for y, x in ((0, 0), (5, 9), (15, 15)):
        places = [padded[:, 2 * y + dy : 2 * y + dy + 3, 2 * x + dx : 2 * x + dx + 3] for dy in (0, 1) for dx in (0, 1)]
        values = [(convolution.weight * place).sum((1, 2, 3)) + convolution.bias for place in places]
        assert torch.allclose(states[1][0, :, y, x], torch.stack(values).amax(0).relu(), atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_saved_folder_opens_with_the_auto_classes_and_gives_the_same_logits(tmp_path: Path, batch_norm: bool) -> None:
    torch.manual_seed(2)
    labels = {0: "cat", 1: "dog", 2: "hen"}
    model = VGGForImageClassification(VGGConfig(**SMALL, batch_norm=batch_norm, id2label=labels, dropout=0.5))
    pixels_BCHW = torch.randn(4, 3, 32, 32)
    model.train()(pixels_BCHW)  # running statistics that differ from those of a fresh model
    wanted = model.eval()(pixels_BCHW)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    opened = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(opened) is VGGForImageClassification
    assert opened.config.id2label == labels
    assert torch.equal(opened.eval()(pixels_BCHW).logits, wanted.logits)
    tower = AutoModel.from_pretrained(tmp_path)
    assert type(tower) is VGGModel
    assert torch.equal(tower.eval()(pixels_BCHW).pooler_output, model.vgg(pixels_BCHW).pooler_output)
    assert AutoConfig.from_pretrained(tmp_path).hidden_sizes == SMALL["hidden_sizes"]


def test_a_tower_gets_a_fresh_head_and_keeps_its_own_weights(tmp_path: Path) -> None:
    tower = _model()
    tower.save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=5)
    assert model.classifier.weight.shape == (5, 10)
    for name, parameter in tower.named_parameters():
        assert torch.equal(model.vgg.get_parameter(name), parameter), name


def test_signal_neither_dies_nor_explodes_through_nineteen_fresh_layers() -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model = VGGModel(VGGConfig(depth=19, hidden_sizes=[32] * 5)).eval()
        with torch.no_grad():
            hidden_BCHW = model(torch.randn(2, 3, 64, 64)).last_hidden_state
        assert 0.05 < float(hidden_BCHW.std()) < 50


def test_it_learns_labels_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(3)
    model = VGGForImageClassification(VGGConfig(**{**SMALL, "batch_norm": True, "num_labels": 2}))
    labels_B = torch.tensor([0, 1] * 8)
    pixels_BCHW = torch.randn(16, 3, 32, 32) + labels_B[:, None, None, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(pixels_BCHW, labels=labels_B).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_tuples_are_given_where_asked() -> None:
    hidden, pooled = _model()(torch.randn(1, 3, 32, 32), return_dict=False)
    assert hidden.shape == pooled.shape == (1, 10, 1, 1)


def test_wrong_depths_stages_and_pixels_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="depth=12; it is one of 11, 13, 16, 19"):
        VGGConfig(depth=12)
    with pytest.raises(ModelError, match="five stages"):
        VGGConfig(hidden_sizes=[4, 4])
    for shape in ((1, 1, 32, 32), (1, 3, 32, 31), (3, 32, 32)):
        with pytest.raises(ModelError, match="at least 32"):
            _model()(torch.zeros(shape))

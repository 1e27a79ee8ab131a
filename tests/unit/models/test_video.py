from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTModel

from models.families import ModelError
from models.layers import length_mask
from models.video import VideoModel, frame_vectors
from models.vision.vgg import VGGConfig, VGGModel

POOLS = ["mean", "attention"]


def _vgg(**changes: Any) -> VGGModel:
    torch.manual_seed(1)
    return VGGModel(VGGConfig(depth=11, hidden_sizes=[4, 4, 6, 6, 8], **changes))


def _vit(pooler: bool = True) -> ViTModel:
    torch.manual_seed(1)
    settings = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
    )
    return ViTModel(settings, add_pooling_layer=pooler)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "encoder", [_vgg, _vit, lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 8))]
)
def test_a_video_gives_the_same_alone_and_in_a_padded_batch(encoder: Any, pool: Any) -> None:
    model = VideoModel(encoder(), 8, pool=pool).eval()
    frames = torch.randn(3, 4, 3, 32, 32)
    mask_BF = length_mask(torch.tensor([4, 2, 0]), 4)
    frames[~mask_BF] = float("nan")
    found = model(frames, mask_BF.long())
    alone = model(frames[1:2, :2])
    assert torch.allclose(found.last_hidden_state[1, :2], alone.last_hidden_state[0], atol=1e-5)
    assert torch.allclose(found.pooler_output[1], alone.pooler_output[0], atol=1e-5)
    assert not found.last_hidden_state[~mask_BF].any()
    assert not found.pooler_output[2].any()
    single = model(frames[0:1, 3:4]).pooler_output[0]  # a video of one frame is that frame
    assert torch.allclose(single, frame_vectors(model.encoder(frames[0, 3:4]))[0], atol=1e-5)


def test_the_mean_is_of_the_frames_that_are_there_and_attention_weighs_them() -> None:
    frames = torch.randn(2, 3, 3, 32, 32)
    mask_BF = torch.tensor([[True, True, True], [True, False, True]])
    mean, weighed = (VideoModel(_vgg(), 8, pool=pool).eval() for pool in ("mean", "attention"))  # type: ignore[arg-type]
    found = mean(frames, mask_BF)
    assert torch.allclose(found.pooler_output[1], found.last_hidden_state[1, [0, 2]].mean(0), atol=1e-6)
    with torch.no_grad():
        weighed.score[0].weight.mul_(0)
        weighed.score[0].bias.mul_(0)
    assert torch.allclose(
        weighed(frames, mask_BF).pooler_output, found.pooler_output, atol=1e-6
    )  # equal scores: the mean
    hidden_BFD = found.last_hidden_state
    column = int(hidden_BFD[0].std(0).argmax())
    with torch.no_grad():  # a score that grows with one value: the frame with the largest is all
        weighed.score[0].weight[0, column] = 1.0
        weighed.score[2].weight.zero_()
        weighed.score[2].weight[0, 0] = 1e6
    best = hidden_BFD[0, :, column].argmax()
    assert torch.allclose(weighed(frames, mask_BF).pooler_output[0], hidden_BFD[0, best], atol=1e-3)


def test_frames_that_are_not_there_do_not_enter_the_statistics_of_batch_norm() -> None:
    frames = torch.randn(2, 3, 3, 32, 32)
    mask_BF = torch.tensor([[True, True, False], [True, False, False]])
    padded, plain = VideoModel(_vgg(batch_norm=True), 8).train(), _vgg(batch_norm=True).train()
    padded(frames, mask_BF)
    plain(frames[mask_BF])
    for (name, mine), theirs in zip(padded.encoder.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("pool", POOLS)
def test_a_batch_without_any_frame_is_zero_and_runs_every_module(pool: Any) -> None:
    model = VideoModel(_vgg(), 8, pool=pool)
    found = model(torch.full((2, 3, 3, 32, 32), float("nan")), torch.zeros(2, 3))
    assert not found.last_hidden_state.any()
    assert not found.pooler_output.any()
    found.pooler_output.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_encoders_without_a_pooler_give_the_mean_of_patches_or_places() -> None:
    images = torch.randn(2, 3, 32, 32)
    output = _vit(pooler=False).eval()(images)
    assert torch.allclose(frame_vectors(output), output.last_hidden_state.mean(1))
    output = _vgg().eval()(images)
    wanted = frame_vectors(output)
    output.pooler_output = None
    assert torch.allclose(frame_vectors(output), wanted, atol=1e-6)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="pool='max'; it is mean or attention"):
        VideoModel(_vgg(), 8, pool="max")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="vectors of 8, and width=9"):
        VideoModel(_vgg(), 9)(torch.zeros(1, 1, 3, 32, 32))
    with pytest.raises(ModelError, match=r"mask of \(1, 3\)"):
        VideoModel(_vgg(), 8)(torch.zeros(1, 2, 3, 32, 32), torch.ones(1, 3))

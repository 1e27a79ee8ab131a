from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from models import video
from models.inputs import Rows, readers
from models.towers import TowersConfig, TowersForClassification
from models.video import frames, vectors
from models.vision.vgg import VGGConfig, VGGModel
from orchestration import probes
from orchestration.data import media
from orchestration.data.config import ImageConfig

VGG = {"model_type": "vgg", "depth": 11, "hidden_sizes": [4, 4, 6, 6, 8]}


def _vgg(**changes: Any) -> VGGModel:
    torch.manual_seed(1)
    return VGGModel(VGGConfig(depth=11, hidden_sizes=[4, 4, 6, 6, 8], **changes))


def _vit() -> ViTModel:
    torch.manual_seed(1)
    settings = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
    )
    return ViTModel(settings, add_pooling_layer=False)


@pytest.mark.parametrize("encoder", [_vgg, _vit])
def test_a_frame_is_what_the_encoder_says_of_it_whatever_stands_beside_it(encoder: Any) -> None:
    model = encoder().eval()
    pixels = torch.randn(3, 4, 3, 32, 32)
    pixels[1] = float("nan")
    there_B = torch.tensor([True, False, True])
    tokens_BFD, mask_BF = frames(model, pixels, there_B)
    assert mask_BF.tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert not tokens_BFD[1].any()
    for row in (0, 2):
        for number in range(4):
            wanted = vectors(model(pixel_values=pixels[row, number][None]))[0]
            assert torch.allclose(tokens_BFD[row, number], wanted, atol=1e-5)
    every, _ = frames(model, pixels[[0, 2]])
    assert torch.allclose(every, tokens_BFD[[0, 2]], atol=1e-5)


def test_rows_without_frames_do_not_enter_the_statistics_of_batch_norm() -> None:
    pixels, there_B = torch.randn(2, 3, 3, 32, 32), torch.tensor([True, False])
    padded, plain = _vgg(batch_norm=True).train(), _vgg(batch_norm=True).train()
    frames(padded, pixels, there_B)
    plain(pixel_values=pixels[0])
    for (name, mine), theirs in zip(padded.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_batch_without_any_frame_is_zero_and_runs_every_module() -> None:
    model = _vgg()
    tokens_BFD, _ = frames(model, torch.full((2, 3, 3, 32, 32), float("nan")), torch.zeros(2, dtype=torch.bool))
    assert not tokens_BFD.any()
    tokens_BFD.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_tower_of_pictures_reads_videos_as_the_mean_of_their_frames(tmp_path: Any) -> None:
    """The first frame of both is the same: a model of one picture could not tell them apart."""
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    torch.manual_seed(1)
    model = TowersForClassification(TowersConfig(towers={"image": VGG}, num_labels=3)).eval()
    (reader,) = readers(("image",), tmp_path)
    drawn = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (2, 4, 32, 32, 3)).astype(np.uint8)
    drawn[1, 0] = drawn[0, 0]
    found = reader(Rows([[], []], media={"image": list(drawn)}), 0)
    assert found["pixel_values"].shape == (2, 4, 3, 32, 32)
    still = reader(Rows([[]], media={"image": [drawn[0, :1]]}), 0)["pixel_values"]
    assert torch.equal(still[0], found["pixel_values"][0, 0])
    logits_BK = model(**found).logits
    assert not torch.allclose(logits_BK[0], logits_BK[1], atol=1e-4)
    again = model(pixel_values=found["pixel_values"][:, torch.tensor([3, 1, 0, 2])]).logits
    assert torch.allclose(again, logits_BK, atol=1e-5)


def test_rows_without_any_video_are_read_as_none_and_many_frames_by_parts(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    (tmp_path / "config.json").write_text(
        '{"towers": {"image": {"image_size": 32}}}'
    )  # it has places for no other size
    (reader,) = [one for one in readers(("image", "series"), tmp_path) if type(one).__name__ == "Image"]
    found = reader(Rows([[], []], media={"image": [None, None]}), 0)
    assert found["pixel_values"].shape == (2, 1, 3, 32, 32)
    tokens_BFD, mask_BF = frames(_vgg(), found["pixel_values"], found["image_mask"])
    assert not mask_BF.any()
    assert not tokens_BFD.any()
    model, pixels = _vgg().eval(), torch.randn(3, 4, 3, 32, 32)
    passes: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    monkeypatch.setattr(video, "TOGETHER", 5)
    with torch.no_grad():  # as a validation on several ranks: each runs every module as often as the others
        whole, _ = frames(model, pixels)
    with torch.inference_mode():
        assert torch.allclose(frames(model, pixels)[0], whole, atol=1e-6)
    assert passes == [12, 5, 5, 2]


def test_what_a_store_has_of_a_video_is_sent_without_loss() -> None:
    drawn = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (5, 48, 48, 3)).astype(np.uint8)
    assert np.array_equal(media.decode_image(probes.video(drawn), ImageConfig(size=48, frames=5)), drawn)
    assert probes.video(drawn) == probes.video(drawn)  # a package's address hangs on it

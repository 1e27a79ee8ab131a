"""Rows to what a model takes, by what it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.families import ModelError
from models.inputs import Rows, kept, read_pixels, readers, without

NONE = np.empty(0, np.int32)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, "crop_size": {"height": 8, "width": 8}}))
    return tmp_path


def _pictures(count: int) -> list[np.ndarray | None]:
    return [
        np.random.Generator(np.random.PCG64(i)).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8) for i in range(count)
    ]


def test_pixels_are_scaled_as_transformers_own_processing_does(folder: Path) -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    pictures = _pictures(3)
    (reader,) = readers(("image",), folder)
    found = reader(Rows([NONE] * 3, media={"image": pictures}), 0)
    theirs = ViTImageProcessorPil(do_resize=False, image_mean=MEAN, image_std=STD)
    wanted = theirs([picture[0] for picture in pictures if picture is not None], return_tensors="pt")["pixel_values"]
    assert found.keys() == {"pixel_values"}
    assert torch.allclose(found["pixel_values"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("told", "side"),
    [
        ({"crop_size": 224, "size": 256}, 224),
        ({"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 40}, "do_center_crop": False}, 40),
        ({"size": 96}, 96),
        ({}, 64),
    ],
)
def test_sizes_are_read_as_older_and_newer_folders_write_them(tmp_path: Path, told: dict[str, Any], side: int) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD, **told}))
    assert read_pixels(tmp_path).size == side


def test_a_row_without_a_picture_is_refused_alone_and_masked_beside_text(folder: Path) -> None:
    pictures = [*_pictures(2), None]
    (alone,) = readers(("image",), folder)
    with pytest.raises(ModelError, match="1 of 3 rows have no image"):
        alone(Rows([NONE] * 3, media={"image": pictures}), 0)
    _, beside = readers(("text", "image"), folder)
    found = beside(Rows([NONE] * 3, media={"image": pictures}), 0)
    assert found["image_mask"].tolist() == [True, True, False]
    assert torch.isfinite(found["pixel_values"]).all()


def test_sounds_are_padded_and_their_mask_says_how_far_they_go(tmp_path: Path) -> None:
    sounds = [np.arange(5, dtype=np.int16), np.ones(3, np.int16)]
    (reader,) = readers(("audio",), tmp_path)
    found = reader(Rows([NONE] * 2, media={"audio": sounds}), 0)
    assert found["input_values"].dtype == torch.int16
    assert found["input_values"].tolist() == [[0, 1, 2, 3, 4], [1, 1, 1, 0, 0]]
    assert found["audio_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_a_folder_that_says_nothing_of_colours_is_refused(tmp_path: Path) -> None:
    (reader,) = readers(("image",), tmp_path)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: missing"):
        reader(Rows([NONE], media={"image": _pictures(1)}), 0)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="image_mean and image_std"):
        readers(("image",), tmp_path)[0](Rows([NONE], media={"image": _pictures(1)}), 0)


def test_modality_dropout_drops_at_its_rate_and_never_all_that_a_row_has() -> None:
    present_BM = torch.tensor(
        [[True, True, True], [True, False, True], [False, True, False], [False, False, False]]
    ).repeat(2000, 1)
    draw_BM = torch.rand(present_BM.shape, generator=torch.Generator().manual_seed(4))
    kept_BM = kept(present_BM, draw_BM, 0.4) & present_BM
    assert torch.equal(kept_BM.any(1), present_BM.any(1))
    kinds_RBM = kept_BM.view(2000, 4, 3).transpose(0, 1)
    # kept with 0.6, or with all dropped (0.4 to the number present) and being the one in as many that stays
    assert torch.allclose(kinds_RBM[0].float().mean(0), torch.full((3,), 0.6 + 0.4**3 / 3), atol=0.04)
    assert torch.allclose(kinds_RBM[1].float().mean(0), torch.tensor([0.68, 0.0, 0.68]), atol=0.04)
    assert kinds_RBM[2][:, 1].all()
    both = (kinds_RBM[1][:, 0] & kinds_RBM[1][:, 2]).float().mean()
    assert float(both) == pytest.approx(0.36, abs=0.04)  # rows and modalities are drawn apart


def test_what_a_row_loses_hangs_on_its_own_numbers_and_is_missing_from_its_masks() -> None:
    numbers = [np.random.Generator(np.random.PCG64(row)).integers(0, 2**64, 2, np.uint64) for row in range(40)]
    given = {"text_mask": torch.ones(40, dtype=torch.bool), "audio_mask": torch.ones(40, 7, dtype=torch.long)}
    found = without(given, ("text", "audio"), numbers, 0.5)
    lost = torch.stack([~found["text_mask"], (found["audio_mask"] == 0).all(1)], 1)
    assert lost.any(0).all()
    assert not lost.all(1).any()
    assert found["audio_mask"].dtype == torch.long
    turned = without(given, ("text", "audio"), numbers[::-1], 0.5)
    assert torch.equal(turned["text_mask"].flip(0), found["text_mask"])
    assert without(given, ("text", "audio"), numbers, 0.5, always=("text",))["text_mask"].all()
    assert given["audio_mask"].all()  # what came in is as it was

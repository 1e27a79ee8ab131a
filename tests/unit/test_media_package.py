"""Packages of models that read pictures or sound: what a client sends is decoded as the training rows were. Small models from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.config import ModelConfig
from orchestration import package as packages
from orchestration.answers.kinds import Unanswerable
from orchestration.data.config import AudioConfig, ImageConfig
from orchestration.data.media import decode_image
from orchestration.errors import UserError
from orchestration.probes import png, wav
from orchestration.storage import Storage
from tests.packages import media_package
from tests.tiny import make_tokenizer

IMAGE = ImageConfig(size=32, max_pixels=20_000)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    config = ModelConfig(family="resnet", size="tiny")
    rel = media_package(config, storage, image=IMAGE)
    return packages.load(storage.fetch(rel))


def _picture(height: int = 50, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_file_and_the_stored_array_give_the_same_answer(opened: Any) -> None:
    files = [png(_picture(seed=seed)) for seed in range(3)]
    arrays = [decode_image(file, IMAGE) for file in files]
    sent, stored = ([{"image": value} for value in values] for values in (files, arrays))
    assert np.array_equal(opened.logits(sent), opened.logits(stored))
    assert np.ptp(opened.logits(sent), axis=0).min() > 1e-4
    answers = opened.answer(sent, logits=True)
    assert [answer["label"] for answer in answers] == [opened.labels[i] for i in opened.logits(sent).argmax(1)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"no picture at all", "image cannot be decoded: begins with"),
        (png(_picture(200, 200)), "image has more pixels than data.image.max_pixels=20000: 200 x 200"),
        (png(_picture())[:300], "image cannot be decoded"),
        (wav(np.zeros(9, np.int16), 8000), "image cannot be decoded"),
    ],
)
def test_what_is_no_usable_picture_is_told_with_its_row(opened: Any, value: bytes, words: str) -> None:
    with pytest.raises(Unanswerable, match=words) as caught:
        opened.answer([{"image": png(_picture())}, {"image": value}])
    assert (caught.value.where, caught.value.part) == (1, "image")


def test_the_folder_opens_with_transformers_alone_and_its_processing_cuts_what_training_saw(opened: Any) -> None:
    import torch
    from transformers import AutoModelForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    model = AutoModelForImageClassification.from_pretrained(str(opened.folder)).eval()
    processing = ViTImageProcessorPil.from_pretrained(str(opened.folder))
    pixels = processing(_picture(32, 32), return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**pixels).logits.numpy()
    assert np.allclose(theirs, opened.logits([{"image": _picture(32, 32)[None]}]), atol=1e-5)
    assert model.config.id2label == dict(enumerate(opened.labels))


def test_a_package_whose_scaling_of_colours_was_changed_is_refused(opened: Any, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(opened.folder, tmp_path / "copy")
    told = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**told, "image_mean": [0.4, 0.5, 0.5]}))
    with pytest.raises(UserError, match="logits of probe text"):
        packages._check_probe(packages._open(folder, threads=1, base=None, verify=False), shown="changed")


SIZE = {"layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Text and pictures, joined for classes and compared for vectors."""
    root = tmp_path_factory.mktemp("towers")
    tokenizer = str(make_tokenizer(root / "tokenizer", "bert"))
    parts = {
        "text": {"family": "bert", "size": SIZE, "tokenizer": tokenizer},
        "image": {"family": "resnet", "size": SIZE},
    }
    storage, found = Storage(str(root / "storage")), {}
    for task in ("classification", "contrastive"):
        config = ModelConfig.model_validate({"towers": parts, "task": task})
        rel = media_package(config, storage, image=IMAGE, labels=["cat", "dog"] if task == "classification" else [])
        found[task] = packages.load(storage.fetch(rel))
    return found


def test_a_part_that_is_left_out_is_missing_and_not_empty(towers: dict[str, Any]) -> None:
    opened, picture = towers["classification"], png(_picture())
    both, text, image = opened.logits(
        [{"text": "Ada wrote", "image": picture}, {"text": "Ada wrote"}, {"image": picture}]
    )
    assert len({tuple(row.round(6)) for row in (both, text, image)}) == 3
    assert np.allclose(opened.logits([{"image": picture, "text": ""}])[0], image, atol=1e-6)
    assert opened.answer([{"text": "Ada wrote"}])[0]["label"] in ("cat", "dog")


def test_vectors_of_a_part_are_the_same_alone_and_beside_the_other(towers: dict[str, Any]) -> None:
    opened, picture = towers["contrastive"], png(_picture())
    both, text, image = opened.answer([{"text": "Ada", "image": picture}, {"text": "Ada"}, {"image": picture}])
    assert [set(one["vectors"]) for one in (both, text, image)] == [{"text", "image"}, {"text"}, {"image"}]
    for name, alone in (("text", text), ("image", image)):
        assert np.allclose(both["vectors"][name], alone["vectors"][name], atol=1e-6)
        assert np.linalg.norm(alone["vectors"][name]) == pytest.approx(1.0)


def test_a_sound_is_classified_as_its_stored_samples_are(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    config = ModelConfig.model_validate({"family": "audio", "size": SIZE})
    opened = packages.load(storage.fetch(media_package(config, storage, audio=AudioConfig(rate=8000))))
    samples = (np.sin(np.arange(4000) / 5) * 9000).astype(np.int16)
    sent = opened.logits([{"audio": wav(samples, 8000)}, {"audio": samples}, {"audio": samples[:900]}])
    assert np.allclose(sent[0], sent[1], atol=1e-6)
    assert not np.allclose(sent[1], sent[2], atol=1e-4)
    with pytest.raises(Unanswerable, match="audio 0 audio cannot be decoded"):
        opened.answer([{"audio": b"RIFF and no more"}])

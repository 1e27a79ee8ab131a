"""Texts written for a picture: what is asked for, and that a row hangs on its own picture and text alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import tasks
from models.building import build
from models.config import ModelConfig
from models.families import ModelError
from models.inputs import Rows
from models.scratch import Shapes
from orchestration.storage import Storage
from orchestration.weights import stage_model
from tests.tiny import make_tokenizer

SIZE = {"layers": 2, "width": 16, "heads": 2}
CLS, SEP = 2, 3
CAPTIONS = [np.array([CLS, 40, 41, 42, SEP]), np.array([CLS, SEP]), np.array([CLS, 43, SEP])]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Model and task."""
    root = tmp_path_factory.mktemp("captions")
    text = {"family": "gpt2", "size": SIZE, "tokenizer": str(make_tokenizer(root / "tokenizer", "bert"))}
    image = {"family": "resnet", "size": SIZE}
    config = ModelConfig.model_validate(
        {"towers": {"image": image, "text": text}, "task": "captioning", "dropout": 0.0}
    )
    storage = Storage(str(root / "storage"))
    folder = storage.fetch(stage_model(config, storage, shapes=Shapes(positions=16, image=32)).rel)
    model = build(config, folder, [], seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)  # so that answers differ
    return model, tasks.make(config, [], folder)


def _picture(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)


def _rows(*rows: int, pictures: bool = True) -> Rows:
    return Rows([CAPTIONS[row] for row in rows], media={"image": [_picture(row) if pictures else None for row in rows]})


def test_each_token_is_asked_for_behind_those_before_it_and_the_end_behind_the_last(made: tuple[Any, Any]) -> None:
    _, task = made
    inputs, targets = task.batch(_rows(0, 1, 2), 0)
    assert inputs["input_ids"].tolist() == [[CLS, 40, 41, 42], [CLS, 0, 0, 0], [CLS, 43, 0, 0]]
    assert targets["tokens"].tolist() == [[40, 41, 42, SEP], [-100] * 4, [43, SEP, -100, -100]]
    assert task.count(_rows(0, 1, 2)) == 6  # a row without text teaches nothing


def test_a_row_hangs_on_its_own_picture_and_on_nothing_beside_it(made: tuple[Any, Any]) -> None:
    model, task = made
    beside = model(**task.inputs(_rows(0, 2), 0)).logits
    alone = model(**task.inputs(_rows(2), 0)).logits
    assert torch.allclose(beside[1, :2], alone[0], atol=1e-5)
    other = model(**task.inputs(Rows([CAPTIONS[2]], media={"image": [_picture(9)]}), 0)).logits
    assert (other - alone).abs().max() > 1e-3


def test_without_a_picture_the_text_model_alone_speaks(made: tuple[Any, Any]) -> None:
    model, task = made
    inputs = task.inputs(_rows(0, pictures=False), 0)
    assert torch.allclose(model(**inputs).logits, model.writer(inputs["input_ids"]).logits, atol=1e-5)


def test_the_loss_reaches_every_parameter(made: tuple[Any, Any]) -> None:
    model, task = made
    inputs, targets = task.batch(_rows(0, 2), 0)
    model.zero_grad()
    summed, count = task.loss(model(**inputs).logits, targets, torch.ones(2))
    (summed / count).backward()
    assert float(count) == 6
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(tower.grad.abs().sum() > 0 for tower in model.encoders["image"].parameters() if tower.ndim > 1)


def test_more_tokens_than_positions_are_refused_in_words(made: tuple[Any, Any]) -> None:
    model, task = made
    long = Rows([np.array([CLS, *[40] * 520, SEP])], media={"image": [_picture(0)]})
    with pytest.raises(ModelError, match=r"512 positions; lower data\.tokenize\.max_length"):
        model(**task.inputs(long, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "p"},
        {"towers": {"image": {"family": "resnet"}, "audio": {"family": "audio"}}},
        {"path": "p", "modalities": ["text", "image"], "fusion": {"kind": "concat"}},
    ],
)
def test_who_writes_captions_has_a_text_tower_and_another(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"task captioning writes a text|fusion joins towers"):
        ModelConfig.model_validate({**wrong, "task": "captioning"})

"""Encoder-decoder models: what the decoder is given and asked for, and what denoising takes out of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import tasks
from models.config import ModelConfig
from models.families import ModelError
from models.tasks.base import Rows
from orchestration.data import rng

SPECIAL = ["<pad>", "</s>", "<s>", "<mask>"]
MARKS = [f"<extra_id_{i}>" for i in range(20)]
FIRST = len(SPECIAL) + len(MARKS)  # of the ordinary entries
SIZE = FIRST + 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("t5")
    names = [*SPECIAL, *MARKS, *(f"w{i}" for i in range(40))]
    special = [{"id": i, "content": name, "special": True} for i, name in enumerate(SPECIAL)]
    described = {"model": {"type": "WordLevel", "vocab": {name: i for i, name in enumerate(names)}}}
    (made / "tokenizer.json").write_text(json.dumps({**described, "added_tokens": special}))
    (made / "config.json").write_text(json.dumps({"model_type": "t5", "decoder_start_token_id": 0}))
    return made


def made_of(folder: Path, task: str, **more: Any) -> Any:
    return tasks.make(ModelConfig(path="tiny", task=task, **more), [], folder)  # type: ignore[arg-type]


def drawn(task: Any, *, count: int = 100, length: int = 42, epoch: int = 0) -> Rows:
    """Rows of ordinary tokens with </s> behind them."""
    draw = np.random.Generator(np.random.PCG64(5))
    ids = [np.array([*draw.integers(FIRST, SIZE, length - 1), 1], np.int32) for _ in range(count)]
    numbers = [
        rng.mix_array(rng.key("t", epoch, i), np.arange(task.draws * length)).reshape(-1, length) for i in range(count)
    ]
    return Rows(ids, random=numbers)


def test_the_decoder_is_given_the_target_one_token_late(folder: Path) -> None:
    task = made_of(folder, "seq2seq")
    rows = Rows([np.array([30, 31, 1]), np.array([32, 1])], {"targets": [np.array([40, 1]), np.array([41, 42, 43, 1])]})
    inputs, targets = task.batch(rows, 0)
    assert inputs["input_ids"].tolist() == [[30, 31, 1], [32, 1, 0]]
    assert inputs["decoder_input_ids"].tolist() == [[0, 40, 0, 0], [0, 41, 42, 43]]
    assert targets["tokens"].tolist() == [[40, 1, -100, -100], [41, 42, 43, 1]]
    assert task.count(rows) == 6


def test_what_was_taken_out_and_what_stayed_make_the_text_again(folder: Path) -> None:
    task = made_of(folder, "denoising")
    rows = drawn(task)
    inputs, targets = task.batch(rows, 0)
    gone = 0
    for row, seen, told in zip(rows.ids, inputs["input_ids"].tolist(), targets["tokens"].tolist(), strict=True):
        seen, told = [t for t in seen if t != 0], [t for t in told if t >= 0]
        assert told[-1] == seen[-1] == 1
        parts: dict[int, list[int]] = {}
        for token in told[:-1]:
            if token < FIRST:
                parts[token] = []
            else:
                parts[list(parts)[-1]].append(token)
        again = [token for mark in seen for token in parts.get(mark, [mark])]
        assert again == row.tolist()
        assert list(parts) == list(range(len(SPECIAL), len(SPECIAL) + len(parts)))
        gone += sum(map(len, parts.values()))
        assert len(parts) == 2  # 6 of 41 tokens in stretches of 3
    assert gone == 6 * len(rows)
    assert task.count(rows) == int((targets["tokens"] != -100).sum())


def test_infilling_leaves_a_mask_for_each_stretch_and_asks_for_the_whole_text(folder: Path) -> None:
    task = made_of(folder, "denoising", denoising={"style": "infilling", "rate": 0.3})
    rows = drawn(task)
    inputs, targets = task.batch(rows, 0)
    assert targets["tokens"].tolist() == [row.tolist() for row in rows.ids]
    masks = (inputs["input_ids"] == 3).sum(1)
    assert masks.unique().tolist() == [4]  # 12 of 41 tokens in stretches of 3
    assert (inputs["attention_mask"].sum(1) == 42 - 12 + 4).all()


def test_stretches_are_those_of_the_row_and_epoch_alone(folder: Path) -> None:
    task = made_of(folder, "denoising")
    rows = drawn(task)
    whole, _ = task.batch(rows, 0)
    part, _ = task.batch(Rows(rows.ids[7:9], random=rows.random[7:9]), 0)  # type: ignore[index]
    assert torch.equal(part["input_ids"], whole["input_ids"][7:9, : part["input_ids"].shape[1]])
    other, _ = task.batch(drawn(task, epoch=1), 0)
    assert (other["input_ids"] != whole["input_ids"]).any(1).float().mean() > 0.9
    places = {tuple(np.flatnonzero(row < FIRST)) for row in whole["input_ids"].numpy()}
    assert len(places) > 50  # all over the text


@pytest.mark.parametrize("style", ["sentinels", "infilling"])
def test_a_text_too_short_for_a_hole_is_written_whole(folder: Path, style: str) -> None:
    task = made_of(folder, "denoising", denoising={"style": style})
    rows = Rows(
        [np.array([30, 1], np.int32), np.array([30, 31, 1], np.int32)],
        random=[np.ones((2, 2), np.uint64), np.ones((2, 3), np.uint64)],
    )
    _, targets = task.batch(rows, 0)
    assert targets["tokens"][0, :2].tolist() == [30, 1]
    assert task.count(rows) == int((targets["tokens"] != -100).sum())


def test_a_tokenizer_without_marks_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"] = {name: i for name, i in described["model"]["vocab"].items() if name not in MARKS}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ModelError, match=r"marks like <extra_id_0> .* style: infilling"):
        made_of(tmp_path, "denoising")
    assert made_of(tmp_path, "denoising", denoising={"style": "infilling"}).mask_id == 3

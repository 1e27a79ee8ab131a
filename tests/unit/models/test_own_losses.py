"""The losses of text tasks are those that transformers' own models compute from labels, and so are their gradients: same weights, same
batch. Families of two and three narrow layers, from seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import tasks
from models.config import PAIRED, ModelConfig
from models.loss import IGNORED
from models.tasks.base import Rows
from orchestration.data import rng
from tests.families import SMALL

SAME = 1e-5  # of the loss, and of each gradient beside the model's largest one
SIZE = 40
SPECIAL = ["<pad>", "</s>", "<s>", "<mask>"]  # 0 to 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 40 entries, four of them special."""
    made = tmp_path_factory.mktemp("tokenizer")
    vocab = {**{name: i for i, name in enumerate(SPECIAL)}, **{f"w{i}": i for i in range(len(SPECIAL), SIZE)}}
    special = [{"id": i, "content": name, "special": True} for i, name in enumerate(SPECIAL)]
    described = {"model": {"type": "WordLevel", "vocab": vocab}, "added_tokens": special}
    (made / "tokenizer.json").write_text(json.dumps(described))
    return made


def model_of(family: str, task: str) -> Any:
    import transformers
    from transformers import AutoConfig

    torch.manual_seed(1)
    settings = AutoConfig.for_model(
        family, **{**SMALL[family], "vocab_size": SIZE, "pad_token_id": 0, "decoder_start_token_id": 0}
    )
    kind = getattr(transformers, tasks.auto_class(task))
    return kind.from_config(settings, dtype=torch.float32).eval()


def rows_of(task: Any, *, lengths: tuple[int, ...] = (9, 5, 7), columns: dict[str, Any] | None = None) -> Rows:
    draw = np.random.Generator(np.random.PCG64(7))
    ids = [draw.integers(len(SPECIAL), SIZE, length).astype(np.int32) for length in lengths]
    random = [
        rng.mix_array(rng.key("t", i), np.arange(task.draws * len(row))).reshape(-1, len(row))
        for i, row in enumerate(ids)
    ]
    return Rows(ids, columns or {}, random if task.draws else None)


def compare(model: Any, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Losses, and gradients of every parameter."""
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=SAME)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, wanted = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (ours, theirs))
    largest = max(float(gradient.abs().max()) for gradient in wanted if gradient is not None)
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, rtol=SAME, atol=SAME * largest)


def mean(task: Any, model: Any, rows: Rows) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Our loss over its count, and what it was made of."""
    inputs, targets = task.batch(rows, 0)
    summed, count = task.loss(task.read(model(**inputs)), targets, torch.ones(len(rows)))
    assert int(count) == task.count(rows)
    return summed / count, inputs, targets


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_masked_loss_is_transformers_own(folder: Path, family: str) -> None:
    task, model = tasks.make(ModelConfig(path="tiny", task="masked_lm"), [], folder), model_of(family, "masked_lm")
    ours, inputs, targets = mean(task, model, rows_of(task))
    compare(model, ours, model(**inputs, labels=targets["tokens"]).loss)


@pytest.mark.parametrize("name", PAIRED)
def test_the_loss_of_hidden_words_and_of_two_texts_is_transformers_own(folder: Path, name: str) -> None:
    """Where rows have equally many hidden tokens: transformers takes the mean over rows, whatever their length."""
    task, model = (
        tasks.make(ModelConfig.model_validate({"path": "tiny", "task": name}), [], folder),
        model_of("bert", name),
    )
    rows = dataclasses.replace(rows_of(task, lengths=(20, 20, 20, 20)), pair_at=[9, 9, 9, 9])
    ours, inputs, targets = mean(task, model, rows)
    assert set(targets["order"].tolist()) == {0, 1}
    compare(model, ours, model(**inputs, labels=targets["tokens"], next_sentence_label=targets["order"]).loss)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_causal_loss_is_transformers_own(folder: Path, family: str) -> None:
    task, model = tasks.make(ModelConfig(path="tiny", task="causal_lm"), [], folder), model_of(family, "causal_lm")
    ours, inputs, _ = mean(task, model, rows_of(task))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    compare(model, ours, model(**inputs, labels=labels).loss)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_loss_of_written_texts_is_transformers_own(folder: Path, family: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "decoder_start_token_id": 0}))
    task, model = tasks.make(ModelConfig(path="tiny", task="seq2seq"), [], tmp_path), model_of(family, "seq2seq")
    written = [np.array(row, np.int32) for row in ([9, 8, 7, 1], [12, 1], [20, 21, 22, 23, 24, 1])]
    ours, inputs, targets = mean(task, model, rows_of(task, columns={"targets": written}))
    theirs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=targets["tokens"])
    compare(model, ours, theirs.loss)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "bart"])
def test_the_loss_of_spans_is_transformers_own_where_nothing_is_padding(folder: Path, family: str) -> None:
    """transformers lets an answer begin on padding; that a row's loss hangs on the rows beside it is what we leave out."""
    task, model = tasks.make(ModelConfig(path="tiny", task="spans"), [], folder), model_of(family, "spans")
    spans = [np.array(span, np.int32) for span in ([3, 5], [0, 0], [6, 6])]
    ours, inputs, targets = mean(task, model, rows_of(task, lengths=(8, 8, 8), columns={"targets": spans}))
    start, end = targets["span"].unbind(-1)
    compare(model, ours, model(**inputs, start_positions=start, end_positions=end).loss)

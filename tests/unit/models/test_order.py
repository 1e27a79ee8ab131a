"""Sentence order: which texts are exchanged, what stays in its place, and what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import tasks
from models.config import ModelConfig
from models.families import unfit
from models.tasks.base import Rows
from orchestration.data import rng
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tokenizer(tmp_path_factory.mktemp("tokenizer"), "bert")
    described = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(described.replace("[UNK]", "[MASK]"))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    config = ModelConfig(path="tiny", task="sentence_order", masking={"mask": 0.0, "random": 0.0})  # type: ignore[arg-type]
    return tasks.make(config, [], folder)


def rows(count: int = 60, epoch: int = 0) -> Rows:
    """[CLS] 10 ... [SEP] 40 ... [SEP], of unequal texts."""
    ids, at, random = [], [], []
    for i in range(count):
        a, b = 3 + i % 5, 2 + i % 7
        ids.append(np.array([2, *range(10, 10 + a), 3, *range(40, 40 + b), 3], np.int32))
        at.append(a + 2)
        random.append(rng.mix_array(rng.key("t", epoch, i), np.arange(4 * len(ids[-1]))).reshape(4, -1))
    return Rows(ids, random=random, pair_at=at)


def test_half_of_the_pairs_are_shown_the_other_way_round_and_the_model_is_told_where_the_second_begins(
    task: Any,
) -> None:
    given = rows()
    inputs, targets = task.batch(given, 0)
    for i, row in enumerate(given.ids):
        a, b = row[1 : given.pair_at[i] - 1].tolist(), row[given.pair_at[i] : -1].tolist()  # type: ignore[index]
        first, second = (b, a) if targets["order"][i] else (a, b)
        wanted = [2, *first, 3, *second, 3]
        assert inputs["input_ids"][i, : len(row)].tolist() == wanted
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert inputs["token_type_ids"][i, : len(row)].tolist() == types
    assert 0.3 < targets["order"].float().mean() < 0.7
    assert task.count(given) == int((targets["tokens"] != -100).sum())
    assert (task.batch(rows(epoch=1), 0)[1]["order"] != targets["order"]).any()


def test_both_losses_are_added_and_both_aims_are_scored(task: Any) -> None:
    inputs, targets = task.batch(rows(4), 0)
    length = inputs["input_ids"].shape[1]
    logits = torch.zeros(4, length, 180), torch.zeros(4, 2)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0])
    summed, count = task.loss(logits, targets, weight)
    assert float(count) == int((targets["tokens"][:3] != -100).sum())
    assert float(summed / count) == pytest.approx(np.log(180) + np.log(2), rel=1e-5)
    logits[1][torch.arange(4), targets["order"]] = 9.0
    found = task.scores(task.tally(logits, targets, weight), 0.0)
    assert found["order_accuracy"] == 1.0
    assert found["perplexity"] == pytest.approx(180, rel=1e-4)


def test_a_family_without_a_head_for_two_texts_is_refused() -> None:
    assert unfit("bert", "sentence_order") is None
    assert "roberta has none; families: bert, albert" in str(unfit("roberta", "sentence_order"))

"""Sentence order and next sentence: which texts are exchanged or borrowed, what stays in its place, and what is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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


def made(folder: Path, name: str, **more: Any) -> Any:
    make_tokenizer(folder, "bert")
    described = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(described.replace("[UNK]", "[MASK]"))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    values = {"path": "tiny", "task": name, "masking": {"mask": 0.0, "random": 0.0}, **more}
    return tasks.make(ModelConfig.model_validate(values), [], folder)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("tokenizer"), "sentence_order")


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("tokenizer"), "next_sentence", contrast={"group": 6})


def rows(count: int = 60, epoch: int = 0) -> Rows:
    """[CLS] 10 ... [SEP] 40, 50, ... 90 and what follows [SEP], of unequal texts."""
    ids, at, random = [], [], []
    for i in range(count):
        a, b = 3 + i % 5, 2 + i % 7
        second = 40 + 10 * (i % 6)
        ids.append(np.array([2, *range(10, 10 + a), 3, *range(second, second + b), 3], np.int32))
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


def groups(given: Rows, size: int) -> list[Rows]:
    parts = [slice(at, at + size) for at in range(0, len(given), size)]
    return [replace(given, ids=given.ids[p], random=given.random[p], pair_at=given.pair_at[p]) for p in parts]  # type: ignore[index]


def test_half_of_the_rows_are_shown_with_the_second_text_of_the_next_of_their_group(following: Any) -> None:
    said = []
    for group in groups(rows(), 6):
        inputs, targets = following.batch(group, 0)
        for i in range(len(group)):
            after = (i + 1) % len(group)
            at, other = group.pair_at[i], after if targets["order"][i] else i  # type: ignore[index]
            start = group.pair_at[other]  # type: ignore[index]
            # Own and borrowed texts alike are cut to the shorter of both: how long a text is, and whether it has its end, tells nothing.
            most = min(len(group.ids[i]) - at, len(group.ids[after]) - group.pair_at[after]) - 1  # type: ignore[index]
            wanted = [*group.ids[i][:at].tolist(), *group.ids[other][start : start + most].tolist(), 3]
            assert inputs["input_ids"][i, : len(wanted)].tolist() == wanted
            assert inputs["attention_mask"][i].sum() == len(wanted) <= len(group.ids[i])
            types = [0] * at + [1] * (len(wanted) - at)
            assert inputs["token_type_ids"][i, : len(wanted)].tolist() == types
        said += targets["order"].tolist()
    assert 0.3 < np.mean(said) < 0.7
    assert said != [one for group in groups(rows(epoch=1), 6) for one in following.batch(group, 0)[1]["order"].tolist()]


def test_the_count_of_a_batch_is_that_of_its_groups(following: Any) -> None:
    asked = [following.batch(group, 0)[1]["tokens"] for group in groups(rows(), 6)]
    assert following.count(rows()) == sum(int((tokens != -100).sum()) for tokens in asked)


def test_what_would_look_the_same_is_no_other_text(following: Any) -> None:
    """Equal second texts, cut to other lengths behind first ones of other lengths."""
    (group,) = groups(rows(6), 6)
    firsts = (1, 2, 3, 4, 5, 6)
    ids = [np.array([2, *[7] * n, 3, *range(40, 52 - n), 3], np.int32) for n in firsts]
    random = [rng.mix_array(rng.key("t", n), np.arange(4 * 15)).reshape(4, -1) for n in firsts]
    inputs, targets = following.batch(replace(group, ids=ids, pair_at=[n + 2 for n in firsts], random=random), 0)
    assert not targets["order"].any()
    assert inputs["attention_mask"].sum(1).tolist() == [14, 14, 14, 14, 14, 15]
    alone = replace(group, ids=group.ids[:1], pair_at=group.pair_at[:1], random=group.random[:1])  # type: ignore[index]
    assert not following.batch(alone, 0)[1]["order"].any()


def test_a_family_without_a_head_for_two_texts_is_refused() -> None:
    assert unfit("bert", "sentence_order") is None
    assert "roberta has none; families: bert, albert" in str(unfit("roberta", "sentence_order"))

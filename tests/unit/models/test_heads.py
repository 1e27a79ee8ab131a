"""Task heads: several classes a row, some of them missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import tasks
from models.config import ModelConfig
from models.labels import joined, parted
from models.tasks.base import Rows
from models.tasks.heads import Heads

HEADS = {"tone": ["bad", "good"], "topic": ["art", "food", "work"]}
ROWS = Rows([np.arange(3)] * 4, {"heads": {"tone": np.array([1, -1, 0, -1]), "topic": np.array([2, 0, -1, -1])}})
LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def _task(**more: float) -> Heads:
    config = ModelConfig(path="tiny", task="heads", head_weights=more)
    made = tasks.make(config, joined(HEADS), Path("tiny"))
    assert isinstance(made, Heads)
    return made


def test_names_of_outputs_go_both_ways() -> None:
    assert parted(joined(HEADS)) == HEADS


def test_the_loss_is_the_mean_over_the_classes_there_are_each_by_the_weight_of_its_head() -> None:
    task = _task(topic=0.5)
    summed, count = task.loss(LOGITS, task.targets(ROWS), torch.ones(4))
    log_tone, log_topic = LOGITS[:, :2].log_softmax(1), LOGITS[:, 2:].log_softmax(1)
    wanted = -(log_tone[0, 1] + log_tone[2, 0]) - 0.5 * (log_topic[0, 2] + log_topic[1, 0])
    assert float(summed) == pytest.approx(float(wanted), rel=1e-6)
    assert int(count) == task.count(ROWS) == 4


def test_parts_of_a_batch_add_up_to_the_whole_and_rows_of_weight_zero_move_nothing() -> None:
    task = _task()
    targets = task.targets(ROWS)
    whole = [*task.loss(LOGITS, targets, torch.ones(4)), task.tally(LOGITS, targets, torch.ones(4))]
    parts = []
    for weight_B in (torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 1, 1])):
        parts.append([*task.loss(LOGITS, targets, weight_B), task.tally(LOGITS, targets, weight_B)])
    for one, first, second in zip(whole, *parts, strict=True):
        assert torch.allclose(one.double(), first.double() + second.double())


def test_scores_are_those_of_each_head_and_their_mean() -> None:
    task = _task()
    logits = torch.tensor([[0.0, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 1, 0, 0]])
    found = task.scores(task.tally(logits, task.targets(ROWS), torch.ones(4)), 0.0)
    assert (found["tone_accuracy"], found["topic_accuracy"], found["accuracy"]) == (0.5, 1.0, 0.75)
    assert found["macro_f1"] == pytest.approx((found["tone_macro_f1"] + found["topic_macro_f1"]) / 2)


def test_an_answer_tells_every_head() -> None:
    from orchestration.answers.kinds import KINDS

    (found,) = KINDS["heads"].show((np.array([[0.0, 2, 1, 0, 0]]), [False]), {}, joined(HEADS))
    assert {head: told["label"] for head, told in found["heads"].items()} == {"tone": "good", "topic": "art"}
    assert sum(found["heads"]["topic"]["scores"].values()) == pytest.approx(1.0)
    assert not found["truncated"]

"""Answers inside a text: what is asked for, what padding and other places change, and which answer is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import tasks
from models.config import ModelConfig
from models.tasks.base import Rows
from models.tasks.spans import best
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tokenizer(tmp_path_factory.mktemp("tokenizer"), "bert")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return tasks.make(ModelConfig(path="tiny", task="spans"), [], folder)


def rows(spans: list[list[int]]) -> Rows:
    """[CLS] q q [SEP] c c c [SEP], the second row longer."""
    ids = [np.array([2, 9, 10, 3, 20, 21, 22, 3]), np.array([2, 9, 3, 20, 21, 22, 23, 24, 25, 3])]
    return Rows(ids, {"targets": [np.array(span) for span in spans]}, pair_at=[4, 3])


def test_an_answer_lies_on_the_second_text_and_the_model_is_told_which_that_is(task: Any) -> None:
    inputs, targets = task.batch(rows([[4, 5], [0, 0]]), 0)
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]
    assert targets["open"].long().tolist() == [[0, 0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]]
    assert targets["there"].sum(1).tolist() == [8, 10]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_s_loss_does_not_hang_on_the_rows_beside_it(task: Any, smoothing: float) -> None:
    given = rows([[4, 5], [6, 6]])
    _, targets = task.batch(given, 0)
    logits = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(3))
    together, _ = task.loss(logits, targets, torch.ones(2), smoothing)
    apart = 0.0
    for i, length in enumerate((8, 10)):
        alone = Rows(
            given.ids[i : i + 1], {"targets": given.columns["targets"][i : i + 1]}, pair_at=given.pair_at[i : i + 1]
        )  # type: ignore[index]
        summed, count = task.loss(logits[i : i + 1, :length], task.targets(alone), torch.ones(1), smoothing)
        assert float(count) == 1.0
        apart += float(summed)
    assert float(together) == pytest.approx(apart, rel=1e-6)
    weightless, count = task.loss(logits, targets, torch.tensor([0.0, 1.0]), smoothing)
    assert float(weightless) == pytest.approx(float(summed), rel=1e-6)
    assert float(count) == 1.0


def test_the_likeliest_answer_is_that_of_all_pairs_in_reach() -> None:
    """Against every pair of places, one by one."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 12, 2, generator=generator)
    open_BL = torch.rand(40, 12, generator=generator) > 0.3
    open_BL[:, 0] = False
    found_B2, score_B = best(logits, open_BL, most=4)
    for row in range(40):
        pairs = [(0, 0)] + [
            (a, b) for a in range(12) for b in range(a, min(12, a + 4)) if open_BL[row, a] and open_BL[row, b]
        ]
        value, span = max((float(logits[row, a, 0] + logits[row, b, 1]), (a, b)) for a, b in pairs)
        assert tuple(found_B2[row].tolist()) == span
        assert float(score_B[row]) == pytest.approx(value, rel=1e-6)


def test_scores_are_those_of_places(task: Any) -> None:
    _, targets = task.batch(rows([[4, 5], [3, 6]]), 0)
    logits = torch.full((2, 10, 2), -9.0)
    for row, (a, b) in enumerate([(4, 5), (5, 6)]):  # exact; two of four tokens
        logits[row, a, 0] = logits[row, b, 1] = 9.0
    total = task.tally(logits, targets, torch.ones(2))
    assert task.scores(total, 0.0) == {"exact_match": 0.5, "f1": pytest.approx((1 + 2 * 2 / 6) / 2)}
    assert torch.equal(task.tally(logits, targets, torch.zeros(2)), torch.zeros(3, dtype=torch.float64))

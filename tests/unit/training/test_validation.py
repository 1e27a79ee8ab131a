from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from models.tasks.rows import confusion_scores
from orchestration.training.validation import improved


def test_scores_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(3)
    true, predicted = (torch.randint(0, high, (200,), generator=generator) for high in (4, 5))
    confusion_CC = (
        torch.bincount(true * 6 + predicted, minlength=36).view(6, 6).double()
    )  # class 5 occurs in neither, class 4 in one
    found = confusion_scores(confusion_CC)
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))


@pytest.mark.parametrize(
    ("value", "best", "metric", "min_delta", "better"),
    [
        (0.5, None, "macro_f1", 0.0, True),
        (0.6, 0.5, "macro_f1", 0.0, True),
        (0.5, 0.5, "accuracy", 0.0, False),
        (0.4, 0.5, "accuracy", 0.0, False),
        (0.4, 0.5, "loss", 0.0, True),
        (0.6, 0.5, "loss", 0.0, False),
        (0.55, 0.5, "accuracy", 0.1, False),
        (0.65, 0.5, "accuracy", 0.1, True),
        (0.45, 0.5, "loss", 0.1, False),
        (0.35, 0.5, "loss", 0.1, True),
        (math.nan, None, "loss", 0.0, False),
        (math.nan, 0.5, "loss", 0.0, False),
        (math.nan, 0.5, "macro_f1", 0.0, False),
    ],
)
def test_better_is_lower_for_a_loss_and_higher_for_a_score_by_more_than_the_margin(
    value: float, best: float | None, metric: str, min_delta: float, better: bool
) -> None:
    assert improved(value, best, metric=metric, min_delta=min_delta) is better

"""What teachers add to the loss: nothing where the student says the same, sums that parts of a batch add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import tasks
from models.config import ModelConfig
from models.distill import divergence
from models.loss import IGNORED
from models.tasks.rows import Classification
from models.tasks.tagging import Tagging


def _noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _task(kind: Any) -> Any:
    return tasks.make(ModelConfig(path="tiny", task=kind), ["a", "b", "c"], Path("tiny"))


def test_it_is_the_divergence_of_softened_distributions_times_the_square_of_the_temperature() -> None:
    student, one, other = _noise(1, 3), _noise(1, 3, seed=2), _noise(1, 3, seed=3)
    task = _task("classification")
    assert isinstance(task, Classification)
    found = divergence(task, student, [one, other], {}, torch.ones(1), 2.0)
    p = ((one / 2).softmax(-1) + (other / 2).softmax(-1)) / 2
    q = (student / 2).softmax(-1)
    assert float(found) == pytest.approx(float(4 * (p * (p / q).log()).sum()), rel=1e-3)
    assert float(divergence(task, student, [student], {}, torch.ones(1), 2.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["classification", "regression", "tagging"])
def test_parts_of_a_batch_add_up_and_rows_of_weight_zero_and_tokens_not_asked_for_teach_nothing(kind: str) -> None:
    task: Any = _task(kind)
    shape = {"classification": (4, 3), "regression": (4, 1), "tagging": (4, 5, 3)}[kind]
    student, teacher = _noise(*shape), _noise(*shape, seed=2)
    tags_BL = torch.zeros(4, 5, dtype=torch.long)
    tags_BL[1, 2:] = IGNORED
    targets = {"tags": tags_BL} if isinstance(task, Tagging) else {}
    first = torch.tensor([1.0, 0, 0, 0])
    whole, *parts = (
        float(divergence(task, student, [teacher], targets, weight_B, 3.0))
        for weight_B in (torch.ones(4), first, 1 - first)
    )
    assert whole == pytest.approx(sum(parts), rel=1e-5)
    if kind == "tagging":
        student[1, 2:] += 5 * _noise(3, 3, seed=4)
        assert float(divergence(task, student, [teacher], targets, torch.ones(4), 3.0)) == pytest.approx(whole)

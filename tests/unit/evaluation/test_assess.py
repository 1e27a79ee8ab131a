"""What each row adds to a task's scores: whole batches cut into rows, and shared out among tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestration.evaluation import assess, intervals
from orchestration.storage import Storage
from tests.packages import task_package
from tests.tiny import make_store


def test_rows_add_up_to_the_whole_for_any_number_of_tasks(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    rel, store_rel = task_package("classification", minilm, storage), make_store(storage)
    asked = (storage.url, rel, store_rel, "validation", None)
    alone_UT, texts = assess.partial(*asked, 0, 1)
    assert (alone_UT.shape, texts) == ((24, 3 + 4), {})
    assert np.array_equal(alone_UT[:, 1:3], np.ones((24, 2)))
    assert np.array_equal(alone_UT[:, 3:].sum(1), np.ones(24))
    parts = np.concatenate([assess.partial(*asked, rank, 2)[0] for rank in range(2)])
    assert np.allclose(parts.sum(0), alone_UT.sum(0), rtol=1e-5)
    monkeypatch.setattr(assess, "ROOM", 24)  # several rows a unit, where a number for each would be too many
    fewer_UT, _ = assess.partial(*asked, 0, 1)
    assert len(fewer_UT) < 24
    assert np.allclose(fewer_UT.sum(0), alone_UT.sum(0), rtol=1e-5)
    task = assess_task(storage, rel)
    found = intervals.of_tallies(alone_UT, lambda total_T: task.scores(torch.from_numpy(total_T[3:]), 0.0))
    assert found["accuracy"][0] < found["accuracy"][1]


def assess_task(storage: Storage, rel: str) -> Any:
    from orchestration import package

    return package.read_task(storage.fetch(rel))

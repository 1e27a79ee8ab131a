"""A student of real packages: a cut encoder learns from others of its kind. One process, bare torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import ModelConfig
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.config import DistillConfig, TrunkConfig
from orchestration.training.job import TrainJob
from tests.packages import LABELS, task_package
from tests.tiny import make_job


@pytest.fixture(scope="module")
def job(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """Rows of small token ids, whatever they mean, on the cut encoder; two packages of it teach."""
    root = tmp_path_factory.mktemp("teachers")
    made = make_job(root, micro_batch=12, batch=12, rows=24, validation={"rows": 8})
    storage = Storage(str(root))
    taught = tuple(task_package("classification", minilm, storage, seed=seed) for seed in (3, 4))
    distill = DistillConfig(teacher=["one", "two"], temperature=2.0, weight=1.0)
    model = ModelConfig(path="cut", dropout=0.0)
    train = made.train.model_copy(update={"distill": distill, "epochs": 2})
    return dataclasses.replace(
        made,
        train=train,
        model=model,
        labels=tuple(LABELS),
        weights_rel="weights/cut",
        teachers=taught,
        run_rel="runs/a",
    )


def _run(job: TrainJob, **train: Any) -> Any:
    changed = dataclasses.replace(job, train=job.train.model_copy(update=train))
    return loop.run(changed, report=lambda event: None)


def test_a_student_comes_nearer_to_its_teachers_in_the_same_steps_whatever_the_micro_batch(job: TrainJob) -> None:
    whole = _run(job)
    parts = _run(dataclasses.replace(job, run_rel="runs/b"), micro_batch=5)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert whole.losses[-1] < whole.losses[0]
    storage = Storage(job.storage_url)
    written = checkpoint.open(storage, whole.last_checkpoint).weights()
    assert not any("teacher" in name for name in written)
    assert all(torch.isfinite(tensor).all() for tensor in written.values())


def test_without_weight_on_the_teachers_the_labels_alone_decide(job: TrainJob) -> None:
    light = job.train.distill.model_copy(update={"weight": 1e-9})  # type: ignore[union-attr]
    found = _run(dataclasses.replace(job, run_rel="runs/c"), distill=light, epochs=1)
    plain = _run(dataclasses.replace(job, run_rel="runs/d", teachers=()), distill=None, epochs=1)
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)


def test_teachers_of_other_labels_and_stored_trunks_are_refused(job: TrainJob) -> None:
    with pytest.raises(UserError, match=r"was trained for classification with labels .* the student's are"):
        _run(dataclasses.replace(job, labels=("positive", "negative"), run_rel="runs/e"))
    with pytest.raises(UserError, match=r"trunk\.use=on: train\.distill: teachers read a row's tokens"):
        _run(
            dataclasses.replace(job, run_rel="runs/f"),
            trunk=TrunkConfig(use="on"),
            layers=job.train.layers.model_copy(update={"freeze": 2}),
        )

"""What the loop does when it is told something between two steps, and where a step cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import loss
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.faults import NotFinite, OutOfMemory
from orchestration.training.job import LoopResult
from tests.tiny import make_job

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


def _run(root: Path, run: str, *, ask: dict[str, Any] | None = None, **train: Any) -> tuple[LoopResult, Events]:
    events: Events = []
    return loop.run(make_job(root, run=run, **train), report=events.append, **(ask or {})), events


def _broken(monkeypatch: pytest.MonkeyPatch, calls: set[int], value: Any) -> None:
    """The loss of these calls, counted from 1, is `value`, or raises it."""
    true, made = loss.classification, iter(range(1, 10_000))

    def classification(*arguments: Any) -> Any:
        summed, count = true(*arguments)
        if next(made) not in calls:
            return summed, count
        if isinstance(value, Exception):
            raise value
        return summed * value, count

    monkeypatch.setattr(loss, "classification", classification)


def test_a_preemption_notice_gives_one_checkpoint_at_once_and_training_goes_on(root: Path) -> None:
    result, events = _run(root, "preempted", ask={"preempted": lambda: True})
    saved = [(event["step"], event.get("reason")) for event in events if event["type"] == "checkpoint"]
    assert saved == [(2, "preemption"), (8, None)]  # heard after step 1, acted on by all ranks after step 2
    assert (result.ended, result.steps) == ("finished", 8)


def test_a_checkpoint_is_due_by_the_clock_too(root: Path) -> None:
    _, events = _run(root, "clock", checkpoint={"every_s": 1e-9, "keep": 9})
    assert [event["step"] for event in events if event["type"] == "checkpoint"] == list(range(2, 9))


def test_a_batch_whose_loss_is_not_finite_is_left_out_told_and_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _broken(monkeypatch, {3}, float("nan"))
    result, events = _run(root, "skipped", failures={"not_finite": "skip"})
    [told] = [event["text"] for event in events if event["type"] == "warning"]
    assert told.startswith(
        "step 3: the loss or a gradient is not finite; batch 2 of epoch 0 is left out (1 of at most 3)"
    )
    assert len(told.partition("its rows: ")[2].split(", ")) == 12
    assert (result.steps, len(result.losses)) == (8, 8)
    assert result.losses[2] is None  # nothing was trained since the report before
    reader = checkpoint.open(Storage(str(root)), str(result.last_checkpoint))
    assert set(reader.steps.values()) == {7}
    assert all(torch.isfinite(tensor).all() for tensor in reader.weights().values())


def test_too_many_batches_left_out_end_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _broken(monkeypatch, {2, 3}, float("inf"))
    with pytest.raises(NotFinite, match="step 3: the loss is nan") as caught:
        _run(root, "hopeless", failures={"not_finite": "skip", "attempts": 1})
    assert (caught.value.facts["step"], caught.value.facts["batch"], len(caught.value.facts["rows"])) == (2, 2, 12)


def test_the_first_bad_batch_since_the_last_report_is_named_and_no_checkpoint_is_written_after_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _broken(monkeypatch, {4}, float("nan"))
    with pytest.raises(NotFinite, match=r"step 4: the loss is nan; .*train\.failures\.not_finite") as caught:
        _run(root, "poisoned", report_every=8, checkpoint={"every_steps": 3})
    assert (caught.value.facts["epoch"], caught.value.facts["batch"]) == (0, 3)
    found = checkpoint.newest(Storage(str(root)), "runs/poisoned", print)
    assert found is not None
    assert found.state.step == 3


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_not_saved(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, made = loss.classification, iter(range(1, 10_000))

    def classification(logits_BC: torch.Tensor, *arguments: Any) -> Any:
        summed, count = true(logits_BC, *arguments)
        return (summed + (logits_BC.sum() * 0.0).sqrt() if next(made) == 3 else summed), count

    monkeypatch.setattr(loss, "classification", classification)
    with pytest.raises(NotFinite, match="step 3: the gradient norm is nan") as caught:
        _run(root, "gradient", report_every=8, checkpoint={"every_steps": 3})
    assert caught.value.facts["batch"] == 2
    assert checkpoint.newest(Storage(str(root)), "runs/gradient", print) is None


def test_too_little_memory_is_told_with_the_micro_batch_in_force(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _broken(
        monkeypatch, {3}, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    )
    with pytest.raises(
        OutOfMemory, match=r"step 2: rank 0 has too little memory with train\.micro_batch=6 on cpu"
    ) as caught:
        _run(root, "large", micro_batch=6)
    assert caught.value.facts["micro_batch"] == 6

"""How decisions become acts: a scripted Ray Train, real storage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import trainer
from orchestration.training.interrupt import Interrupted, Interrupts
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.trainer import Workers, _Fit
from tests.unit.training.test_decisions import FULL, NAN, job_of

DONE = "done"
GONE = {"kind": "controller", "text": "it died"}


class Scripted:
    """Ends as it is told, one attempt after the other; keeps the jobs it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: Any, events: Any = ()) -> None:
        self.jobs: list[TrainJob] = []
        self.left: list[int] = []
        script = list(ends)
        outer = self

        class Attempt:
            def __init__(
                self, job: TrainJob, workers: Workers, *, max_failures: int, on_event: Any, **rest: Any
            ) -> None:
                outer.jobs.append(job)
                outer.left.append(max_failures)
                self.on_event = on_event

            def run(self, interrupts: Interrupts) -> Any:
                for event in events:
                    self.on_event(event)
                end = script.pop(0)
                return (_result(outer.jobs[-1]), None) if end == DONE else (None, end)

        monkeypatch.setattr(trainer, "Attempt", Attempt)


def _result(job: TrainJob) -> LoopResult:
    values: dict[str, Any] = dict.fromkeys(f.name for f in dataclasses.fields(LoopResult))
    return LoopResult(**{**values, "run_rel": job.run_rel})


def _run(job: TrainJob, events: list[dict[str, Any]] | None = None, interrupts: Interrupts | None = None) -> LoopResult:
    keep = events if events is not None else []
    workers = Workers(least=2, most=2, need={"CPU": 1.0})
    return _Fit(job, workers, place="x", on_event=keep.append, interrupts=interrupts or Interrupts()).run()


def _job(root: Path, **train: Any) -> TrainJob:
    return dataclasses.replace(job_of(**train), storage_url=str(root))


def test_a_roll_back_goes_on_with_half_the_rate_and_a_resumed_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, events = _job(tmp_path, not_finite="roll_back"), []  # type: ignore[var-annotated]
    script = Scripted(monkeypatch, NAN, NAN, DONE)
    _run(job, events)
    assert [given.lr_scale for given in script.jobs] == [1.0, 0.5, 0.25]
    assert [event["type"] for event in events] == ["decision", "decision"]
    assert events[0]["changes"] == {"lr_scale": 0.5}
    kept = Storage(str(tmp_path)).read_json("runs/one/decisions.json")
    assert [entry["changes"] for entry in kept] == [{"lr_scale": 0.5}, {"lr_scale": 0.25}]
    assert kept[0]["fault"] == NAN

    again = Scripted(monkeypatch, DONE)
    _run(job)
    assert [given.lr_scale for given in again.jobs] == [0.25]


def test_the_micro_batch_gets_smaller_and_the_batch_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(monkeypatch, FULL, {**FULL, "micro_batch": 3}, DONE)
    _run(_job(tmp_path, out_of_memory="smaller_micro_batch"))
    assert [(given.train.micro_batch, given.train.batch) for given in script.jobs] == [(None, 12), (3, 12), (1, 12)]


def test_attempts_are_those_of_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(tmp_path, not_finite="roll_back", attempts=2)
    Scripted(monkeypatch, NAN, NAN, NAN)
    with pytest.raises(UserError, match=r"2 roll-backs .* did not help; .*--resume one"):
        _run(job)
    script = Scripted(monkeypatch, NAN, DONE)  # the user resumed it, and the rate goes on from where it was
    _run(job)
    assert [given.lr_scale for given in script.jobs] == [0.25, 0.125]


def test_a_lost_controller_counts_among_the_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = [{"type": "restart", "text": "worker 1 failed", "failure": True}]
    script = Scripted(monkeypatch, GONE, GONE, events=restarts)
    with pytest.raises(UserError, match=r"it died; train\.max_failures=3 restarts are used up"):
        _run(_job(tmp_path, max_failures=3))
    assert script.left == [3, 1]  # the second controller may restart once more
    assert not Storage(str(tmp_path)).exists("runs/one/decisions.json")  # nothing a resumed run must know


def test_a_sweeps_trial_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, NAN, DONE)
    _run(dataclasses.replace(_job(tmp_path, not_finite="roll_back"), checkpoints=False))
    assert not Storage(str(tmp_path)).list("runs")


def test_a_users_error_keeps_its_words_and_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, {"kind": "user", "text": "no such label", "exit_code": 2})
    with pytest.raises(UserError) as caught:
        _run(_job(tmp_path))
    assert (str(caught.value), caught.value.exit_code) == ("no such label", 2)


def test_after_a_signal_nothing_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in (DONE, GONE):
        Scripted(monkeypatch, end)
        interrupts = Interrupts()
        interrupts.first = 15
        with pytest.raises(Interrupted) as caught:
            _run(_job(tmp_path), interrupts=interrupts)
        assert caught.value.exit_code == 143

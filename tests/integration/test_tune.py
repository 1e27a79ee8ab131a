"""Sweeps on a live Ray: real trials of a two-layer encoder, stopped, failing, and of several workers."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.telemetry import read_events
from orchestration.training.job import TrainJob
from orchestration.tuning import report
from orchestration.tuning.config import TuneConfig
from orchestration.tuning.results import SweepResult, Trial, load
from orchestration.tuning.sweep import sweep
from orchestration.tuning.trial import changed
from tests.tiny import make_job

CLUSTER = {"workers": 1, "cpus_per_worker": 1.0, "gpus_per_worker": None}
DRAWS = 8  # a seed whose random choices of two are 1 0 0 1, as the tests below need them
RATES = {"train.optimizer.lr": {"loguniform": [1e-4, 1e-2]}, "train.layers.freeze": {"choice": [0, 2]}}
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("storage"), epochs=3, validation={"metric": "loss"})


def _sweep(job: TrainJob, sweep_id: str, on_event: Any = lambda event: None, **tune: Any) -> SweepResult:
    config = TuneConfig.model_validate({"metric": "loss", **tune})
    return sweep(
        job, config=config, sweep_id=sweep_id, cluster={**CLUSTER, "workers": config.workers}, on_event=on_event
    )


def _start(job: TrainJob, trial: Trial) -> dict[str, Any]:
    """What a trial tells when its first step begins."""
    events = read_events(Storage(job.storage_url), trial.run_rel)
    return next(event for event in events if event["type"] == "start")


@pytest.fixture(scope="module")
def swept(job: TrainJob) -> tuple[SweepResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    result = _sweep(job, "first", events.append, trials=4, asha=None, space=RATES, fixed={"train.rows": 48})
    return result, events


def test_every_trial_runs_to_its_end_and_the_best_loss_wins(swept: tuple[SweepResult, list[dict[str, Any]]]) -> None:
    result, events = swept
    assert [trial.status for trial in result.trials] == ["finished"] * 4
    assert all(len(trial.history) == 3 for trial in result.trials)
    assert all(trial.metric == min(event["loss"] for event in trial.history) for trial in result.trials)
    assert result.best.metric == min(trial.metric for trial in result.trials if trial.metric is not None)
    assert len({trial.values["train.optimizer.lr"] for trial in result.trials}) == 4
    assert {event["trial"] for event in events} == {trial.id for trial in result.trials}
    assert [event["status"] for event in events].count("finished") == 4


def test_a_trial_gives_what_a_plain_fit_with_its_values_gives(
    job: TrainJob, swept: tuple[SweepResult, list[dict[str, Any]]]
) -> None:
    """The trainer does not know that it is in a sweep, nor that another trial used its process before."""
    from orchestration.training import loop

    trial = swept[0].trials[-1]
    plain = changed(job, {"train.rows": 48, **trial.values}, run_rel="runs/plain", workers=1)
    found = loop.run(plain, report=lambda event: None)
    assert [event["loss"] for event in found.validations] == pytest.approx(
        [event["loss"] for event in trial.history], abs=1e-6
    )


def test_a_sweep_leaves_its_description_its_trials_and_their_events_and_no_checkpoint(
    job: TrainJob, swept: tuple[SweepResult, list[dict[str, Any]]]
) -> None:
    storage, result = Storage(job.storage_url), swept[0]
    assert load(storage, "first").best == result.best
    assert storage.list("sweeps/first") == ["sweep.json", "trials", "trials.json"]
    for trial in result.trials:
        kept = read_events(storage, trial.run_rel)
        assert [event["loss"] for event in kept if event["type"] == "validation"] == [e["loss"] for e in trial.history]
        assert storage.list(trial.run_rel) == ["events.jsonl"]
    assert storage.exists(report.draw(storage, result))
    described = json.loads(Path(storage.path("sweeps/first/sweep.json")).read_text())
    assert (described["best"], described["tune"]["fixed"]) == (result.best_id, {"train.rows": 48})


def test_trials_share_few_processes(swept: tuple[SweepResult, list[dict[str, Any]]], job: TrainJob) -> None:
    """A fresh process a trial would cost its imports again, 10 s."""
    imports = sorted(_start(job, trial)["seconds"]["imports"] for trial in swept[0].trials)
    assert swept[0].concurrent <= 2
    assert all(seconds < 0.5 for seconds in imports[: 4 - swept[0].concurrent])


def test_asha_ends_poor_trials_early_and_their_process_serves_the_next(job: TrainJob) -> None:
    long = dataclasses.replace(job, seed=DRAWS, train=job.train.model_copy(update={"epochs": 9}))
    space = {"train.optimizer.lr": {"choice": [1e-7, 5e-3]}}
    asha = {"grace": 4, "reduction": 2}  # validations: a good rate needs four to show
    result = _sweep(long, "asha", trials=4, concurrent=1, search="random", space=space, asha=asha)
    drawn = [(trial.values["train.optimizer.lr"], trial.status, len(trial.history)) for trial in result.trials]
    assert drawn[:3] == [(5e-3, "finished", 9), (1e-7, "stopped", 4), (1e-7, "stopped", 4)]
    assert drawn[3][0] == 5e-3
    assert result.best.values["train.optimizer.lr"] == 5e-3
    assert all(_start(long, trial)["seconds"]["imports"] < 0.5 for trial in result.trials[1:])


def test_a_failing_trial_is_told_and_the_others_go_on(job: TrainJob) -> None:
    space = {"train.rows": {"choice": [24, 5000]}}
    result = _sweep(dataclasses.replace(job, seed=DRAWS), "partly", trials=2, search="random", asha=None, space=space)
    told = "5000 rows are wanted of split 'train', which has 90; ask for fewer or none"
    ends = {trial.values["train.rows"]: (trial.status, trial.error) for trial in result.trials}
    assert ends == {5000: ("failed", told), 24: ("finished", None)}
    assert result.best.values == {"train.rows": 24}


def test_a_sweep_of_failures_ends_with_the_first_ones_error(job: TrainJob) -> None:
    told = r"all 2 trials of the sweep failed; the first, .*make no valid train part: .*above batch=12"
    with pytest.raises(UserError, match=re.compile(told, re.DOTALL)):
        _sweep(job, "failures", trials=2, space=RATES, fixed={"train.micro_batch": 5000})
    trials = Storage(job.storage_url).read_json("sweeps/failures/trials.json")
    assert [trial["status"] for trial in trials] == ["failed", "failed"]


def test_trials_of_several_workers_train_through_ray_train_and_score_as_one_worker_would(job: TrainJob) -> None:
    from orchestration.training import loop

    result = _sweep(job, "wide", trials=1, workers=2, space={"train.optimizer.lr": {"choice": [2e-3]}})
    assert result.best.status == "finished"
    plain = changed(job, result.best.values, run_rel="runs/alone", workers=1)
    found = loop.run(plain, report=lambda event: None)
    # Two ranks add their gradients in another order than one: a difference of rounding, fp32.
    assert [event["loss"] for event in result.best.history] == pytest.approx(
        [event["loss"] for event in found.validations], abs=1e-5
    )

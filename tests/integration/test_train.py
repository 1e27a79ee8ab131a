"""A fit on two Ray Train workers: events while it runs, a lost worker, a user's mistake, a cluster that is too small."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.trainer import fit
from tests import faulty
from tests.tiny import make_job

CLUSTER = {"workers": 2, "cpus_per_worker": 1.0, "gpus_per_worker": None, "embedded": True}
Events = list[dict[str, Any]]
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


def _job(root: Path, run: str) -> TrainJob:
    """240 steps with dropout at stage 2: long enough to be shot at."""
    saves = {"every_steps": 10, "keep": 2}
    validation = {"every_steps": 40}
    return make_job(
        root,
        run=run,
        world=2,
        dropout=0.1,
        epochs=30,
        report_every=5,
        zero={"stage": 2},
        checkpoint=saves,
        validation=validation,
    )


@pytest.fixture(scope="module")
def unbroken(root: Path) -> tuple[LoopResult, Events]:
    events: Events = []
    return fit(_job(root, "unbroken"), cluster=CLUSTER, on_event=events.append), events


def test_events_come_in_order_and_the_result_names_checkpoints_that_are_whole(
    root: Path, unbroken: tuple[LoopResult, Events]
) -> None:
    result, events = unbroken
    assert events[0]["type"] == "start"
    assert (events[0]["world"], events[0]["zero_stage"], events[0]["rows"]) == (2, 2, 90)
    steps = [event["step"] for event in events if event["type"] == "step"]
    assert steps == list(range(5, 241, 5))
    assert (result.ended, result.steps, result.world) == ("finished", 240, 2)
    assert [event for event in events if event["type"] in ("step", "validation")] == result.history
    assert result.losses[-1] < result.losses[0] - 0.1
    storage = Storage(str(root))
    for rel in (result.best_checkpoint, result.last_checkpoint):
        assert rel is not None
        checkpoint.verify(storage, rel)
    assert len(checkpoint.open(storage, str(result.last_checkpoint)).weights()) > 30
    assert storage.list("runs/unbroken") == ["attempts", "checkpoints"]  # nothing of Ray's own stays


def test_a_killed_worker_is_replaced_and_the_losses_are_those_of_the_unbroken_run(
    root: Path, unbroken: tuple[LoopResult, Events]
) -> None:
    events: Events = []
    killed: list[int] = []

    def shoot(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "checkpoint" and not killed:
            victim = _workers()[-1]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    result = fit(_job(root, "shot"), cluster=CLUSTER, on_event=shoot)
    starts = [event for event in events if event["type"] == "start"]
    assert len(starts) == 2
    assert starts[0]["resumed_from"] is None
    assert 0 < starts[1]["step"] < 240
    assert starts[1]["resumed_from"] == checkpoint.name("runs/shot", starts[1]["step"], 1)
    assert result.losses == pytest.approx(unbroken[0].losses, abs=1e-6)
    assert [event["loss"] for event in result.validations] == pytest.approx(
        [event["loss"] for event in unbroken[0].validations], abs=1e-6
    )


def _workers() -> list[psutil.Process]:
    """The training workers of this session's own Ray, which lies below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "TrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    assert len(found) == 2, found
    return found


def test_what_ray_cannot_know_is_decided_by_the_driver_and_kept_for_a_resumed_run(root: Path) -> None:
    """Memory runs out with the spec's micro-batch, later a weight becomes NaN; no worker group is started in vain."""
    events: Events = []
    job = make_job(
        root,
        run="troubled",
        world=2,
        epochs=6,
        report_every=1,
        checkpoint={"every_steps": 10},
        validation={"every_steps": 24},
        failures={"not_finite": "roll_back", "out_of_memory": "smaller_micro_batch"},
    )
    with faulty.installed([{"step": 3, "do": "full", "rows": 3}, {"step": 26, "do": "nan"}]):
        result = fit(job, cluster=CLUSTER, on_event=events.append)
    told = [event for event in events if event["type"] in ("start", "decision", "restart")]
    assert [event["type"] for event in told] == ["start", "decision", "start", "decision", "start"]
    memory, numbers = told[1], told[3]
    assert memory["changes"] == {"micro_batch": 3}
    assert memory["text"].endswith(
        "going on from the newest checkpoint with train.micro_batch=3 instead of 6 and the same batch of 12 (1 of train.failures.attempts=3)"
    )
    assert numbers["changes"] == {"lr_scale": 0.5}
    assert numbers["text"] == (
        "step 27: the loss is nan; going back to the newest checkpoint with half the rate, 0.001 (1 of train.failures.attempts=3)"
    )
    assert told[4]["resumed_from"] == checkpoint.name("runs/troubled", 24, 2)
    assert (result.ended, result.steps) == ("finished", 48)
    assert all(set(rows.values()) == {1} and len(rows) == 90 for rows in faulty.epochs(root, "troubled").values())
    kept = Storage(str(root)).read_json("runs/troubled/decisions.json")
    assert [(entry["fault"]["kind"], entry["changes"]) for entry in kept] == [
        ("out_of_memory", {"micro_batch": 3}),
        ("not_finite", {"lr_scale": 0.5}),
    ]


def test_a_users_mistake_comes_back_in_the_workers_own_words_and_is_not_tried_again(root: Path) -> None:
    events: Events = []
    job = dataclasses.replace(_job(root, "mistaken"), labels=("good", "bad"))
    with pytest.raises(UserError) as caught:
        fit(job, cluster=CLUSTER, on_event=events.append)
    assert str(caught.value) == (
        "data.labels is ['good', 'bad'], but the store stores/tiny has ['negative', 'positive']; prepare again"
    )
    assert caught.value.exit_code == 1
    assert not events  # no group got as far as a start


def test_more_workers_than_the_cluster_holds_are_refused_at_once(root: Path) -> None:
    job = _job(root, "large")  # writes model and store where this test runs alone: 8 s that are not the refusal's
    began = time.monotonic()
    with pytest.raises(
        UserError,
        match=r"cluster\.workers=1000 need 1 CPU each, .*\d+ CPU.*; lower cluster\.workers or cluster\.cpus_per_worker",
    ):
        fit(job, cluster={**CLUSTER, "workers": 1000})
    with pytest.raises(
        UserError,
        match=r"cluster\.workers=2 need 1 CPU and 2 GPU each, .*0 GPU.* hold 0 such workers; .*cluster\.gpus_per_worker",
    ):
        fit(job, cluster={**CLUSTER, "gpus_per_worker": 2})
    assert time.monotonic() - began < 5.0

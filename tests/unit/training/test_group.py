"""What is told of a worker group's life, and when it ends: Ray Train's controller by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller import state
from ray.train.v2._internal.execution.preemption import PreemptionInfo
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus
from ray.train.v2._internal.execution.worker_group.poll import WorkerStatus
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

from orchestration.training.faults import NotFinite
from orchestration.training.group import Decide, Watcher


class Relay:
    """Keeps what is pushed."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.push = SimpleNamespace(remote=self.events.append)


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def watcher(told: list[dict[str, Any]]) -> Watcher:
    relay = Relay()
    relay.push = SimpleNamespace(remote=told.append)
    return Watcher(relay, max_failures=2)


def _lost(*ranks: int) -> state.RestartingState:
    return state.RestartingState(
        training_failed_error=WorkerGroupError("", {rank: RuntimeError("gone") for rank in ranks})
    )


def _no_start(error: Exception) -> state.ReschedulingState:
    return state.ReschedulingState(training_failed_error=ControllerError(error))


def test_a_restart_says_who_failed_and_how_often_it_may_happen(watcher: Watcher, told: list[dict[str, Any]]) -> None:
    watcher.after_controller_state_update(state.RunningState(), _lost(1))
    watcher.after_controller_state_update(state.RunningState(), _lost(0, 1))
    assert [event["text"] for event in told] == [
        "worker 1 failed: RuntimeError: gone; starting the workers again, 1 of train.max_failures=2",
        "worker 0 failed (and 1 more): RuntimeError: gone; starting the workers again, 2 of train.max_failures=2",
    ]
    assert all(event["failure"] for event in told)


def test_waiting_for_room_is_told_once_and_is_no_failure(watcher: Watcher, told: list[dict[str, Any]]) -> None:
    same = _lost(1)
    watcher.after_controller_state_update(state.RunningState(), same)
    for _ in range(5):
        watcher.after_controller_state_update(same, same)  # an elastic group looks again and again
        watcher.after_controller_state_update(state.SchedulingState(None), _no_start(WorkerGroupStartupTimeoutError(2)))
    assert [event["type"] for event in told] == ["restart", "waiting"]


def test_workers_that_die_while_they_start_are_failures(watcher: Watcher, told: list[dict[str, Any]]) -> None:
    dies = _no_start(WorkerGroupStartupFailedError("no such interpreter"))
    for _ in range(2):
        watcher.after_controller_state_update(state.SchedulingState(None), dies)
    assert told[1]["text"].endswith("no such interpreter; starting the workers again, 2 of train.max_failures=2")
    with pytest.raises(Decide) as ended:
        watcher.after_controller_state_update(state.SchedulingState(None), dies)
    assert ended.value.fault == {"kind": "restarts", "text": "a worker died while it started: no such interpreter"}


def test_a_preemption_is_told_and_its_restart_is_no_failure(watcher: Watcher, told: list[dict[str, Any]]) -> None:
    info = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"n": [1]})
    first, then = (state.PreemptingState(preemption_info=info, detected_at_s=0.0) for _ in range(2))
    watcher.after_controller_state_update(state.RunningState(), first)
    watcher.after_controller_state_update(first, then)
    watcher.after_controller_state_update(then, state.RestartingState(training_failed_error=PreemptionError(info)))
    assert [event["type"] for event in told] == ["preemption", "restart"]
    assert told[0]["text"] == "a node with 1 worker will be taken away soon"
    assert "failure" not in told[1]


def test_what_the_driver_must_decide_ends_the_group_at_once(watcher: Watcher) -> None:
    def polled(error: Exception | None) -> WorkerGroupPollStatus:
        return WorkerGroupPollStatus(
            worker_statuses={0: WorkerStatus(running=True), 1: WorkerStatus(running=False, error=error)}
        )

    watcher.after_worker_group_poll_status(polled(None))
    watcher.after_worker_group_poll_status(polled(RuntimeError("Ray Train starts it again")))
    with pytest.raises(Decide) as ended:
        watcher.after_worker_group_poll_status(polled(NotFinite("the loss is nan", step=3)))
    assert ended.value.fault == {"kind": "not_finite", "text": "the loss is nan", "step": 3, "rank": 1}

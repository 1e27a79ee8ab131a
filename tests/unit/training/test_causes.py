"""Which of a group's errors are the driver's to decide about."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from orchestration.errors import UserError
from orchestration.training.causes import fault, line
from orchestration.training.faults import NotFinite, OutOfMemory, StaleWriter


class Died(Exception):
    """As Ray tells of a dead actor."""


Died.__module__ = "ray.exceptions"


class HealthCheck(Exception):
    """As Ray Train wraps it."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(f"A worker health check failed.\n{failure}")
        self.health_check_failure = failure


HealthCheck.__module__ = "ray.train.v2._internal.exceptions"
KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n\tpid: 12\nThe actor is dead because its worker"
    " process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of"
    " file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)
MONITOR = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.1) was 22.8GB / 24.0GB (0.95), which exceeds the"
    " memory usage threshold of 0.95. Ray killed this worker because it was the most recently scheduled task"
)


def _out_of_memory(text: str, module: str) -> Exception:
    return type("OutOfMemoryError", (Exception,), {"__module__": module})(text)


TABLE: dict[str, tuple[dict[int, BaseException], dict[str, Any] | None]] = {
    "a killed process": ({1: HealthCheck(Died(KILLED))}, None),
    "an error of ours": ({0: RuntimeError("shape mismatch")}, None),
    "a lost peer": ({0: RuntimeError("Connection closed by peer"), 1: HealthCheck(Died(KILLED))}, None),
    "a user's error": ({0: UserError("no such label")}, {"kind": "user", "text": "no such label", "exit_code": 1}),
    "NaN": ({0: NotFinite("nan", step=3), 1: NotFinite("nan", step=3)}, {"kind": "not_finite", "step": 3, "rank": 0}),
    "a GPU's memory": ({1: OutOfMemory("full", micro_batch=4)}, {"kind": "out_of_memory", "micro_batch": 4, "rank": 1}),
    "torch's own": ({0: _out_of_memory("CUDA out of memory. Tried", "torch")}, {"kind": "out_of_memory"}),
    "python's own": ({0: MemoryError()}, {"kind": "out_of_memory"}),
    "Ray's monitor, an actor": ({1: HealthCheck(Died(MONITOR))}, {"kind": "out_of_memory", "rank": 1}),
    "Ray's monitor, by class": ({1: HealthCheck(_out_of_memory(MONITOR, "ray.exceptions"))}, {"kind": "out_of_memory"}),
    "words of a worker's own": ({0: RuntimeError("running low on memory of the past")}, None),
    "a full disk": ({0: OSError(errno.ENOSPC, "No space left on device", "/x")}, {"kind": "disk_full"}),
    "another error of files": ({0: OSError(errno.EIO, "Input/output error")}, None),
    "a newer attempt": ({0: StaleWriter("2 began", attempt=1, newest=2)}, {"kind": "stale_writer"}),
    "the cause before its consequence": ({0: NotFinite("nan"), 1: OutOfMemory("full")}, {"kind": "out_of_memory"}),
    "a wrong spec before all": ({0: OutOfMemory("full"), 1: UserError("wrong")}, {"kind": "user"}),
}


@pytest.mark.parametrize("case", TABLE)
def test_each_error_is_somebodys(case: str) -> None:
    errors, wanted = TABLE[case]
    found = fault(errors)
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert {**found, **wanted} == found


def test_a_dead_worker_is_told_in_a_line() -> None:
    told = line(HealthCheck(Died(KILLED)))
    assert told.startswith("its worker process has died. Worker exit type: SYSTEM_ERROR")
    assert "common causes" not in told
    assert line(RuntimeError("first\nlast")) == "RuntimeError: last"

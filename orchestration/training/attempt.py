"""One run of Ray Train's trainer, from its controller's start to its end. Takes the job as it is in force; gives the LoopResult, or the
fault it ended with. Called by `trainer`, which decides what comes after. Whatever the end, nothing of it stays: controller, workers,
placement group, relay."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from orchestration.training import causes
from orchestration.training.interrupt import Interrupts
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.relay import Forward, start

LOOK_S = 0.1
NO_ROOM_S = 900.0  # without a group: longer than a cloud takes to start a machine
START_S = 15  # for the workers of a group to find their places; then Ray Train asks anew how many there is room for
PEER_S = 15  # the ranks that wait for one that hangs end by their own watch; this is for those that cannot
Ended = tuple[LoopResult | None, dict[str, Any] | None]


class Attempt:
    def __init__(
        self,
        job: TrainJob,
        workers: Any,
        *,
        place: str,
        max_failures: int,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        self.job, self.workers, self.place = job, workers, place
        self.max_failures, self.on_event = max_failures, on_event
        self.waits_since: float | None = time.monotonic()
        self.relay: Any = None
        self._returned: Any = None
        self._error: BaseException | None = None

    def run(self, interrupts: Interrupts) -> Ended:
        """Blocks. Raises what `on_event` raised."""
        self.relay = start()
        thread = threading.Thread(target=self._fit, name="fit", daemon=True)  # Ray Train keeps SIGINT in a main thread
        try:
            with (
                _environment(self.job, embedded=self.workers.embedded),
                _quiet(),
                Forward(self.relay, self._seen) as forward,
            ):
                thread.start()
                fault = self._wait(thread, forward, interrupts)
            return (None, fault) if fault else self._ended()
        finally:
            self._clear(thread)

    def _wait(self, thread: threading.Thread, forward: Forward, interrupts: Interrupts) -> dict[str, Any] | None:
        """Until Ray Train is through, the user wants no more, or there is no room for too long."""
        told = False
        while thread.is_alive():
            thread.join(LOOK_S)
            if interrupts.first is not None and not told:
                told = True
                forward.stop()
                self.on_event(
                    {
                        "type": "stop",
                        "text": f"stopping with a checkpoint, within {interrupts.grace_s:g} s; again: at once",
                    }
                )
            if interrupts.at_once:
                return {"kind": "interrupted", "text": "stopped at once"}
            if self.waits_since is not None and time.monotonic() - self.waits_since > NO_ROOM_S:
                return self._no_room()
        return None

    def _seen(self, event: dict[str, Any]) -> None:
        if event["type"] == "workers":
            self.waits_since = None  # the loop's own start event tells of them
            return
        if event["type"] == "restart":
            self.waits_since = time.monotonic()
        self.on_event(event)

    # ---------------------------------------------------------------------------------------------- Ray Train

    def _fit(self) -> None:
        try:
            self._returned = self._trainer().fit().return_value
        except BaseException as error:
            self._error = error

    def _trainer(self) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig

        from orchestration.training import worker
        from orchestration.training.group import Trainer, Watcher

        least, most = self.workers.least, self.workers.most
        gpus = "GPU" in self.workers.need
        return Trainer(
            worker.run,
            train_loop_config={"job": self.job, "relay": self.relay},
            torch_config=TorchConfig(
                backend="nccl" if gpus else "gloo",
                timeout_s=math.ceil(self.job.train.failures.hang_timeout_s) + PEER_S,
            ),
            scaling_config=ScalingConfig(
                num_workers=most if least == most else (least, most),
                use_gpu=gpus,
                resources_per_worker=self.workers.need,
                elastic_resize_monitor_interval_s=self.workers.look_s,
            ),
            run_config=RunConfig(
                name=f"fit-{uuid.uuid4().hex[:12]}",  # a name seen before would silently resume Ray's own state
                storage_path=self.place,
                # a start that fails is tried again for as long as `_no_room` allows
                failure_config=FailureConfig(max_failures=self.max_failures, controller_failure_limit=1000),
                callbacks=[Watcher(self.relay, max_failures=self.max_failures)],
            ),
        )

    def _ended(self) -> Ended:
        error = self._error
        if error is None:
            return LoopResult(**self._returned), None
        inner: Any = getattr(error, "controller_failure", None)
        if hasattr(inner, "fault"):  # group.Decide
            return None, inner.fault
        if failures := getattr(error, "worker_failures", None):
            rank, first = min(failures.items())
            return None, {"kind": "restarts", "text": f"worker {rank}: {causes.line(first)}"}
        if type(error).__module__.startswith("ray."):
            what = "Ray Train's controller failed" if inner else "Ray Train's controller died"
            return None, {"kind": "controller", "text": f"{what} ({causes.line(inner or error)})"}
        raise error

    def _no_room(self) -> dict[str, Any]:
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.workers.need.items())
        least = self.workers.least
        return {"kind": "no_room", "text": f"the cluster had no room for {least} workers of {each} for {NO_ROOM_S:g} s"}

    # ---------------------------------------------------------------------------------------------- the end

    def _clear(self, thread: threading.Thread) -> None:
        """A controller that ended in order has taken all down. One that died has not: Ray frees the placement group of a dead actor only
        with its driver, and keeps its CPUs until then."""
        import ray
        from ray.util import remove_placement_group

        with contextlib.suppress(ray.exceptions.RayError):
            group = ray.get(self.relay.group.remote(), timeout=10.0)
            if "controller" in group:
                ray.kill(group["controller"])
            if (thread.is_alive() or self._error is not None) and "placement_group" in group:
                remove_placement_group(group["placement_group"])
        thread.join(10.0)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self.relay)


@contextlib.contextmanager
def _environment(job: TrainJob, *, embedded: bool) -> Iterator[None]:
    """What Ray Train reads from the driver's environment; what the user has set stays."""
    values = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a dead worker is seen in 0.5 s, not 2 s
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": f"{job.train.failures.hang_timeout_s:g}",  # a process that stands still as a whole
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_S),
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        # nobody takes a node from a Ray that we started in this machine, and the watcher is one more process a group
        **({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"} if embedded else {}),
    }
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Train's own progress lines, which repeat ours."""
    loggers = [logging.getLogger(name) for name in ("ray.train", "ray.train.v2")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

"""A fit on many workers. Takes a TrainJob and the workers' resources; gives the LoopResult, with the loop's events handed to
`on_event` in this process as they come. Called by the driver inside a Ray session, and by trials of several workers.

Ray Train restarts a group that lost a worker; the loop in it resumes from the newest whole checkpoint by itself. Events and
results do not go through `ray.train.report`, which is a barrier over the ranks of about two seconds: rank 0 tells a small actor,
and a thread here asks it. A user's error (wrong data, NaN) is not retried: the group's next start sees it noted and ends."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training.job import LoopResult, TrainJob

POLL_S = 0.5
REFUSAL_S = 5.0
OnEvent = Callable[[dict[str, Any]], None]


class Relay:
    """The actor between rank 0 and the driver: events not yet fetched, the result, and the first error that must not be retried."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._result: dict[str, Any] | None = None
        self._fatal: tuple[int, str] | None = None
        self._refusals = 0  # ranks that met an error of the user's
        self._cancelled = False

    def push(self, event: dict[str, Any]) -> None:
        self._events.append(event)

    def drain(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def finish(self, result: dict[str, Any]) -> None:
        self._result = result

    def fail(self, exit_code: int, text: str) -> None:
        self._fatal = self._fatal or (exit_code, text)
        self._refusals += 1

    def refusals(self) -> int:
        return self._refusals

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def outcome(self) -> tuple[dict[str, Any] | None, tuple[int, str] | None]:
        return self._result, self._fatal


def fit(job: TrainJob, *, cluster: dict[str, Any], on_event: OnEvent = lambda event: None) -> LoopResult:
    """Train `job` on `cluster["workers"]` workers of `cpus_per_worker` and `gpus_per_worker`; blocks.

    Raises UserError where the cluster cannot hold the workers, with a worker's own words where one refused, or after
    `train.max_failures` restarts.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a dead worker is seen in 0.5 s, not 2 s
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    workers, gpus = int(cluster["workers"]), float(cluster.get("gpus_per_worker") or 0.0)
    need = {"CPU": float(cluster["cpus_per_worker"]), **({"GPU": gpus} if gpus else {})}
    _refuse_too_large([node["Resources"] for node in ray.nodes() if node["Alive"]], need, workers)
    threads = max(1, int(cluster["cpus_per_worker"]))
    job = dataclasses.replace(job, world=workers, threads=threads, device="cuda" if gpus else "cpu")
    relay = ray.remote(num_cpus=0)(Relay).remote()
    storage = Storage(job.storage_url)
    place = f"{job.run_rel}/ray"
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "relay": relay},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker=need),
        run_config=RunConfig(
            name=f"fit-{uuid.uuid4().hex[:12]}",  # a name seen before would silently resume Ray's own state
            storage_path=storage.path(place),
            failure_config=FailureConfig(max_failures=job.train.max_failures, controller_failure_limit=1),
        ),
    )
    try:
        with _forwarding(relay, on_event), _quiet(), _own_interrupt():
            trainer.fit()
    except TrainingFailedError as error:
        _, fatal = ray.get(relay.outcome.remote())
        raise _refused(fatal) if fatal else UserError(_told(error, job)) from error
    finally:
        storage.remove(place)
    result, fatal = ray.get(relay.outcome.remote())
    ray.kill(relay)
    if fatal:
        raise _refused(fatal)
    if result is None:
        raise UserError(f"the worker group of {job.run_rel} ended without a result; see the workers' log above")
    return LoopResult(**result)


def _worker(config: dict[str, Any]) -> None:
    """Runs in each worker, in a thread of Ray Train's."""
    import ray
    from ray import train

    relay, context = config["relay"], train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if ray.get(relay.outcome.remote())[1]:
        return  # an error that a restart cannot mend: every rank ends here, none waits for another
    from orchestration.training import loop

    try:
        stop = (lambda: ray.get(relay.cancelled.remote())) if rank == 0 else None
        result = loop.run(config["job"], rank=rank, world=world, report=relay.push.remote, stop=stop)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is not None:
            ray.get(relay.fail.remote(code, str(error)))
            if _all_refuse(relay, world):
                return  # no rank waits for another: the group ends as it is, without a restart
        raise
    if rank == 0:
        ray.get(relay.finish.remote(result.dump()))


def _all_refuse(relay: Any, world: int) -> bool:
    """Whether every rank has met an error of the user's, as with a wrong model or store, within REFUSAL_S."""
    import ray

    end = time.monotonic() + REFUSAL_S
    while time.monotonic() < end:
        if ray.get(relay.refusals.remote()) >= world:
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def _forwarding(relay: Any, on_event: OnEvent) -> Iterator[None]:
    """Hand the actor's events to `on_event`, in order, from a thread of this process; the last ones before the block ends. Where it
    raises (a sweep ends a trial), the workers stop at their next report, and the block ends with what it raised."""
    import ray

    done = threading.Event()
    failed: list[BaseException] = []

    def forward() -> None:
        while not failed:
            last = done.wait(POLL_S)
            try:
                for event in ray.get(relay.drain.remote()):
                    on_event(event)
            except BaseException as error:  # told below, in the caller's thread
                failed.append(error)
                ray.get(relay.cancel.remote())
            if last:
                return

    thread = threading.Thread(target=forward, name="fit-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]


def _refuse_too_large(nodes: list[dict[str, float]], need: dict[str, float], workers: int) -> None:
    """Ray Train would wait for ever for workers that no set of nodes can hold."""
    room = sum(min(int(node.get(name, 0.0) / amount) for name, amount in need.items()) for node in nodes)
    if room >= workers:
        return
    each = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
    found = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in need) for node in nodes)
    raise UserError(
        f"cluster.workers={workers} need {each} each, and the cluster's {len(nodes)} nodes ({found}) hold {room} such workers;"
        f" lower cluster.workers or {' or '.join(f'cluster.{name.lower()}s_per_worker' for name in need)}"
    )


def _refused(fatal: tuple[int, str]) -> UserError:
    error = UserError(fatal[1])
    error.exit_code = fatal[0]
    return error


def _told(error: Exception, job: TrainJob) -> str:
    """The first worker's own last line, and where to go on."""
    failures = getattr(error, "worker_failures", None) or {}
    first = next(iter(sorted(failures.items())), None)
    text = f"worker {first[0]}: {first[1]}" if first else str(error)
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (
        f"training failed after train.max_failures={job.train.max_failures} restarts: {lines[0]}"
        f"{' ... ' + lines[-1] if len(lines) > 1 else ''}; go on from the newest checkpoint with --resume {job.run_rel.rpartition('/')[2]}"
    )


@contextlib.contextmanager
def _own_interrupt() -> Iterator[None]:
    """Ray Train takes SIGINT for itself, ends the process with it and keeps the handler afterwards. Here Ctrl-C stays
    KeyboardInterrupt, so that the caller's own ending runs."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


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

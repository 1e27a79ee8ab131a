"""A fit on many workers. Takes a TrainJob and the workers' resources; gives the LoopResult, with the loop's events handed to
`on_event` in this process as they come. Called by the driver inside a Ray session, and by trials of several workers.

One master for each failure: Ray Train starts a group again that lost a worker, and makes it smaller or larger (`group` watches it);
the loop in it resumes from the newest whole checkpoint by itself. What Ray cannot know comes out of its controller as a fault;
`decisions` says what to do, and `fit` carries it out here and nowhere else: it keeps the decision in `runs/<id>/decisions.json`, where a
resumed run finds it, and runs Ray Train again with the changed job."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training.attempt import Attempt
from orchestration.training.decisions import Stop, changed, decide
from orchestration.training.interrupt import Interrupted, Interrupts
from orchestration.training.job import LoopResult, TrainJob

DECISIONS = "decisions.json"
OnEvent = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Workers:
    """How many, and what each needs. `look_s`: between looks at whether there is room for more. `embedded`: Ray was started for this
    command, in this machine."""

    least: int
    most: int
    need: dict[str, float]
    look_s: float = 60.0
    embedded: bool = False

    @staticmethod
    def of(cluster: dict[str, Any]) -> Workers:
        most, gpus = int(cluster["workers"]), float(cluster.get("gpus_per_worker") or 0.0)
        need = {"CPU": float(cluster["cpus_per_worker"]), **({"GPU": gpus} if gpus else {})}
        return Workers(
            least=int(cluster.get("least_workers") or most),
            most=most,
            need=need,
            look_s=float(cluster.get("look_s") or 60.0),
            embedded=bool(cluster.get("embedded")),
        )


def fit(job: TrainJob, *, cluster: dict[str, Any], on_event: OnEvent = lambda event: None) -> LoopResult:
    """Train `job` on `cluster["workers"]` workers of `cpus_per_worker` and `gpus_per_worker` (from `least_workers` on where that is given);
    blocks.

    Raises UserError where the cluster cannot hold the workers, with a worker's own words where one refused, or where a decision is to
    stop; Interrupted (a KeyboardInterrupt) after SIGINT or SIGTERM, with a checkpoint where there was time for one.
    """
    import ray

    workers = Workers.of(cluster)
    _refuse_too_large([node["Resources"] for node in ray.nodes() if node["Alive"]], workers)
    job = dataclasses.replace(
        job,
        world=workers.most,
        threads=max(1, int(workers.need["CPU"])),
        device="cuda" if "GPU" in workers.need else "cpu",
    )
    with Interrupts() as interrupts, _own_state(job) as place:
        return _Fit(job, workers, place=place, on_event=on_event, interrupts=interrupts).run()


class _Fit:
    """All attempts of one command at one run."""

    def __init__(
        self, job: TrainJob, workers: Workers, *, place: str, on_event: OnEvent, interrupts: Interrupts
    ) -> None:
        self.workers, self.place, self.on_event, self.interrupts = workers, place, on_event, interrupts
        self.storage = Storage(job.storage_url)
        self.kept: list[dict[str, Any]] = self._kept(job)
        for decision in self.kept:
            job = changed(job, decision["changes"])
        self.job = job
        self.history: list[dict[str, Any]] = []
        self.failures = 0

    def run(self) -> LoopResult:
        while True:
            attempt = Attempt(
                self.job,
                self.workers,
                place=self.place,
                max_failures=max(0, self.job.train.max_failures - self.failures),
                on_event=self._seen,
            )
            result, fault = attempt.run(self.interrupts)
            if self.interrupts.first is not None:
                raise Interrupted(self.interrupts.first)
            if result is not None:
                return result
            self._carry_out(fault or {"kind": "controller", "text": "the worker group ended without a result"})

    def _seen(self, event: dict[str, Any]) -> None:
        if event.get("failure"):
            self.failures += 1
        self.on_event(event)

    def _carry_out(self, fault: dict[str, Any]) -> None:
        """The one place where a decision becomes an act."""
        self.history.append(fault)
        self.failures += fault["kind"] == "controller"
        decision = decide(self.history, self.job, failures=self.failures)
        if isinstance(decision, Stop):
            error = UserError(decision.text)
            error.exit_code = decision.exit_code
            raise error
        self.job = changed(self.job, decision.changes)
        if decision.changes and self.job.checkpoints:
            self.kept.append(
                {"time": round(time.time(), 3), "fault": fault, "text": decision.text, "changes": decision.changes}
            )
            self.storage.write_json(f"{self.job.run_rel}/{DECISIONS}", self.kept)
        self.on_event({"type": "decision", "text": decision.text, "kind": fault["kind"], "changes": decision.changes})

    def _kept(self, job: TrainJob) -> list[dict[str, Any]]:
        if not job.checkpoints:
            return []
        try:
            return self.storage.read_json(f"{job.run_rel}/{DECISIONS}")
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _own_state(job: TrainJob) -> Iterator[str]:
    """Where Ray Train keeps files of its own, which nobody reads: gone after the fit, and those of a driver that was killed before it."""
    storage, place = Storage(job.storage_url), f"{job.run_rel}/ray"
    storage.remove(place)
    try:
        yield storage.path(place)
    finally:
        storage.remove(place)


def _refuse_too_large(nodes: list[dict[str, float]], workers: Workers) -> None:
    """Ray Train would wait for workers that no set of nodes can hold."""
    room = sum(min(int(node.get(name, 0.0) / amount) for name, amount in workers.need.items()) for node in nodes)
    if room >= workers.least:
        return
    each = " and ".join(f"{amount:g} {name}" for name, amount in workers.need.items())
    found = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in workers.need) for node in nodes)
    key = "cluster.workers" if workers.least == workers.most else "cluster.workers.min"
    raise UserError(
        f"{key}={workers.least} need {each} each, and the cluster's {len(nodes)} nodes ({found}) hold {room} such workers;"
        f" lower {key} or {' or '.join(f'cluster.{name.lower()}s_per_worker' for name in workers.need)}"
    )

"""Our side of `training`, served as the peers are: a process that is told which fits to run. One worker runs the loop in this process;
several run by `trainer.fit` in a Ray session that begins with the first such fit and ends with the process, as in a driver that
fits more than once.

`python -m benchmarks._training_ours`; a piece of work is a TrainJob's values."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from typing import Any

from benchmarks._peers import PEERS
from benchmarks._training_inputs import our_job


class Events:
    """The fit's events in order, each with the time at which this process heard of it. `kill_at`: the step upon which the process of
    rank 0 is killed, once."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.told: list[dict[str, Any]] = []
        self.kill_at = kill_at

    def __call__(self, event: dict[str, Any]) -> None:
        self.told.append({**event, "at": time.time(), "cpu": time.process_time()})
        if self.kill_at is not None and event["type"] == "step" and event["step"] >= self.kill_at:
            self.kill_at = None
            os.kill([one["pid"] for one in self.told if one["type"] == "start"][-1], signal.SIGKILL)
            self.told.append({"type": "killed", "at": time.time()})


def work(
    sessions: Sessions, *, job: dict[str, Any] | None = None, kill_at: int | None = None, matmul: bool = False
) -> dict[str, Any]:
    """A fit's `events`, the loop's `result`, and when it was `called`; or what matrix products reach in this process."""
    if matmul or job is None:
        from orchestration.training.flops import matmul_rate

        matmul_rate.cache_clear()  # anew each time: the machine's rate moves
        return {"per_s": matmul_rate(1)}
    told, fit = Events(kill_at), our_job(job)
    if fit.world > 1:
        cluster = sessions.cluster(fit)
        called = time.time()
        from orchestration.training import trainer

        result = trainer.fit(fit, cluster=cluster, on_event=told)
    else:
        called = time.time()
        from orchestration.training import loop

        result = loop.run(fit, report=told)
    return {"called": called, "events": told.told, "result": result.dump()}


class Sessions:
    """At most one Ray, from the first fit that needs it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack, self.known = stack, {}

    def cluster(self, job: Any) -> dict[str, Any]:
        """What `trainer.fit` is told about the workers; the first call's job fixes Ray's size and what its workers have imported, as the
        command does it."""
        from cluster.config import ClusterConfig
        from cluster.local import session
        from orchestration.training import warm

        workers = job.world
        if not self.known:
            config = ClusterConfig(workers=workers)
            self.known = self.stack.enter_context(session(config, modules=warm.modules(job.train)))
        return {"workers": workers, "cpus_per_worker": 1.0, "gpus_per_worker": 0.0, "embedded": True}


if __name__ == "__main__":
    sys.path.append(str(PEERS))
    import served

    with contextlib.ExitStack() as stack:
        served.serve(functools.partial(work, Sessions(stack)))

"""One rank of a fit, as Ray Train calls it: in a thread of each worker's process. Takes {"job", "relay"}; gives the LoopResult as plain
values, which Ray Train brings to the driver. Ties the loop to its surroundings: events and flags (`relay`), the hang watch
(`watchdog`). Errors leave as they are: `group` sees them in the controller."""

from __future__ import annotations

import contextlib
import time
from typing import Any

# A rank whose peer died fails within milliseconds with words about a connection. It waits before it says so: the peer's own error, or
# that its process is gone, is the one to be found first.
COLLATERAL_S = 1.5


def run(config: dict[str, Any]) -> dict[str, Any] | None:
    from ray import train

    from orchestration.training.relay import Line
    from orchestration.training.watchdog import Watch

    job, relay, context = config["job"], config["relay"], train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()

    def hangs(sentence: str) -> None:
        import ray

        ray.get(relay.push.remote({"type": "hang", "rank": rank, "text": f"worker {rank} made {sentence}; ending it"}))

    line = Line(relay, _preemption)
    with Watch(job.train.failures.hang_timeout_s, hangs), line if rank == 0 else contextlib.nullcontext():
        try:
            from orchestration.training import loop

            result = loop.run(
                job,
                rank=rank,
                world=world,
                report=line.push,
                stop=line.stop if rank == 0 else None,
                preempted=line.preempted if rank == 0 else None,
            )
        except RuntimeError as error:
            if world > 1 and _of_a_peer(error):
                time.sleep(COLLATERAL_S)
            raise
        finally:
            if rank == 0:
                _flush(relay)
    return result.dump() if rank == 0 else None


def _preemption() -> Any:
    """What Ray Train's watcher has told this worker: a comparable value, None where no node will be taken away. Its public function is a
    barrier over the ranks, which a loop cannot pass at each step."""
    from ray.train.v2._internal.execution.context import get_train_context

    info = get_train_context().preemption_context.preemption_info
    return info and (info.deadline_ms, *info.preempted_node_ids)


def _of_a_peer(error: RuntimeError) -> bool:
    text = str(error)
    return type(error).__name__.startswith("Dist") or any(
        word in text for word in ("Connection", "peer", "gloo", "NCCL", "ncclUnhandledCudaError", "Socket")
    )


def _flush(relay: Any) -> None:
    """Until the relay has the last event: Ray Train ends this process soon after."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(relay.flags.remote(), timeout=10.0)

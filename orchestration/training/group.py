"""Our eyes in Ray Train's controller, and the trainer that starts it. Told of each state of the worker group, it tells the driver (through the relay) what happens:
restarts and why, a wait for nodes, a resize. When a worker failed with something that our driver must decide about (`causes`), it ends the
controller with `Decide`, which takes the group down at once and reaches the driver as the fit's error: no second group starts in vain.
Uses Ray Train's developer API of the pinned version; tests/integration/test_train.py fails where it changes."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.scaling_policy import (
    AUTOSCALING_REQUESTS_GET_TIMEOUT_S,
    ElasticScalingPolicy,
    FixedScalingPolicy,
)

from orchestration.training import causes

SAVE_S = 20.0  # at most, for a checkpoint before a healthy group is taken down to become a larger one


class Decide(Exception):
    """Carries a fault to the driver."""

    def __init__(self, fault: dict[str, Any]) -> None:
        super().__init__(fault)
        self.fault = fault


class Trainer(TorchTrainer):
    """Without the processes of Ray Train's that do nothing for us; each costs about two seconds of processor time at a start.

    The manager of data sets: ranks read the store themselves. The detached cleaner of placement groups, which asks a dashboard whether the
    controller lives: Ray frees what a dead driver held, our driver what a dead controller did. The coordinator that tells an autoscaler
    what a group of fixed size needs: its waiting placement group says the same.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [one for one in made if not isinstance(one, (DatasetsCallback, PlacementGroupCleanerCallback))]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        elastic = self.scaling_config.elasticity_enabled
        parts["scaling_policy"] = (Elastic if elastic else Fixed)(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)


class Fixed(FixedScalingPolicy):
    """Always the same number of workers, and no coordinator."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class Elastic(ElasticScalingPolicy):
    """As many workers as there is room for now. Ray's coordinator looks at the cluster once in 20 s; until then a group would wait for the
    node that it has just lost, and pass by a new one."""

    def _get_reserved_resources(self) -> Any:
        self._latest_reserved_resources_query_time = time.monotonic()
        ask = self._autoscaling_coordinator.get_reserved_resources
        with contextlib.suppress(ray.exceptions.RayError):
            return ray.get(ask.remote(self._requester_id, recompute=True), timeout=AUTOSCALING_REQUESTS_GET_TIMEOUT_S)
        return None


class Watcher(ControllerCallback, WorkerGroupCallback):
    """`max_failures`: restarts that are left; only told."""

    def __init__(self, relay: Any, *, max_failures: int) -> None:
        self.relay, self.max_failures, self.failures = relay, max_failures, 0
        self._waits = False

    # ---------------------------------------------------------------------------------------------- Ray Train calls

    def after_controller_start(self, train_run_context: Any) -> None:
        self.relay.know.remote(controller=ray.get_runtime_context().current_actor)

    def after_worker_group_start(self, worker_group: Any) -> None:
        placed = worker_group.get_worker_group_state().placement_group_handle.placement_group
        self.relay.know.remote(placement_group=placed)
        self.relay.push.remote({"type": "workers", "workers": len(worker_group)})
        self._waits = False

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        if worker_group_status.errors and (fault := causes.fault(worker_group_status.errors)):
            raise Decide(fault)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        name, was = (state._state_type.state_name for state in (current_state, previous_state))
        if name == was:
            if name in ("INITIALIZING", "RESTARTING", "RESCHEDULING"):  # elastic: there is no room for the fewest
                self._waits_for_room()
        elif name == "RESTARTING":
            self._restarts(current_state.training_failed_error)
        elif name == "RESCHEDULING":
            self._did_not_start(current_state.training_failed_error)
        elif name == "PREEMPTING":
            info = current_state.preemption_info
            left = f"in {info.deadline_ms / 1000 - time.time():.0f} s" if info.deadline_ms else "soon"
            self._tell(
                "preemption",
                f"{_nodes(len(info.preempted_node_ids))} with {_workers(len(info.preempted_ranks))} will be taken away {left}",
            )
        elif name == "RESIZING":
            self._resizes(current_state.scaling_decision.num_workers)

    # ---------------------------------------------------------------------------------------------- what it does

    def _restarts(self, error: Any) -> None:
        failures = getattr(error, "worker_failures", None)
        if failures is None:  # a preemption that came to its end: no failure
            return self._tell("restart", f"starting the workers again: {_first(error)}")
        rank, first = min(failures.items())
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return self._failed(f"worker {rank} failed{more}: {causes.line(first)}")

    def _did_not_start(self, error: Any) -> None:
        """No room, which time may mend, or a worker that died before it was one of a group, which Ray Train counts nowhere."""
        if type(error.controller_failure).__name__ == "WorkerGroupStartupTimeoutError":
            return self._waits_for_room()
        return self._failed(f"a worker died while it started: {_first(error)}")

    def _failed(self, what: str) -> None:
        self.failures += 1
        if self.failures > self.max_failures:
            raise Decide({"kind": "restarts", "text": what})
        again = f"{what}; starting the workers again, {self.failures} of train.max_failures={self.max_failures}"
        self._tell("restart", again, failure=True)

    def _waits_for_room(self) -> None:
        """Told once a start: Ray Train tries again every few seconds."""
        if not self._waits:
            self._waits = True
            self._tell("waiting", "the cluster has no room for the workers now; waiting for it")

    def _resizes(self, workers: int) -> None:
        """A group that grows is healthy and ends here: let it save first, so that no step is done twice."""
        self._tell("restart", f"the cluster has room for {_workers(workers)}: starting again with as many")
        with contextlib.suppress(ray.exceptions.RayError):
            self.relay.ask.remote("save")
            asked, end = ray.get(self.relay.saved.remote(), timeout=SAVE_S), time.monotonic() + SAVE_S
            while time.monotonic() < end and ray.get(self.relay.saved.remote(), timeout=SAVE_S) == asked:
                time.sleep(0.2)

    def _tell(self, kind: str, text: str, **more: Any) -> None:
        self.relay.push.remote({"type": kind, "text": text, **more})


def _first(error: Any) -> str:
    inner = getattr(error, "controller_failure", None) or error
    return next((text.strip() for text in str(inner).splitlines() if text.strip()), type(inner).__name__)[:300]


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count != 1 else ''}"


def _nodes(count: int) -> str:
    return "a node" if count == 1 else f"{count} nodes"

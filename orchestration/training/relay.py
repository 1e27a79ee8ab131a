"""What travels between a fit's workers and the driver while it runs: events one way, "stop" and "save now" the other. `Relay` is a small
actor beside the driver; `Forward` hands its events to the driver's callback; `Line` is rank 0's end. Results and errors do not come
this way: Ray Train brings them. Not by `ray.train.report`: that is a barrier over the ranks of about two seconds.

If the actor's process dies, Ray starts another one: events of half a second are lost, and the driver says again what it wants."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

POLL_S = 0.5
FIRST_POLL_S = 0.1  # of the driver, until the first step is done: it is waited for
OnEvent = Callable[[dict[str, Any]], None]


class Relay:
    """The actor. `group`: what Ray Train's controller told about itself and the group that runs now."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._flags = {"stop": False, "save": 0}
        self._group: dict[str, Any] = {}
        self._saved = 0

    def push(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        self._saved += event.get("type") == "checkpoint"

    def drain(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def ask(self, flag: str) -> None:
        """`stop`: a checkpoint, then the end. `save`: a checkpoint now; each time counts."""
        self._flags[flag] = True if flag == "stop" else self._flags[flag] + 1

    def flags(self) -> dict[str, Any]:
        """Rank 0 asks. It also waits for this after its last event: calls of one caller are done in order."""
        return self._flags

    def saved(self) -> int:
        """Checkpoints told so far."""
        return self._saved

    def know(self, **facts: Any) -> None:
        self._group |= facts

    def group(self) -> dict[str, Any]:
        return self._group


def start() -> Any:
    """A relay on this node: one elsewhere would end with a node that the driver outlives."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Relay).remote()


class Forward:
    """`with Forward(relay, on_event) as forward: ...` hands events over in order, from a thread, the last ones before the block ends.

    Where the callback raises (a sweep ends a trial), the workers are asked to stop, and the block ends with what it raised.
    """

    def __init__(self, relay: Any, on_event: OnEvent) -> None:
        self.relay, self.on_event = relay, on_event
        self.stopping = False
        self.failed: BaseException | None = None
        self._poll_s = FIRST_POLL_S
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="fit-events", daemon=True)

    def __enter__(self) -> Forward:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._done.set()
        self._thread.join()
        if self.failed is not None and kind is None:
            raise self.failed

    def stop(self) -> None:
        """Ask the workers for a checkpoint and an end. Returns at once."""
        self.stopping = True

    def _forward(self) -> None:
        last = False
        while not last:
            last = self._done.wait(self._poll_s)
            self._once()

    def _once(self) -> None:
        import ray

        try:
            if self.stopping:
                self.relay.ask.remote("stop")
            events = ray.get(self.relay.drain.remote(), timeout=30.0)
        except ray.exceptions.RayError:
            return  # the actor is being started again, or Ray has ended: the fit itself tells which
        try:
            for event in events if self.failed is None else ():
                if event.get("type") == "step":
                    self._poll_s = POLL_S
                self.on_event(event)
        except BaseException as error:  # told when the block ends, in the caller's thread
            self.failed, self.stopping = error, True


class Line:
    """Rank 0's end, in the worker: `stop()` and `preempted()` give at once what a thread last heard."""

    def __init__(self, relay: Any, notice: Callable[[], Any] = lambda: None) -> None:
        self._relay, self._notice = relay, notice
        self._stop, self._saves = False, 0
        self._seen: tuple[Any, int] = (None, 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="relay-line", daemon=True)

    def __enter__(self) -> Line:
        self._hear()
        self._seen = (None, self._saves)  # what was wanted of the group before this one
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(timeout=5.0)

    def stop(self) -> bool:
        return self._stop

    def preempted(self) -> bool:
        """Once for each notice that a node will be taken away, and for each time that the driver's side wants a checkpoint."""
        now = (self._notice(), self._saves)
        if now == self._seen:
            return False
        self._seen = now
        return True

    def push(self, event: dict[str, Any]) -> None:
        self._relay.push.remote(event)

    def _poll(self) -> None:
        while not self._done.wait(POLL_S):
            self._hear()

    def _hear(self) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            flags = ray.get(self._relay.flags.remote(), timeout=30.0)
            self._stop, self._saves = flags["stop"], flags["save"]

"""What a run shows and keeps of itself. Takes events (plain dicts with a "type"); gives progress bars on a terminal,
one plain line an event elsewhere, or JSON lines for machines; and appends every event to `<run>/events.jsonl` in
storage. Runs in the driver: workers report their events to it. Also collects seconds by stage. Knows nothing of
training or of Ray.

Events and their fields (others are kept, not shown):
  stage       stage, status (started | finished | failed), seconds
  progress    stage, done, total, unit                                  (rows read, files fetched)
  step        step, steps, epoch, loss, lr, rows_per_s, tokens_per_s, grad_norm
  validation  step, loss, accuracy, macro_f1
  checkpoint  step, rel, seconds, bytes, stall_s (of the training thread), reason (where it was not due: preemption, release)
  release     step, frozen (depth groups still frozen)
  trunk       done, of (rows of stored outputs); or used and why
  trial       trial, status, validations, metric, values
  restart, preemption, decision, hang, stop   text
  warning, info   text
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from orchestration.storage import Storage
from orchestration.terminal import Bars, Lines

FLUSH_S = 5.0  # events of a crashed driver that can be lost; a write a step would cost an object store one put a step
EVENTS = "events.jsonl"


def clean(value: Any) -> Any:
    """Plain JSON values: numpy and torch scalars become Python's, NaN and infinities None, unknown objects text."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(item) for item in value]
    if isinstance(value, (int, float)):
        return value if isinstance(value, int) or math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return clean(value.tolist())
    return str(value)


class EventLog:
    """Appends JSON lines to one file in storage, buffered. A resumed run goes on in the same file."""

    def __init__(self, storage: Storage, rel: str) -> None:
        self.storage, self.rel = storage, rel
        self._pending: list[str] = []
        self._whole: str | None = None  # object stores cannot append: what was written so far is kept and put again
        self._flushed = time.monotonic()

    def add(self, event: dict[str, Any]) -> None:
        self._pending.append(json.dumps(event, ensure_ascii=False) + "\n")
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        text, self._pending, self._flushed = "".join(self._pending), [], time.monotonic()
        if not text:
            return
        if self.storage.is_local:
            path = Path(self.storage.path(self.rel))
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as handle:
                handle.write(text)
            return
        if self._whole is None:
            self._whole = self.storage.read(self.rel).decode() if self.storage.exists(self.rel) else ""
        self._whole += text
        self.storage.write(self.rel, self._whole.encode())


def read_events(storage: Storage, run_rel: str) -> list[dict[str, Any]]:
    """The events of a run, in order; empty where it kept none. A last line cut short by a crash is left out."""
    try:
        text = storage.read(f"{run_rel}/{EVENTS}").decode()
    except FileNotFoundError:
        return []
    events = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


class Console:
    """One for a command. `console(event)` shows and keeps an event: pass the console itself as `on_event`.

    Thread-safe. `seconds`: stage -> seconds, for the final summary.
    """

    def __init__(self, *, json_lines: bool = False, quiet: bool = False, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.json_lines = json_lines
        self.seconds: dict[str, float] = {}
        self._logs: list[EventLog] = []
        self._lock = threading.RLock()
        self._stage = ""
        self._from: tuple[str | None, int, float] = (None, 0, 0.0)  # stage, step and time of its first step event
        self._view: Any = None
        if not json_lines and not quiet:
            self._view = Bars(self.out) if self.out.isatty() else Lines(self.out)

    def __call__(self, event: dict[str, Any]) -> None:
        """Show and keep one event. A time stamp (seconds since 1970) and the current stage are added."""
        with self._lock:
            whole = clean({"time": round(time.time(), 3), "stage": self._stage, **event})
            if whole.get("type") == "step":
                whole.setdefault("eta_s", self._eta_s(whole))
            for log in self._logs:
                log.add(whole)
            if self.json_lines:
                print(json.dumps(whole, ensure_ascii=False), file=self.out, flush=True)
            elif self._view is not None:
                self._view.show(whole)

    def _eta_s(self, event: dict[str, Any]) -> float | None:
        """Seconds to the last step at the rate since the first step event of this stage; None for that first one."""
        step, now = event["step"], event["time"]
        stage, first, since = self._from
        if stage != event["stage"] or step <= first:
            self._from = (event["stage"], step, now)
            return None
        return round((event["steps"] - step) * (now - since) / (step - first), 1) if event.get("steps") else None

    def say(self, text: str) -> None:
        """A line for people; an `info` event for machines."""
        self({"type": "info", "text": text})

    def progress(self, done: int, total: int | None = None, unit: str = "rows") -> None:
        """How far the current stage is."""
        self({"type": "progress", "done": done, "total": total, "unit": unit})

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages of the same name add up. An outer stage includes its nested ones."""
        outer, self._stage = self._stage, name
        started = time.monotonic()
        self({"type": "stage", "status": "started"})
        status = "failed"
        try:
            yield
            status = "finished"
        finally:
            spent = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            self({"type": "stage", "status": status, "seconds": round(spent, 3)})
            self._stage = outer
            self.flush()

    @contextlib.contextmanager
    def record(self, storage: Storage, run_rel: str) -> Iterator[None]:
        """While inside, every event is also appended to `<run_rel>/events.jsonl`."""
        log = EventLog(storage, f"{run_rel}/{EVENTS}")
        self._logs.append(log)
        try:
            yield
        finally:
            with self._lock:
                self._logs.remove(log)
                log.flush()

    def flush(self) -> None:
        with self._lock:
            for log in self._logs:
                log.flush()

    def close(self) -> None:
        """Write what is buffered and take the bars down."""
        self.flush()
        if self._view is not None:
            self._view.close()

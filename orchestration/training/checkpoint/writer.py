"""Writing checkpoints while training goes on. Takes this rank's snapshots; a thread writes this rank's part, and on rank 0 waits for
all parts, seals and removes old ones. What the training thread pays is the copy into host memory that the snapshot is."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.storage import Storage
from orchestration.training.checkpoint import attempts, format, parts, retention
from orchestration.training.fragments import Snapshot
from orchestration.training.state import TrainState

# Training goes first where it has no core to spare: on two cores at a load of 12 a step beside a write took 1.4 times as long as one
# alone, and 1.8 times at equal priority; at 10 it was 1.2 times, but the write took 12 s in place of 5 s and 3 s.
NICE = 5
WAIT_S = 600.0  # for the other ranks' parts: a rank that has not written in this time is dead


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is sealed. `seconds`: from the call of `save` until then; `bytes`: of all its files, frozen ones aside."""

    step: int
    rel: str
    best: bool
    seconds: float
    bytes: int


@dataclass(frozen=True)
class _Task:
    rel: str
    snapshot: Snapshot
    state: TrainState
    meta: dict[str, Any]
    frozen: str | None
    score: float | None
    best: bool
    began: float


class Writer:
    """One for each rank; every rank calls `save` for the same steps. One attempt writes a step at most once: a second `save` of it
    replaces state.json alone."""

    def __init__(
        self,
        storage: Storage,
        run_rel: str,
        *,
        rank: int,
        world: int,
        attempt: int,
        keep: int,
        keep_best: int,
        wait_s: float = WAIT_S,
    ) -> None:
        self.storage, self.run_rel = storage, run_rel
        self.rank, self.world, self.attempt = rank, world, attempt
        self.keep, self.keep_best, self.wait_s = keep, keep_best, wait_s
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved: list[Saved] = []
        if rank == 0:
            retention.sweep(storage, run_rel, attempt)

    def save(
        self,
        snapshot: Callable[[], Snapshot],
        *,
        state: TrainState,
        meta: dict[str, Any],
        frozen: str | None,
        score: float | None,
        best: bool,
    ) -> None:
        """Wait until the save before is written, call `snapshot` (engines use their buffers again, hence a function) and return.

        `score`: of a validation at this very step, higher is better; None: there was none. Raises what went wrong with the save before.
        """
        self.wait()
        began = time.perf_counter()
        kept = dataclasses.replace(state, history=list(state.history))
        rel = format.name(self.run_rel, state.step, self.attempt)
        known = None if score is None or math.isnan(score) else score
        task = _Task(rel, snapshot(), kept, dict(meta), frozen, known, best, began)
        self._thread = threading.Thread(target=self._run, args=(task,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until this rank's part is written, on rank 0 until it is sealed. Raises faults.StaleWriter, and OSError where the disk is full
        or a rank wrote nothing in `wait_s`. After that the writer can be used again."""
        if self._thread:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error:
            raise error

    def finished(self) -> list[Saved]:
        """Sealed since last asked; on rank 0."""
        found, self._saved = self._saved, []
        return found

    # ---------------------------------------------------------------------------------------------- in the thread

    def _run(self, task: _Task) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            self._write(task)
        except BaseException as error:
            self._error = error

    def _write(self, task: _Task) -> None:
        self._refuse_stale()
        before = format.read_seal(self.storage, task.rel)
        size = self._seal_again(task, before) if before else self._write_part(task)
        if self.rank == 0:
            seconds = time.perf_counter() - task.began
            self._saved.append(Saved(task.state.step, task.rel, task.best, seconds, size))
            self._refuse_stale()  # a stale writer removes nothing
            retention.retain(self.storage, self.run_rel, keep=self.keep, keep_best=self.keep_best, attempt=self.attempt)

    def _write_part(self, task: _Task) -> int:
        """And on rank 0 seal; bytes of all files."""
        try:
            parts.write(self.storage, task.rel, task.snapshot, rank=self.rank, world=self.world)
            if self.rank:
                return 0
            parts.wait_for(self.storage, task.rel, self.world, self.wait_s, self._refuse_stale)
            files = parts.collect(self.storage, task.rel, self.world, task.snapshot)
            held = task.snapshot
            state = format.State(task.state, task.meta, held.shapes, held.steps, held.extra)
            return self._seal(task, files, self._meta(task), state, format.STATE)
        except BaseException as error:
            with contextlib.suppress(OSError):
                parts.withdraw(self.storage, task.rel, self.rank, str(error))
            raise

    def _seal_again(self, task: _Task, before: format.Seal) -> int:
        """This attempt wrote this step before, so the tensors are the same: only the position and the score are new."""
        if self.rank:
            return 0
        meta, was = self._meta(task), before.meta
        meta |= {"frozen": was["frozen"], "best": meta["best"] or was["best"]}
        meta["score"] = was["score"] if meta["score"] is None else meta["score"]
        held = format.parse_state(self.storage.read(f"{task.rel}/{was['state']}"), task.rel)
        state = dataclasses.replace(held, train=task.state, meta=task.meta)
        files = {name: what for name, what in before.files.items() if name != was["state"]}
        size = self._seal(task, files, meta, state, format.next_state_file(was["state"]))
        self.storage.remove(f"{task.rel}/{was['state']}")
        return size

    def _seal(self, task: _Task, files: dict[str, Any], meta: dict[str, Any], state: format.State, file: str) -> int:
        data = format.dump_state(state)
        self.storage.write(f"{task.rel}/{file}", data)
        files = {**files, file: format.describe(data)}
        self._refuse_stale()
        format.seal(self.storage, task.rel, files, {**meta, "state": file})  # last: a crash above leaves no checkpoint
        return sum(entry["bytes"] for entry in files.values())

    def _meta(self, task: _Task) -> dict[str, Any]:
        place = {"format": format.FORMAT, "step": task.state.step, "attempt": self.attempt, "world": self.world}
        return {**place, "frozen": task.frozen, "score": task.score, "best": task.best}

    def _refuse_stale(self) -> None:
        attempts.refuse_stale(self.storage, self.run_rel, self.attempt)

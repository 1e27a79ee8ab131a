"""Checkpoints of a running fit, on one rank. Takes the engine's snapshots; a thread of the checkpoint writer puts them into storage
while training goes on. Called by the loop. A write that fails leaves the checkpoints before it: it is told, and tried again at the
next; at the end of the run it is an error."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Any

from orchestration.training import checkpoint
from orchestration.training.job import TrainJob
from orchestration.training.setup import Report, Setup


class Saving(Setup):
    """`Setup` with a writer. `last_rel`: the newest checkpoint that was handed to it."""

    last_rel: str | None = None
    _best_before: str | None = None  # the best one that is in storage whatever becomes of the newest
    _writer: checkpoint.Writer | None = None
    _reason: str | None = None
    _room: threading.Thread | None = None

    def __init__(self, job: TrainJob, *, rank: int, world: int, report: Report) -> None:
        super().__init__(job, rank=rank, world=world, report=report)
        self._stalls: dict[str, float] = {}  # checkpoint -> seconds that the training thread waited for it
        self.make_room()

    @property
    def writer(self) -> checkpoint.Writer:
        if self._writer is None:
            kept = self.job.train.checkpoint
            self._writer = checkpoint.Writer(
                self.storage,
                self.job.run_rel,
                rank=self.rank,
                world=self.world,
                attempt=self.attempt,
                keep=kept.keep,
                keep_best=kept.keep_best,
            )
        return self._writer

    def save(self, *, score: float | None, best: bool, reason: str | None = None) -> None:
        """Copy the state to memory and go on; what was handed over before is in storage by then."""
        state, began = self.state, time.perf_counter()
        self.end_room()
        self.written(final=False)
        self.last_rel = checkpoint.name(self.job.run_rel, state.step, self.attempt)
        self._reason = reason
        self._best_before = state.best_rel
        if best:
            state.best_rel = self.last_rel
        self.writer.save(
            self.engine.snapshot,
            state=state,
            meta=self._meta(),
            frozen=self.frozen_rel,
            score=score,
            best=best,
        )
        self._stalls[self.last_rel] = time.perf_counter() - began

    def make_room(self) -> None:
        """Memory for the copies, while the first steps run."""
        if self.job.checkpoints:
            self._room = threading.Thread(target=self.engine.make_room, name="checkpoint-room", daemon=True)
            self._room.start()

    def end_room(self) -> None:
        """Until the memory is there; a process that ends with a thread inside torch is aborted by C++."""
        if self._room:
            self._room.join()
            self._room = None

    def written(self, *, final: bool) -> None:
        """Wait for the write before. `final`: one that failed is an error, not a warning."""
        if self._writer is None:
            return
        try:
            self._writer.wait()
        except OSError as error:
            if final:
                raise
            self._warn(f"checkpoint {self.last_rel} was not written, the one before it stays: {error}")
            if self.state.best_rel == self.last_rel:
                self.state.best_rel = self._best_before
        self.tell_written()

    def tell_written(self) -> None:
        """An event for each checkpoint that is complete by now."""
        for saved in self._writer.finished() if self._writer else []:
            event = {"type": "checkpoint", "step": saved.step, "rel": saved.rel, "best": saved.best}
            event |= {"seconds": saved.seconds, "bytes": saved.bytes, "stall_s": self._stalls.pop(saved.rel, 0.0)}
            self.report(event | ({"reason": self._reason} if self._reason and saved.rel == self.last_rel else {}))

    def _meta(self) -> dict[str, Any]:
        return {
            "identity": self.job.identity(),
            "job": self.job.dump(),
            "plan": self.plan_values(),
            "world": self.world,
            "zero_stage": self.engine.stage,
        }

    def plan_values(self) -> list[dict[str, Any]]:
        return [asdict(row) | {"param_names": list(row.param_names)} for row in self.plan]

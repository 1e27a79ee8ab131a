"""The training loop, on one rank. Takes a TrainJob, this rank's place and a `report` callback; gives a LoopResult that is the same
on every rank. Called in a Ray Train worker by `trainer`, in a trial's actor by a sweep, in any process by tests and
benchmarks: it knows neither Ray nor a sweep. It resumes by itself from the newest whole checkpoint in `run_rel`.

With several ranks the process group is already initialised. Equal state gives equal steps: dropout is seeded from
(seed, step, micro-batch, rank), so a resumed run repeats the unbroken one without a saved generator state. Ranks meet only where
the optimizer reduces gradients, at a report, a validation and a checkpoint."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from models import loss
from orchestration.data import rng
from orchestration.errors import UserError
from orchestration.training import checkpoint
from orchestration.training.feed import Step, ahead
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.process import ensure_process_group
from orchestration.training.setup import Report, Setup
from orchestration.training.validation import improved, validate

__all__ = ["LoopResult", "TrainJob", "run"]

CHECK_EVERY = 50  # steps between comparisons of planned and live rates: 20 groups, 0.1 ms


def run(
    job: TrainJob, *, rank: int = 0, world: int = 1, report: Report, stop: Callable[[], bool] | None = None
) -> LoopResult:
    """Train to the end of the spec's epochs, early stopping or `stop() == True`.

    `report(event)` is called on rank 0 only: start, step, validation, checkpoint, warning (fields: orchestration.telemetry). What it
    raises ends the run. `stop` is asked on rank 0 after each report and validation. Raises UserError (of any rank), ModelError and
    PlanMismatchError.
    """
    ensure_process_group(job, world)
    fit = Fit(job, rank=rank, world=world, report=report, stop=stop)
    try:
        return fit.run()
    finally:
        fit.engine.close()


class Fit(Setup):
    """One run of the loop."""

    def __init__(
        self, job: TrainJob, *, rank: int, world: int, report: Report, stop: Callable[[], bool] | None
    ) -> None:
        super().__init__(job, rank=rank, world=world, report=report)
        self.stop = stop
        self.reported_at, self.rows_since = time.perf_counter(), 0
        self.pending = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss sum and rows, of this rank

    def run(self) -> LoopResult:
        self.report(self._start_event())
        while self.state.ended is None and self.state.epoch < self.job.train.epochs:
            self._epoch()
        return self._result()

    def _epoch(self) -> None:
        steps = ahead(self.feed.steps(self.state.epoch, self.state.batch))
        try:
            while True:
                with self.clock("train"):
                    step = next(steps, None)
                    if step is None:
                        return
                    factor = self.factor(self.state.step)
                    self._train(step, factor)
                self._advance(step)
                self._after_step(step, factor)
                if self.state.ended:
                    return
        finally:
            steps.close()  # type: ignore[attr-defined]

    def _train(self, step: Step, factor: float) -> None:
        """One update. A rank adds its rows' loss sum x world / rows of the whole batch, and DeepSpeed averages over ranks: so the
        update is that of the mean over all rows, whatever the accumulation, the world size and the padding."""
        scale = self.world / step.rows
        for number, micro in enumerate(step.micros):
            torch.manual_seed(rng.key("dropout", self.job.seed, self.state.step, number, self.rank) >> 1)
            logits_BC = self.engine.forward(**micro.inputs)
            labels_B, weight_B = micro.labels_B.to(self.device), micro.weight_B.to(self.device)
            summed, count = loss.classification(logits_BC, labels_B, weight_B, self.job.train.label_smoothing)
            self.engine.backward(summed * scale, last=number == len(step.micros) - 1)
            self.pending += torch.stack([summed.detach(), count])
        self.engine.update(factor)

    def _advance(self, step: Step) -> None:
        state = self.state
        state.step, state.batch = state.step + 1, step.batch + 1
        self.rows_since += step.rows
        if step.last:
            state.epoch, state.batch = state.epoch + 1, 0

    def _after_step(self, step: Step, factor: float) -> None:
        state, train = self.state, self.job.train
        last = state.epoch == train.epochs
        epoch_ended = state.batch == 0
        if state.step % CHECK_EVERY == 0 or last:
            self.engine.check(factor)
        if state.step % train.report_every == 0 or last:
            self._report_step(step, factor)
        every = train.validation.every_steps
        due = last or (epoch_ended if every is None else state.step % every == 0)
        best = self._validate() if due and len(self.held_out) else False
        if last and state.ended is None:
            state.ended = "finished"
        saves = train.checkpoint.every_steps
        if self.job.checkpoints and (best or state.ended or (due if saves is None else state.step % saves == 0)):
            self._save(best)

    def _report_step(self, step: Step, factor: float) -> None:
        stopping = float(self.rank == 0 and self.stop is not None and self.stop())
        loss_sum, rows, stopped = self._reduce(torch.cat([self.pending, self.pending.new_tensor([stopping])])).tolist()
        loss_sum, rows = loss_sum + self.state.pending[0], rows + self.state.pending[1]
        self._clear_pending()
        mean, seconds = loss_sum / rows, time.perf_counter() - self.reported_at
        if not math.isfinite(mean):
            raise UserError(
                f"step {self.state.step}: the loss is {mean}; lower train.optimizer.lr (now {self.job.train.optimizer.lr:g}),"
                " lengthen train.schedule.warmup or set train.clip_norm"
            )
        norm = self.engine.grad_norm
        event = {
            "type": "step",
            "step": self.state.step,
            "steps": self.total_steps,
            "epoch": step.epoch,
            "loss": mean,
            "lr": self.job.train.optimizer.lr * factor,
            "rows_per_s": self.rows_since / seconds,
            "grad_norm": None if norm is None else float(norm),
        }
        self.reported_at, self.rows_since = time.perf_counter(), 0
        self._tell(event)
        if stopped and self.state.epoch < self.job.train.epochs:
            self.state.ended = "stopped"

    def _validate(self) -> bool:
        """Score the validation split; True where it is the best so far."""
        train, state, began = self.job.train, self.state, time.perf_counter()
        with self.clock("validate"):
            found = validate(self.engine, self.held_out, classes=len(self.job.labels), reduce=self._reduce)
        self._tell({"type": "validation", "step": state.step, "epoch": state.epoch, **found})
        value, metric, stopping = found[train.validation.metric], train.validation.metric, train.early_stopping
        best = improved(value, state.best_value, metric=metric)
        counts = improved(value, state.best_value, metric=metric, min_delta=stopping.min_delta if stopping else 0.0)
        state.stale = 0 if counts else state.stale + 1
        if best:
            state.best_value, state.best_step = value, state.step
        if stopping and state.stale >= stopping.patience:
            state.ended = state.ended or "early_stopping"
        if self._reduce(torch.tensor([float(self.rank == 0 and self.stop is not None and self.stop())])).item():
            state.ended = state.ended or "stopped"
        self.reported_at += time.perf_counter() - began  # rows_per_s is of training
        return best

    def _save(self, best: bool) -> None:
        """Collective. Rank 0 writes; the others wait at the next reduction."""
        state, began = self.state, time.perf_counter()
        with self.clock("save"):
            loss_sum, rows = self._reduce(self.pending).tolist()
            state.pending = (loss_sum + state.pending[0], rows + state.pending[1])
            self.pending.zero_()
            weights, moments = self.engine.weights(), self.engine.optimizer_state()
            if self.rank == 0:
                meta = {
                    "identity": self.job.identity(),
                    "job": self.job.dump(),
                    "plan": self._plan(),
                    "world": self.world,
                }
                meta["zero_stage"] = self.engine.stage
                rel = checkpoint.save(
                    self.storage, self.job.run_rel, weights=weights or {}, moments=moments or {}, state=state, meta=meta
                )
                checkpoint.retain(
                    self.storage, self.job.run_rel, keep=self.job.train.checkpoint.keep, best_step=state.best_step
                )
                self.report(
                    {
                        "type": "checkpoint",
                        "step": state.step,
                        "rel": rel,
                        "best": best,
                        "seconds": time.perf_counter() - began,
                    }
                )
        self.reported_at += time.perf_counter() - began

    # ---------------------------------------------------------------------------------------------- small parts

    def _tell(self, event: dict[str, Any]) -> None:
        self.state.history.append(event)
        self.report(event)

    def _reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, on the CPU."""
        total = tensor.clone().to(self.device)
        if self.world > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def _clear_pending(self) -> None:
        self.pending.zero_()
        self.state.pending = (0.0, 0.0)

    def _plan(self) -> list[dict[str, Any]]:
        return [asdict(row) | {"param_names": list(row.param_names)} for row in self.plan]

    def _start_event(self) -> dict[str, Any]:
        where = {
            "run": self.job.run_rel,
            "world": self.world,
            "pid": os.getpid(),
            "device": str(self.device),
            "zero_stage": self.engine.stage,
        }
        place = {"step": self.state.step, "steps": self.total_steps, "resumed_from": self.resumed_from}
        sizes = {
            "numel": sum(row.numel for row in self.plan),
            "trainable": sum(row.numel for row in self.plan if row.trainable),
        }
        return {"type": "start", **where, **place, **sizes, "rows": len(self.feed), "seconds": dict(self.clock.seconds)}

    def _result(self) -> LoopResult:
        state, kept = self.state, self.job.checkpoints
        best = state.best_step if len(self.held_out) else state.step
        return LoopResult(
            run_rel=self.job.run_rel,
            steps=state.step,
            total_steps=self.total_steps,
            ended=state.ended or "finished",
            best_checkpoint=checkpoint.name(self.job.run_rel, best) if kept and best is not None else None,
            best_step=best,
            metric=self.job.train.validation.metric,
            best_value=state.best_value,
            last_checkpoint=checkpoint.name(self.job.run_rel, state.step) if kept else None,
            history=state.history,
            seconds=self.clock.seconds,
            plan=self._plan(),
            zero_stage=self.engine.stage,
            world=self.world,
            resumed_from=self.resumed_from,
            damaged=self.damaged,
        )

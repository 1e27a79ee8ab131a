"""The training loop, on one rank. Takes a TrainJob, this rank's place and a `report` callback; gives a LoopResult that is the same
on every rank. Called in a Ray Train worker by `trainer`, in a trial's actor by a sweep, in any process by tests and
benchmarks: it knows neither Ray nor a sweep. It resumes by itself from the newest whole checkpoint in `run_rel`.

With several ranks the process group is already initialised. Equal state gives equal steps: dropout is seeded from
(seed, step, micro-batch, rank), so a resumed run repeats the unbroken one without a saved generator state. Ranks wait for each other
only where the optimizer reduces gradients, at a report, a validation and a checkpoint."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from models.config import LOWER
from orchestration.data import rng
from orchestration.training import phases, trouble, watchdog
from orchestration.training.faults import NotFinite
from orchestration.training.feed import Step, ahead
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.process import ensure_process_group
from orchestration.training.profile import Profile
from orchestration.training.saving import Saving
from orchestration.training.setup import Report
from orchestration.training.signals import PREEMPTED, SAVE, STOP, Signals
from orchestration.training.trouble import Place, Recent
from orchestration.training.validation import improved, validate

__all__ = ["LoopResult", "TrainJob", "run"]

CHECK_EVERY = 50  # steps between comparisons of planned and live rates: 20 groups, 0.1 ms
Ask = Callable[[], bool]


def run(
    job: TrainJob,
    *,
    rank: int = 0,
    world: int = 1,
    report: Report,
    stop: Ask | None = None,
    preempted: Ask | None = None,
) -> LoopResult:
    """Train to the end of the spec's epochs, early stopping or `stop() == True`.

    `report(event)` is called on rank 0 only: start, step, validation, checkpoint, warning (fields: orchestration.telemetry). What it
    raises ends the run. `stop` and `preempted` are asked after each step, on the ranks that have them, and must return at once; what
    one rank hears all follow, a step later: a checkpoint is written, and `stop` ends the run. Raises UserError (of any rank),
    ModelError, PlanMismatchError and Fault.
    """
    ensure_process_group(job, world)
    fit = Fit(job, rank=rank, world=world, report=report, stop=stop, preempted=preempted)
    try:
        return fit.run()
    except BaseException as error:
        if world == 1 or isinstance(
            error, NotFinite
        ):  # raised on all ranks alike: no part of the checkpoint is missing
            fit.written(final=False)
        raise
    finally:
        fit.close()


class Fit(Saving):
    """One run of the loop."""

    def __init__(
        self,
        job: TrainJob,
        *,
        rank: int,
        world: int,
        report: Report,
        stop: Ask | None = None,
        preempted: Ask | None = None,
    ) -> None:
        super().__init__(job, rank=rank, world=world, report=report)
        self.stop, self.preempted, self.noticed = stop, preempted, False
        self.signals = Signals(world)
        self.scored: dict[int, float] = {}  # step of the last validation -> its value, higher is better
        self.reported_at = self.saved_at = time.monotonic()
        self.rows_since = self.tokens_since = 0
        self.pending = self._zeros()  # loss sum and rows, of this rank
        self.profile = Profile(
            self.storage, job.run_rel, steps=0 if rank else job.profile, first=self.state.step, report=self.report
        )
        self.recent = Recent()

    def run(self) -> LoopResult:
        self.report(self._start_event())
        while self.state.ended is None and self.state.epoch < self.job.train.epochs:
            self._epoch()
        with self.clock("save"):
            self.written(final=True)
            self._reduce(torch.zeros(1))  # every rank's part is in storage before any rank says so
        return self._result()

    def close(self) -> None:
        self.end_room()
        self.profile.close()
        self.signals.close()
        self.engine.close()

    def _epoch(self) -> None:
        steps = ahead(self.feed.steps(self.state.epoch, self.state.batch))
        try:
            while True:
                with self.clock("train"):
                    step = next(steps, None)
                    if step is None:
                        return
                    factor = self.factor(self.state.step)
                    self.profile.step()
                    self._train(step, factor)
                watchdog.beat()
                self._advance(step)
                self._after_step(step, factor)
                if self.state.ended:
                    return
        finally:
            steps.close()  # type: ignore[attr-defined]

    # ---------------------------------------------------------------------------------------------- one step

    def _train(self, step: Step, factor: float) -> None:
        """One update. A rank adds its rows' loss sum x world / count of the whole batch, and the engine averages over ranks: so the
        update is that of the mean over all rows or tokens, whatever the accumulation, the world size and the padding."""
        scale, batch, place = self.world / step.count, self._zeros(), Place(self.state.step, step.epoch, step.batch)
        try:
            for number, micro in enumerate(step.micros):
                torch.manual_seed(rng.key("dropout", self.job.seed, self.state.step, number, self.rank) >> 1)
                logits = self.engine.forward(**micro.inputs)
                targets = {name: tensor.to(self.device) for name, tensor in micro.targets.items()}
                weight_B = micro.weight_B.to(self.device)
                summed, count = self.task.loss(logits, targets, weight_B, self.job.train.label_smoothing)
                if self.teachers:
                    summed = self.teachers.mixed(summed, logits, micro, targets, weight_B)
                self.engine.backward(summed * scale, last=number == len(step.micros) - 1)
                batch += torch.stack([summed.detach(), count])
                self.tokens_since += micro.tokens
            self.engine.update(factor)
        except (RuntimeError, MemoryError) as error:
            if not trouble.out_of_memory(error):
                raise
            raise trouble.too_large(
                self.job, error, step=self.state.step, rank=self.rank, micro_batch=self.micro_batch, device=self.device
            ) from error
        if self.engine.skipped:
            self._left_out(place)
            return
        self.pending += batch
        self.recent.add(place, batch[0])

    def _left_out(self, place: Place) -> None:
        """The engine has not taken the step: with `failures.not_finite: skip` training goes on without this batch."""
        rows = trouble.row_ids(self.feed, place)
        self.state.skipped += 1
        text = trouble.left_out(self.job, place, times=self.state.skipped, rows=rows)
        self.report({"type": "warning", "text": text})
        if self.state.skipped > self.job.train.failures.attempts:
            raise trouble.not_finite(self.job, place, value=math.nan, rows=rows)

    def _advance(self, step: Step) -> None:
        state = self.state
        state.step, state.batch = state.step + 1, step.batch + 1
        self.rows_since += step.rows
        if step.last:
            state.epoch, state.batch = state.epoch + 1, 0

    def _after_step(self, step: Step, factor: float) -> None:
        state, train = self.state, self.job.train
        last, epoch_ended = state.epoch == train.epochs, state.batch == 0
        if state.step % CHECK_EVERY == 0 or last:
            self.engine.check(factor)
        if state.step % train.report_every == 0 or last:
            self._report_step(step, factor)
        heard = self._hear()
        every = train.validation.every_steps
        due = last or (epoch_ended if every is None else state.step % every == 0)
        validated = due and len(self.held_out) > 0
        best = self._validate() if validated else False
        if last and state.ended is None:
            state.ended = "finished"
        if STOP in heard:
            state.ended = state.ended or "stopped"
        releases = (
            phases.releases(train.layers, state) if (epoch_ended or validated) and not state.ended else state.released
        )
        saves = train.checkpoint.every_steps
        wanted = bool(best or state.ended or heard or (due if saves is None else state.step % saves == 0))
        if releases > state.released:
            self._release(releases, best)
        elif self.job.checkpoints and wanted:
            self._save(best, reason="preemption" if PREEMPTED in heard else None)
        self.tell_written()

    def _hear(self) -> set[str]:
        """What some rank noticed, alike on all of them."""
        flags = set()
        if self.stop is not None and self.stop():
            flags.add(STOP)
        before, self.noticed = self.noticed, self.preempted is not None and self.preempted()
        if self.noticed and not before:  # one notice, one checkpoint
            flags.add(PREEMPTED)
        every_s = self.job.train.checkpoint.every_s
        if every_s and self.rank == 0 and time.monotonic() - self.saved_at >= every_s:
            self.saved_at = time.monotonic()
            flags.add(SAVE)
        return self.signals.exchange(flags)

    # ---------------------------------------------------------------------------------------------- reports

    def _report_step(self, step: Step, factor: float) -> None:
        ours = self.pending.new_tensor([self.tokens_since])
        loss_sum, rows, tokens = self._reduce(torch.cat([self.pending, ours])).tolist()
        self._refuse_not_finite(loss_sum)
        loss_sum, since = loss_sum + self.state.pending[0], rows + self.state.pending[1]
        seconds = time.monotonic() - self.reported_at
        norm = self.engine.grad_norm
        event = {
            "type": "step",
            "step": self.state.step,
            "steps": self.total_steps,
            "epoch": step.epoch,
            "loss": loss_sum / since if since else None,
            "lr": self.job.train.optimizer.lr * factor,
            "rows_per_s": self.rows_since / seconds,
            "tokens_per_s": tokens / seconds,
            "grad_norm": None if norm is None else float(norm),
        }
        self._clear_pending()
        self.state.pending = (0.0, 0.0)
        self.reported_at, self.rows_since, self.tokens_since = time.monotonic(), 0, 0
        self._tell(event)

    def _validate(self) -> bool:
        """Score the validation split; True where it is the best so far."""
        train, state, began = self.job.train, self.state, time.monotonic()
        with self.clock("validate"):
            found = validate(self.engine, self.held_out, reduce=self._reduce, beat=watchdog.beat)
        self._tell({"type": "validation", "step": state.step, "epoch": state.epoch, **found})
        metric, stopping = self.job.metric, train.early_stopping
        value = found[metric]
        self.scored = {state.step: -value if metric in LOWER else value}
        best = improved(value, state.best_value, metric=metric)
        counts = improved(value, state.best_value, metric=metric, min_delta=stopping.min_delta if stopping else 0.0)
        state.stale = 0 if counts else state.stale + 1
        state.flat = 0 if best else state.flat + 1
        if best:
            state.best_value, state.best_step = value, state.step
        if stopping and state.stale >= stopping.patience:
            state.ended = state.ended or "early_stopping"
        self.reported_at += time.monotonic() - began  # rows_per_s is of training
        return best

    # ---------------------------------------------------------------------------------------------- checkpoints, phases

    def _save(self, best: bool, reason: str | None = None) -> None:
        """Collective. Every rank copies its part; a thread writes it."""
        state, began = self.state, time.monotonic()
        with self.clock("save"):
            loss_sum, rows = self._reduce(self.pending).tolist()
            self._refuse_not_finite(loss_sum)  # a state that cannot be trained on is not one to go back to
            state.pending = (loss_sum + state.pending[0], rows + state.pending[1])
            self._clear_pending()
            self.save(score=self.scored.get(state.step), best=best, reason=reason)
        watchdog.beat()
        self.reported_at += time.monotonic() - began
        self.saved_at = time.monotonic()

    def _release(self, releases: int, best: bool) -> None:
        """The next phase of gradual unfreezing: ZeRO cuts the optimizer's groups when the engine is built, so another engine goes on
        from a checkpoint, as after a resume."""
        self.state.released, self.state.flat = releases, 0
        self._save(best, reason="release")
        with self.clock("release"):
            self.written(final=True)
            self._reduce(torch.zeros(1))
            self.engine.close()
            self._build(self.last_rel)
            self.make_room()
            self.engine.check(1.0)
            self._reduce(torch.zeros(1))
            if not self.job.checkpoints and self.rank == 0:
                self.storage.remove(f"{self.job.run_rel}/checkpoints")
        frozen = [row.name for row in self.plan if not row.trainable]
        self._tell({"type": "release", "step": self.state.step, "epoch": self.state.epoch, "frozen": frozen})

    # ---------------------------------------------------------------------------------------------- small parts

    def _refuse_not_finite(self, loss_sum: float) -> None:
        """Raises NotFinite, on every rank alike: for a loss since the last report, or for the gradient of the last update, which has made
        the weights what it was. (`skip` has left such an update out, and so has the loss scale of fp16.)"""
        what, value = "loss", loss_sum
        norm, train = self.engine.grad_norm, self.job.train
        if (
            math.isfinite(value)
            and norm is not None
            and train.failures.not_finite != "skip"
            and train.precision != "fp16"
        ):
            what, value = "gradient norm", float(norm)
        if not math.isfinite(value):
            place = self.recent.first_bad(world=self.world, device=self.device)
            raise trouble.not_finite(self.job, place, what=what, value=value, rows=trouble.row_ids(self.feed, place))

    def _tell(self, event: dict[str, Any]) -> None:
        self.state.history.append(event)
        self.report(event)

    def _zeros(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.float64, device=self.device)

    def _reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, on the CPU."""
        total = tensor.clone().to(self.device)
        if self.world > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def _clear_pending(self) -> None:
        self.pending.zero_()
        self.recent.steps.clear()

    def _start_event(self) -> dict[str, Any]:
        where = {
            "run": self.job.run_rel,
            "world": self.world,
            "pid": os.getpid(),
            "device": str(self.device),
            "precision": self.job.train.precision,
            "zero_stage": self.engine.stage,
            "attempt": self.attempt,
        }
        place = {"step": self.state.step, "steps": self.total_steps, "resumed_from": self.resumed_from}
        sizes = {
            "numel": sum(row.numel for row in self.plan),
            "trainable": sum(row.numel for row in self.plan if row.trainable),
        }
        return {"type": "start", **where, **place, **sizes, "rows": len(self.feed), "seconds": dict(self.clock.seconds)}

    def _result(self) -> LoopResult:
        state, kept = self.state, self.job.checkpoints
        blind = not len(self.held_out)
        last = self.last_rel or self.resumed_from
        return LoopResult(
            run_rel=self.job.run_rel,
            steps=state.step,
            total_steps=self.total_steps,
            ended=state.ended or "finished",
            best_checkpoint=(last if blind else state.best_rel) if kept else None,
            best_step=state.step if blind else state.best_step,
            metric=self.job.metric,
            best_value=state.best_value,
            last_checkpoint=last if kept else None,
            history=state.history,
            seconds=self.clock.seconds,
            plan=self.plan_values(),
            zero_stage=self.engine.stage,
            world=self.world,
            resumed_from=self.resumed_from,
            damaged=self.damaged,
            precision=self.job.train.precision,
        )

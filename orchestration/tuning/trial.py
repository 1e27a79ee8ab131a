"""One trial: the part of a sweep that runs on the cluster. Takes the sweep's TrainJob and the values Ray Tune drew; trains
with `loop.run` in this very process (one worker) or with `trainer.fit` (several), and reports each validation to Tune.
A trial changes spec paths, nothing else, and the trainer does not know that it is in a sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import os
import time
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from models.config import ModelConfig
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.telemetry import EVENTS, EventLog, clean
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob
from orchestration.tuning.space import METRIC, TIME, mode

PARTS: dict[str, type[BaseModel]] = {"train": TrainConfig, "model": ModelConfig}
THREAD_END_S = (
    "60"  # a stopped trial leaves its training step and frees its engine; Tune's 2 s would fail the next trial
)


def changed(job: TrainJob, values: dict[str, Any], *, run_rel: str, workers: int) -> TrainJob:
    """The job with spec paths (`train.optimizer.lr`, `model.dropout`) changed and validated as a spec would be.

    Raises UserError naming the path for a value that its part refuses.
    """
    # without defaults: those of one optimizer are no fields of another that a trial may choose
    dumped = {name: getattr(job, name).model_dump(mode="json", exclude_defaults=True) for name in PARTS}
    for path, value in values.items():
        part, _, rest = path.partition(".")
        if part not in PARTS or not rest:
            raise UserError(
                f"a trial cannot change {path}; allowed: paths under {' and '.join(f'{name}.' for name in PARTS)}"
            )
        _set(dumped[part], rest, value)
    parts: dict[str, Any] = {}
    for name, kind in PARTS.items():
        try:
            parts[name] = kind.model_validate(dumped[name], strict=True)
        except ValueError as error:
            shown = ", ".join(f"{path}={value}" for path, value in values.items())
            raise UserError(f"the values {shown} make no valid {name} part: {error}") from None
    return dataclasses.replace(job, **parts, run_rel=run_rel, world=workers, checkpoints=False)


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *keys, last = path.split(".")
    for key in keys:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[last] = value


def run_trial(
    config: dict[str, Any],
    *,
    job: TrainJob,
    fixed: dict[str, Any],
    metric: str,
    workers: int,
    sweep_rel: str,
    cluster: dict[str, Any],
) -> None:
    """What Ray Tune calls, in the trial's actor. `config`: spec path -> drawn value. Reports METRIC, the best so far."""
    from ray import tune

    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = THREAD_END_S  # read by Tune in this process when the actor is reused
    gc.collect()  # the trial before may have left its engine in a reference cycle
    run_rel = f"{sweep_rel}/trials/{tune.get_context().get_trial_name()}"
    reporter = Reporter(metric)
    with _kept(Storage(job.storage_url), run_rel) as log:

        def report(event: dict[str, Any]) -> None:
            log.add(clean({"time": round(time.time(), 3), **event}))
            if (values := reporter.seen(event)) is not None:
                tune.report(values)  # does not return where ASHA ends the trial: SystemExit unwinds the loop

        mine = changed(job, {**fixed, **clean(config)}, run_rel=run_rel, workers=workers)
        result = _train(mine, cluster, report)
        tune.report({**reporter.values(), "ended": result.ended})


def _train(job: TrainJob, cluster: dict[str, Any], report: Any) -> Any:
    if job.world == 1:
        from orchestration.training import loop

        return loop.run(job, rank=0, world=1, report=report)
    from orchestration.training import trainer

    return trainer.fit(job, cluster=cluster, on_event=report)


@contextlib.contextmanager
def _kept(storage: Storage, run_rel: str) -> Iterator[EventLog]:
    """The trial's events.jsonl, whole however the trial ends; an error is its last event, where the driver reads it."""
    log = EventLog(storage, f"{run_rel}/{EVENTS}")
    try:
        yield log
    except Exception as error:
        log.add({"type": "error", "text": told(error)})
        raise
    finally:
        log.flush()


def told(error: Exception) -> str:
    """One line: a sentence that was written for users as it stands, any other error with its kind."""
    lines = str(error).strip().splitlines() or [""]
    return " ".join(lines) if hasattr(error, "exit_code") else f"{type(error).__name__}: {lines[-1]}"


class Reporter:
    """Turns validation events into what Tune is told. The metric is the best so far, as the best checkpoint counts."""

    def __init__(self, metric: str) -> None:
        self.metric, self.validations = metric, 0
        self.best: float | None = None

    def seen(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Values to report for a validation; None for other events. Raises UserError where the metric is not a number."""
        if event.get("type") != "validation":
            return None
        value = clean(event.get(self.metric))
        if value is None or not math.isfinite(value):
            raise UserError(f"validation {self.metric} at step {event.get('step')} is not a number: the trial diverged")
        better = min if mode(self.metric) == "min" else max
        self.best = float(value) if self.best is None else better(self.best, float(value))
        self.validations += 1
        return {**self.values(), "event": clean(event)}

    def values(self) -> dict[str, Any]:
        """Raises UserError where there was no validation to judge the trial by."""
        if self.best is None:
            raise UserError(
                "the trial ended without a validation; set train.validation.every_steps to fewer steps than it has"
            )
        return {METRIC: self.best, TIME: self.validations}

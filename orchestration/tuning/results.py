"""What a sweep found: its trials and the best of them, as `sweep.py` gives them and as `load` reads them back from storage.
Plain values; knows nothing of Ray."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.tuning.config import FOLD
from orchestration.tuning.space import mode


@dataclass
class Trial:
    """`values`: spec path -> drawn value. `metric`: the best of its validations, None before the first. `history`: its
    validation events. `status`: running, finished, stopped (by ASHA) or failed. `seconds`: from start to end."""

    id: str
    values: dict[str, Any]
    run_rel: str
    metric: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    status: str = "running"
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class SweepResult:
    """`rel`: folder in storage. `trials` in the order they started; `best` is one of them."""

    sweep_id: str
    rel: str
    metric: str
    trials: list[Trial]
    best_id: str
    concurrent: int
    seconds: float

    @property
    def best(self) -> Trial:
        return next(trial for trial in self.trials if trial.id == self.best_id)


@dataclass(frozen=True)
class Folds:
    """Trials that differ in the fold that validates alone: mean and standard deviation (of a sample) of their metric."""

    values: dict[str, Any]
    trials: list[Trial]
    mean: float
    deviation: float


def folds(trials: list[Trial], metric: str) -> list[Folds]:
    """Best mean first; empty where the sweep is no cross-validation. Failed trials are left out."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if FOLD in trial.values and trial.metric is not None and trial.status != "failed":
            others = {path: value for path, value in trial.values.items() if path != FOLD}
            groups.setdefault(json.dumps(others, sort_keys=True), []).append(trial)
    found = []
    for others_json, members in groups.items():
        scores = [trial.metric for trial in members if trial.metric is not None]
        deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
        found.append(Folds(json.loads(others_json), members, statistics.fmean(scores), deviation))
    sign = 1.0 if mode(metric) == "min" else -1.0
    return sorted(found, key=lambda one: sign * one.mean)


def best(trials: list[Trial], metric: str) -> Trial:
    """The trial with the best metric, the earlier one where two are equal; in a cross-validation one of the values with the best mean over
    folds, since one fold may be easier than the others. Raises UserError where all failed."""
    crossed = folds(trials, metric)
    if crossed:
        trials = crossed[0].trials
    scored = [trial for trial in trials if trial.metric is not None and trial.status != "failed"]
    if not scored:
        first = next((trial for trial in trials if trial.error), None)
        told = f"; the first, {first.id} ({_shown(first.values)}): {first.error}" if first else ""
        raise UserError(f"all {len(trials)} trials of the sweep failed{told}")
    sign = 1.0 if mode(metric) == "min" else -1.0
    return min(scored, key=lambda trial: sign * trial.metric)  # type: ignore[operator]


def load(storage: Storage, sweep_id: str) -> SweepResult:
    """A finished sweep as it was written. Raises UserError naming the sweeps that exist."""
    rel = f"sweeps/{sweep_id}"
    try:
        described, trials = storage.read_json(f"{rel}/sweep.json"), storage.read_json(f"{rel}/trials.json")
    except FileNotFoundError:
        known = ", ".join(storage.list("sweeps")) or "none yet"
        raise UserError(f"no sweep {sweep_id!r} in {storage.url}; sweeps: {known}") from None
    if "best" not in described:
        raise UserError(f"sweep {sweep_id!r} in {storage.url} did not finish; run it again")
    return SweepResult(
        sweep_id=sweep_id,
        rel=rel,
        metric=described["tune"]["metric"],
        trials=[Trial(**values) for values in trials],
        best_id=described["best"],
        concurrent=described["concurrent"],
        seconds=described["seconds"],
    )


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in values.items())

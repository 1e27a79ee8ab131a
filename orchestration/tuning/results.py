"""What a sweep found: its trials and the best of them, as `sweep.py` gives them and as `load` reads them back from storage.
Plain values; knows nothing of Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage
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


def best(trials: list[Trial], metric: str) -> Trial:
    """The trial with the best metric, the earlier one where two are equal. Raises UserError where all failed."""
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

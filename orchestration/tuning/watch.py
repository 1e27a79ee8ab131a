"""Follows a sweep's trials in the driver. Takes what Ray Tune says of them; keeps them, writes `trials.json` after each and
passes events on. Made by `sweep.py`; imports Ray Tune, so it is imported late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray import tune

from orchestration.storage import Storage
from orchestration.telemetry import clean, read_events
from orchestration.terminal import MEASURED
from orchestration.tuning.results import Trial
from orchestration.tuning.space import METRIC, TIME


class Watch(tune.Callback):
    """Follows the trials in the driver: keeps them, writes trials.json after each, passes events on."""

    def __init__(self, storage: Storage, rel: str, *, metric: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.storage, self.rel, self.metric, self.on_event = storage, rel, metric, on_event
        self._trials: dict[str, Trial] = {}
        self._since: dict[str, float] = {}

    @property
    def trials(self) -> list[Trial]:
        return list(self._trials.values())

    def started(self, name: str, values: dict[str, Any]) -> None:
        self._since[name] = time.monotonic()
        self._trials[name] = Trial(id=name, values=clean(values), run_rel=f"{self.rel}/trials/{name}")
        self._tell(name)

    def reported(self, name: str, result: dict[str, Any]) -> None:
        trial = self._trials[name]
        trial.metric = result.get(METRIC, trial.metric)
        if event := result.get("event"):
            trial.history.append({key: event.get(key) for key in ("step", "epoch", *MEASURED) if key in event})
            self._tell(name)
        if "ended" in result:
            trial.status = "finished"

    def ended(self, name: str, error: str | None = None) -> None:
        trial = self._trials[name]
        trial.seconds = round(time.monotonic() - self._since[name], 3)
        trial.error = error
        trial.status = "failed" if error else "finished" if trial.status == "finished" else "stopped"
        self.storage.write_json(f"{self.rel}/trials.json", [asdict(trial) for trial in self.trials])
        self._tell(name)

    def _tell(self, name: str) -> None:
        trial = self._trials[name]
        event = {
            "type": "trial",
            "trial": name,
            "status": trial.status,
            TIME: len(trial.history),
            METRIC: trial.metric,
            "values": trial.values,
        }
        self.on_event({**event, **({"error": trial.error} if trial.error else {})})

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks to go on after a crash, which we do not do: a console cannot be pickled

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.started(str(trial), trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.reported(str(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended(str(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended(str(trial), error=self._error(str(trial)))

    def _error(self, name: str) -> str:
        """The trial's own last words; it has none where its process was killed."""
        told = [
            event["text"] for event in read_events(self.storage, self._trials[name].run_rel) if event["type"] == "error"
        ]
        return told[-1] if told else "its process died (out of memory, or the node was lost)"

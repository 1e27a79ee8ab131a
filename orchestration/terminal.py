"""How events look to people: one plain line each, or a bar a stage on a terminal. Takes the cleaned events of
`telemetry.py`, which alone calls it; writes to a text stream. Knows nothing of runs or storage."""

from __future__ import annotations

import json
import time
from typing import Any, TextIO

MEASURED = ("loss", "accuracy", "macro_f1", "pearson", "mae", "rmse", "perplexity")  # by a validation


def line(event: dict[str, Any]) -> str | None:
    """One plain line for an event; None for those that only bars show."""
    kind = event.get("type")
    stage = event.get("stage") or ""
    if kind == "stage" and event.get("status") != "started":
        return f"{stage}: {event['status']} after {duration(event['seconds'])}"
    if kind in ("warning", "info"):
        return f"{'warning: ' if kind == 'warning' else ''}{event.get('text', '')}"
    if kind == "progress":
        total = f" of {event['total']}" if event.get("total") else ""
        return f"{stage}: {event['done']}{total} {event.get('unit', 'rows')}"
    if kind in ("start", "step", "validation", "checkpoint", "release", "trial"):
        return f"{stage or kind}: {_words(kind, event)}"
    if kind == "trunk" and "done" in event:
        return f"{stage}: outputs of the frozen part, {event['done']:,} of {event['of']:,} rows"
    if event.get("text"):  # restart, decision, preemption, stop, hang ...
        return f"{stage or kind}: {event['text']}"
    rest = {key: value for key, value in event.items() if key not in ("time", "stage")}
    return None if kind == "stage" else f"{stage or kind}: {json.dumps(rest, ensure_ascii=False)}"


def _words(kind: str, event: dict[str, Any]) -> str:
    if kind == "step":
        head = f"step {event['step']}/{event.get('steps', '?')}"
        left = event.get("eta_s")
        shown = _numbers(event, ("epoch", "loss", "lr", "grad_norm", "rows_per_s", "tokens_per_s"))
        return "  ".join([head, *shown, *([f"eta {duration(left)}"] if left else [])])
    if kind == "start":
        zero = "no DeepSpeed" if event.get("zero_stage") is None else f"ZeRO {event['zero_stage']}"
        begin = f", resumed from {event['resumed_from']}" if event.get("resumed_from") else ""
        share = f"{event['trainable']:,} of {event['numel']:,} parameters trainable"
        return f"{event['run']} on {event['world']} x {event['device']}, {zero}, {share}, {event['rows']:,} rows, {event['steps']:,} steps{begin}"
    if kind == "validation":
        return "  ".join([f"validation at step {event['step']}", *_numbers(event, MEASURED)])
    if kind == "checkpoint":
        why = f"  ({event['reason']})" if event.get("reason") else ""
        return f"checkpoint at step {event['step']}  {event.get('rel', '')}{why}"
    if kind == "release":
        return f"step {event['step']}: layers released; frozen now: {', '.join(event['frozen']) or 'nothing'}"
    values = "  ".join(
        f"{path.rpartition('.')[2]}={_short(value)}" for path, value in (event.get("values") or {}).items()
    )
    return "  ".join(
        [f"trial {event.get('trial')} {event.get('status', '')}", *_numbers(event, ("validations", "metric")), values]
    )


def _numbers(event: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    shown = {
        "rows_per_s": "rows/s",
        "tokens_per_s": "tokens/s",
        "grad_norm": "grad",
        "macro_f1": "macro F1",
    }
    return [f"{shown.get(name, name)} {_short(event[name])}" for name in names if event.get(name) is not None]


def _short(value: Any) -> str:
    """Four significant digits; whole numbers whole."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """`7.3 s`, `2:05` (minutes), `1:02:05` (hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Lines:
    """Plain lines, for logs and pipes. Progress comes at most every 2 s: a log is read, not watched."""

    def __init__(self, out: TextIO) -> None:
        self.out, self._shown = out, 0.0

    def show(self, event: dict[str, Any]) -> None:
        if event.get("type") == "progress":
            last = event.get("total") is not None and event["done"] >= event["total"]
            if not last and time.monotonic() - self._shown < 2.0:
                return
            self._shown = time.monotonic()
        if (text := line(event)) is not None:
            print(text, file=self.out, flush=True)

    def close(self) -> None:
        pass


class Bars:
    """A bar a stage, on a terminal: done of total, rates, loss, time left. Everything else scrolls above the bars."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._terminal = Terminal(file=out, highlight=False)
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._terminal, transient=False
        )
        self._tasks: dict[str, Any] = {}

    def _task(self, stage: str) -> Any:
        if stage not in self._tasks:
            self._bars.start()
            self._tasks[stage] = self._bars.add_task(stage, total=None, note="")
        return self._tasks[stage]

    def show(self, event: dict[str, Any]) -> None:
        kind, stage = event.get("type"), event.get("stage") or ""
        if kind == "stage" and event["status"] == "started":
            self._task(stage)
        elif kind == "stage":
            self._finish(stage, event["status"])
        elif kind == "progress":
            self._bars.update(
                self._task(stage), completed=event["done"], total=event.get("total"), note=event.get("unit", "")
            )
        elif kind == "step":
            note = "  ".join(_numbers(event, ("loss", "lr", "rows_per_s", "tokens_per_s")))
            self._bars.update(
                self._task(stage or "train"), completed=event["step"], total=event.get("steps"), note=note
            )
        elif (text := line(event)) is not None:
            self._terminal.print(text, markup=False)

    def _finish(self, stage: str, status: str) -> None:
        """A finished stage keeps its full bar; when none runs, the live display ends and overdraws nothing more."""
        task = self._tasks.pop(stage, None)
        if task is not None:
            shown = next(found for found in self._bars.tasks if found.id == task)
            done = max(int(shown.completed), 1)
            full = status == "finished"
            total, completed = (done, done) if full else (shown.total, shown.completed)
            self._bars.update(task, total=total, completed=completed)
            self._bars.stop_task(task)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        self._bars.stop()
        for task in list(self._bars.task_ids):
            self._bars.remove_task(task)
        self._tasks.clear()

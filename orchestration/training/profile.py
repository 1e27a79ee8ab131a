"""Where the time of a training step goes. Takes the first rank's steps after a warm-up; writes torch's trace of them, which Perfetto and
chrome://tracing open, to `<run>/profile/steps-A-to-B.json`, and tells the operations that took most. The loop calls `step()` before each
step and `close()` at its end, on every rank: on the others, and where `--profile` was not given, both do nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from orchestration.storage import Storage

WARMUP = 2  # steps: the first ones allocate, and compile where the spec says so
TOP = 12


class Profile:
    """`steps`: how many to record; 0: none. `first`: updates behind the run at its start. `report`: what the loop reports with."""

    def __init__(
        self, storage: Storage, run_rel: str, *, steps: int, first: int, report: Callable[[dict[str, Any]], None]
    ) -> None:
        self.storage, self.run_rel, self.steps, self.report = storage, run_rel, steps, report
        self.now = first
        self.begins = first + WARMUP
        self._profiler: Any = None

    def step(self) -> None:
        """A step begins."""
        if not self.steps:
            return
        if self._profiler is not None and self.now == self.begins + self.steps:
            self.close()
            return
        if self.now == self.begins:
            self._start()
        self.now += 1

    def close(self) -> None:
        """Write what was recorded, also of a run that ended before its last wanted step."""
        if self._profiler is None:
            return
        profiler, self._profiler, recorded = self._profiler, None, self.now - self.begins
        self.steps = 0
        profiler.__exit__(None, None, None)
        rel = f"{self.run_rel}/profile/steps-{self.begins + 1}-to-{self.now}.json"
        aside = self.storage.staging()
        try:
            profiler.export_chrome_trace(str(aside / "trace.json"))
            self.storage.put(rel, aside / "trace.json")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        rows = table(profiler.key_averages(), steps=recorded)
        text = "\n".join([f"profile of {recorded} steps: {self.storage.path(rel)}", *lines(rows)])
        self.report({"type": "info", "text": text, "profile": rel, "operations": rows})

    def _start(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.__enter__()


def table(averages: Any, *, steps: int) -> list[dict[str, Any]]:
    """The operations that took most time by themselves, on the GPU where one was used: name, calls, milliseconds a step, share."""
    device = any(one.self_device_time_total for one in averages)

    def own_us(one: Any) -> float:
        return float(one.self_device_time_total if device else one.self_cpu_time_total)

    whole = sum(own_us(one) for one in averages) or 1.0
    return [
        {
            "name": one.key,
            "calls": one.count / steps,
            "ms": own_us(one) / 1000 / steps,
            "share": own_us(one) / whole,
        }
        for one in sorted(averages, key=own_us, reverse=True)[:TOP]
    ]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    width = max([len(row["name"][:50]) for row in rows], default=0)
    head = f"{'operation':<{width}}  {'ms a step':>10}  {'share':>6}  {'calls':>7}"
    return [
        head,
        *(
            f"{row['name'][:50]:<{width}}  {row['ms']:>10.2f}  {row['share']:>6.1%}  {row['calls']:>7.0f}"
            for row in rows
        ),
    ]

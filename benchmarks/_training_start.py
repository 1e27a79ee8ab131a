"""Seconds from a command to its first training step on two workers, and where they go: `eagleray train`, and what a Ray peer's events say of
its own start. Each in fresh processes with its own new Ray; the store is prepared, the peer's rows lie in Parquet. Called by
`_training_cluster`. Ours is counted to the line on standard output that tells of the first step."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks._inputs import command
from benchmarks._training_inputs import Rows
from benchmarks.harness import ROOT
from orchestration.errors import UserError

ROWS = 64  # two steps: the command runs to its proper end


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first step, the parts that add up to it, what was trained, and the first loss."""

    seconds: float
    parts: dict[str, float]
    work: dict[str, Any]  # world, parameters
    loss: float


def middle(starts: Sequence[Start]) -> Start:
    """The start of median length: its parts add up."""
    return sorted(starts, key=lambda start: start.seconds)[len(starts) // 2]


def ours(given: Rows, workers: int) -> Start:
    sets = [f"train.rows={ROWS}", "train.report_every=1", "train.validation.rows=1", f"cluster.workers={workers}"]
    began = time.time()
    lines = timed_lines(command("train", [*given.inputs.overrides, *sets]))
    events = [(at, json.loads(line)) for at, line in lines if line.startswith("{")]

    def when(**wanted: Any) -> tuple[float, dict[str, Any]]:
        for at, event in events:
            if all(event.get(key) == value for key, value in wanted.items()):
                return at, event
        raise UserError(f"`eagleray train` printed no event with {wanted}; it printed {[event for _, event in events]}")

    prepare, _ = when(type="stage", stage="prepare", status="started")
    train, _ = when(type="stage", stage="train", status="started")
    start, facts = when(type="start")
    stepped, step = when(type="step", step=1)
    _, result = when(type="result")
    given.inputs.storage.remove(f"runs/{result['run']}")
    inside = facts["seconds"]
    parts = {
        "command, spec, Ray start": prepare - began,
        "weights and store found": train - prepare,
        "workers start, their report": start - train - sum(inside.values()),
        **{f"in the worker: {name}": seconds for name, seconds in inside.items()},
        "first step": stepped - start,
    }
    work = {"world": facts["world"], "parameters": facts["numel"]}
    return Start(stepped - began, parts, work, step["loss"])


def recipe(events: list[dict[str, Any]], began: float) -> Start:
    """Of a Ray peer that was started at `began`."""
    start = next(event for event in events if event["type"] == "start")
    step = next(event for event in events if event["type"] == "step")
    at = start["parts"]
    parts = {
        "command, Ray start, workers start": at["entered"] - began,
        "in the worker: imports": at["imported"] - at["entered"],
        "in the worker: model and rows": at["loaded"] - at["imported"],
        "in the worker: deepspeed.initialize": at["built"] - at["loaded"],
        "first step": step["at"] - at["built"],
    }
    work = {"world": start["world"], "parameters": start["parameters"]}
    return Start(step["at"] - began, parts, work, step["loss"])


def timed_lines(arguments: Sequence[str], **environment: str) -> list[tuple[float, str]]:
    """Run to the end; (when it was printed, line) of standard output. Raises UserError where the command fails."""
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stdout is not None
        lines = [(time.time(), line.rstrip("\n")) for line in process.stdout]
    if process.returncode:
        raise UserError(
            f"{' '.join(arguments[:4])} ... ended with exit code {process.returncode}; its errors are above"
        )
    return lines

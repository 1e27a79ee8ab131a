"""Seconds from a command to its first training step on two workers, and where they go: `eagleray train` against the Ray manual's
DeepSpeed recipe, each in fresh processes with its own new Ray, in turn. The store is prepared, the rows of the peer lie in
Parquet, and the peer's compiled DeepSpeed ops are in their cache (its very first start compiles them; ours compiles nothing).
Counted to the line on standard output that tells of the first step."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._claim import Claim, compare
from benchmarks._inputs import Inputs, command, digest_ids, export
from benchmarks.harness import ROOT
from orchestration.errors import UserError
from orchestration.storage import cache_root

ROWS = 64  # two steps: both commands run to their proper end
STAGE = 2
WORKERS = 2


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first step, the parts that add up to it, and what was trained."""

    seconds: float
    parts: dict[str, float]
    work: dict[str, Any]  # world, stage, parameters, row ids
    loss: float


def first_step(inputs: Inputs, *, repeats: int) -> list[Claim]:
    split = inputs.store.split("train").head(ROWS)
    folder = cache_root() / "benchmarks" / "startup"
    shutil.rmtree(folder / "runs", ignore_errors=True)
    export(split, folder / "rows.parquet")
    compiled_s = peer(inputs, folder, name="compile").seconds  # fills the cache of compiled ops, or finds it full
    ours_: list[Start] = []
    peers: list[Start] = []
    for repeat in range(repeats):
        if repeat % 2:
            peers.append(peer(inputs, folder, name=f"start-{repeat}"))
        ours_.append(ours(inputs))
        if repeat % 2 == 0:
            peers.append(peer(inputs, folder, name=f"start-{repeat}"))
        print(
            f"first step: ours {ours_[-1].seconds:.1f} s, peer {peers[-1].seconds:.1f} s", file=sys.stderr, flush=True
        )
    same = all(start.work == ours_[0].work for start in ours_ + peers)
    near = all(abs(start.loss - math.log(2)) < 0.1 for start in ours_ + peers)  # an untrained head of two classes
    return [
        Claim(
            f"seconds from command to first step, {WORKERS} workers, ZeRO stage {STAGE}, against the Ray manual's DeepSpeed recipe",
            better="lower",
            unit="s",
            gate=same and near,
            gate_says=f"both train {ours_[0].work}; first losses {[round(start.loss, 3) for start in ours_ + peers]}",
            note=f"the recipe's start before these, which compiles DeepSpeed's ops where they are not cached yet, took {compiled_s:.0f} s",
            parts={"ours": middle(ours_).parts, "peer": middle(peers).parts},
            **compare([start.seconds for start in ours_], [start.seconds for start in peers]),
        )
    ]


def middle(starts: Sequence[Start]) -> Start:
    """The start of median length: its parts add up."""
    return sorted(starts, key=lambda start: start.seconds)[len(starts) // 2]


def ours(inputs: Inputs) -> Start:
    split = inputs.store.split("train").head(ROWS)
    sets = [
        f"train.rows={ROWS}",
        "train.report_every=1",
        "train.validation.rows=1",
        f"train.zero.stage={STAGE}",
        f"cluster.workers={WORKERS}",
    ]
    began = time.time()
    lines = timed_lines(command("train", [*inputs.overrides, *sets]))
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
    inputs.storage.remove(f"runs/{result['run']}")
    inside = facts["seconds"]
    parts = {
        "command, spec, Ray start": prepare - began,
        "weights and store found": train - prepare,
        "workers start, their report": start - train - sum(inside.values()),
        **{f"in the worker: {name}": seconds for name, seconds in inside.items()},
        "first step": stepped - start,
    }
    work = {
        "world": facts["world"],
        "stage": facts["zero_stage"],
        "parameters": facts["numel"],
        "rows": digest_ids(split.row_ids[: facts["rows"]]),
    }
    return Start(stepped - began, parts, work, step["loss"])


def peer(inputs: Inputs, folder: Path, *, name: str) -> Start:
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    config = {
        "model": str(inputs.folder),
        "rows": str(folder / "rows.parquet"),
        "batch": inputs.spec.train.batch,
        "stage": STAGE,
        "workers": WORKERS,
    }
    config |= {"name": name, "storage": str(folder / "runs"), "result": str(result)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    script = ROOT / "benchmarks" / "peers" / "ray_deepspeed.py"
    began = time.time()
    lines = timed_lines(
        [sys.executable, str(script), str(folder / "config.json")], TORCH_EXTENSIONS_DIR=str(folder / "compiled")
    )
    told = [at for at, line in lines if "first step done" in line]
    if not told or not result.exists():
        raise UserError(f"{script}: it told of no first step; it ended with {[line for _, line in lines[-5:]]}")
    facts = json.loads(result.read_text(encoding="utf-8"))
    at = facts["parts"]
    parts = {
        "command, Ray start, workers start": at["entered"] - began,
        "in the worker: imports": at["imported"] - at["entered"],
        "in the worker: model and rows": at["loaded"] - at["imported"],
        "in the worker: deepspeed.initialize": at["built"] - at["loaded"],
        "first step": told[0] - at["built"],
    }
    work = {
        "world": facts["world"],
        "stage": facts["stage"],
        "parameters": facts["parameters"],
        "rows": digest_ids(facts["row_ids"]),
    }
    return Start(told[0] - began, parts, work, facts["loss"])


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

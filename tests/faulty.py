"""Training workers that fail as they are told, and say which rows they train on. `installed(script)` puts `run` in the place of
`orchestration.training.worker.run` for the fits of this process; Ray carries it to the workers by value, so they need no tests.

A fault: {"step": 12, "do": "nan" | "full" | "sleep" | "disk", ...}, done once (a file says that it was), unless its condition says otherwise:
  nan    a weight becomes NaN, while the rate is that of the spec; with `always` at any rate
  full   an allocation fails on rank 1, wherever a micro-batch has more than `rows` rows; any step from `step` on
  sleep  rank `rank` sleeps for an hour
  disk   from then on no file can be longer than 1,000 bytes"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Script = list[dict[str, Any]]


@contextlib.contextmanager
def installed(script: Script | None = None) -> Iterator[None]:
    import ray.cloudpickle

    from orchestration.training import worker

    here, before = sys.modules[__name__], worker.run
    ray.cloudpickle.register_pickle_by_value(here)

    def run(config: dict[str, Any]) -> Any:
        return here.run(config, script or [])

    worker.run = run
    try:
        yield
    finally:
        worker.run = before
        ray.cloudpickle.unregister_pickle_by_value(here)


def run(config: dict[str, Any], script: Script) -> Any:
    """In the worker's process, which is new for each group."""
    from orchestration.training import loop, worker

    real, job = loop.Fit._train, config["job"]
    notes = Path(job.storage_url) / "notes" / job.run_rel.rpartition("/")[2]
    notes.mkdir(parents=True, exist_ok=True)

    def train(fit: Any, step: Any, factor: float) -> None:
        for number, fault in enumerate(script):
            _perhaps(fault, fit, notes / f"fault-{number}")
        real(fit, step, factor)
        _note(fit, step, notes)

    loop.Fit._train = train  # type: ignore[method-assign]
    return worker.run(config)


def _perhaps(fault: dict[str, Any], fit: Any, done: Path) -> None:
    import resource
    import time

    import torch

    kind = fault["do"]
    if kind == "full":
        if fit.rank == 1 and fit.state.step >= fault["step"] and (fit.micro_batch or 0) > fault["rows"]:
            fit.engine.forward = _cannot
        return
    if fit.state.step != fault["step"]:
        return
    if kind == "nan" and (fault.get("always") or fit.job.lr_scale == 1.0):
        with torch.no_grad():
            next(p for p in fit.engine.model.parameters() if p.requires_grad).fill_(float("nan"))
    elif kind == "sleep" and fit.rank == fault.get("rank", 1) and not done.exists():
        done.touch()
        time.sleep(3600)
    elif kind == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _cannot(**inputs: Any) -> Any:
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    )


def _note(fit: Any, step: Any, notes: Path) -> None:
    """A line for each batch: its place, and the rows of this rank by their tokens."""
    rows = []
    for micro in step.micros:
        ids_BL, mask_BL = micro.inputs["input_ids"], micro.inputs["attention_mask"]
        rows += [ids_BL[i][mask_BL[i].bool()].tolist() for i in range(len(ids_BL)) if float(micro.weight_B[i]) > 0]
    with open(notes / f"rows-{fit.attempt:06d}-{fit.rank}", "a") as file:
        file.write(json.dumps([step.epoch, step.batch, rows]) + "\n")


def epochs(root: Path, run: str) -> dict[int, Counter[tuple[int, ...]]]:
    """epoch -> how often each row was trained on, by what stayed: a batch that was trained on again counts with its last time."""
    last: dict[tuple[int, int], tuple[int, list[list[int]]]] = {}
    for path in sorted((root / "notes" / run).glob("rows-*")):
        attempt = int(path.name.split("-")[1])
        for line in path.read_text().splitlines():
            try:
                epoch, batch, rows = json.loads(line)
            except ValueError:
                continue  # cut short by a kill; what was in it did not stay
            before, held = last.get((epoch, batch), (0, []))
            last[epoch, batch] = (attempt, (held if before == attempt else []) + rows)
    found: dict[int, Counter[tuple[int, ...]]] = {}
    for (epoch, _), (_, rows) in last.items():
        found.setdefault(epoch, Counter()).update(tuple(row) for row in rows)
    return found

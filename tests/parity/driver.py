"""One rank of a parity run: `python -m tests.parity.driver ROOT RANK WORLD`. Takes the cases in ROOT/cases-WORLD.json and runs them
one after another in this process (a DeepSpeed import costs 5 s, a case well under one); rank 0 writes what came of them to
ROOT/found-WORLD.json. Started by the fixtures in conftest.py; knows neither Ray nor pytest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from orchestration.errors import PlanMismatchError
from orchestration.training import loop
from tests.tiny import make_job


def main(root: Path, rank: int, world: int) -> None:
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{root}/group", rank=rank, world_size=world)
    found = {}
    for case in json.loads((root / f"cases-{world}.json").read_text()):
        found[case["name"]] = DOES[case.pop("do", "run")](root, rank, world, **case)
    if rank == 0:
        (root / f"found-{world}.json").write_text(json.dumps(found))


def run(root: Path, rank: int, world: int, *, name: str, stop_at: int | None = None, **job: Any) -> dict[str, Any]:
    """A fit; `stop_at`: the caller stops it after that step. The run's name is the case's where `run` gives none."""
    events: list[dict[str, Any]] = []

    def stop() -> bool:
        return bool(stop_at) and any(e["type"] == "step" and e["step"] == stop_at for e in events)

    made = make_job(root, world=world, **{"run": name, **job})
    return loop.run(made, rank=rank, world=world, report=events.append, stop=stop).dump()


def breaking(root: Path, rank: int, world: int, *, name: str, **job: Any) -> dict[str, str | None]:
    """By what is broken by hand in the running optimizer: what `check` says, None where it is content."""
    made = make_job(root, run=name, world=world, checkpoints=False, **job)
    fit = loop.Fit(made, rank=rank, world=world, report=lambda event: None, stop=None)
    engine, said = fit.engine, {}
    said["intact"] = _refusal(engine)
    for key, broken in (("lr", 0.5), ("weight_decay", 0.25)):
        group = engine.param_groups()[2]
        before, group[key] = group[key], broken
        said[key] = _refusal(engine)
        group[key] = before
    for key, parameter in (("frozen", engine.trainable[0]), ("thawed", engine.plan[0].param_names[0])):
        tensor = engine.parameters[parameter]
        tensor.requires_grad_(not tensor.requires_grad)
        said[key] = _refusal(engine)
        tensor.requires_grad_(not tensor.requires_grad)
    said["mended"] = _refusal(engine)
    engine.param_groups()[0]["weight_decay"] = 0.125
    try:
        fit.run()
    except PlanMismatchError as error:
        said["while running"] = str(error)
    engine.close()
    return said


def _refusal(engine: Any) -> str | None:
    try:
        engine.check(1.0)
    except PlanMismatchError as error:
        return str(error)
    return None


DOES: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "breaking": breaking}

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

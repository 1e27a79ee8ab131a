"""One rank of a parity run: `python -m tests.parity.driver ROOT RANK WORLD`. Takes the cases in ROOT/cases-WORLD.json and runs them
one after another in this process (a DeepSpeed import costs 5 s, a case well under one); rank 0 writes what came of them to
ROOT/found-WORLD.json. Started by the fixtures in conftest.py; knows neither Ray nor pytest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from orchestration.training import loop
from tests.tiny import make_job


def main(root: Path, rank: int, world: int) -> None:
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{root}/group", rank=rank, world_size=world)
    found = {}
    for case in json.loads((root / f"cases-{world}.json").read_text()):
        found[case["name"]] = run(root, rank, world, **case)
    if rank == 0:
        (root / f"found-{world}.json").write_text(json.dumps(found))


def run(root: Path, rank: int, world: int, *, name: str, stop_at: int | None = None, **job: Any) -> dict[str, Any]:
    """A fit; `stop_at`: the caller stops it after that step. The run's name is the case's where `run` gives none."""
    events: list[dict[str, Any]] = []

    def stop() -> bool:
        return bool(stop_at) and any(e["type"] == "step" and e["step"] == stop_at for e in events)

    made = make_job(root, world=world, **{"run": name, **job})
    return loop.run(made, rank=rank, world=world, report=events.append, stop=stop).dump()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

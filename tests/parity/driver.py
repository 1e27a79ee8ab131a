"""One rank of a parity run: `python -m tests.parity.driver ROOT RANK WORLD`. Takes the cases in ROOT/cases-WORLD.json and runs them
one after another in this process (a DeepSpeed import costs 5 s, a case well under one); rank 0 writes what came of them to
ROOT/found-WORLD.json. Started by the fixtures in conftest.py; knows neither Ray nor pytest."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from orchestration.errors import PlanMismatchError
from orchestration.training import loop
from orchestration.training.feed import Step
from orchestration.training.process import ensure_process_group
from tests.parity import engine_cases
from tests.tiny import make_job


def main(root: Path, rank: int, world: int) -> None:
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{root}/group-{world}", rank=rank, world_size=world
        )
    found = {}
    for case in json.loads((root / f"cases-{world}.json").read_text()):
        gc.freeze()  # what is imported is not searched again each time an engine is closed: 0.3 s a case
        began = time.thread_time()
        found[case["name"]] = DOES[case.pop("do", "run")](root, rank, world, **case)
        print(f"{case['name']}: {time.thread_time() - began:.2f} s of processor time", flush=True)
    if rank == 0:
        (root / f"found-{world}.json").write_text(json.dumps(found))
    if world > 1:  # a rank that ends while another still talks to it is aborted by gloo's threads
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def run(root: Path, rank: int, world: int, *, name: str, stop_at: int | None = None, **job: Any) -> dict[str, Any]:
    """A fit; `stop_at`: the caller stops it after that step. The run's name is the case's where `run` gives none."""
    made, events = make_job(root, world=world, **{"run": name, **job}), Events(stop_at)
    result = loop.run(made, rank=rank, world=world, report=events.append, stop=events.stop)
    return {**result.dump(), "deepspeed": "deepspeed" in sys.modules}


class Events(list[dict[str, Any]]):
    """What a run reported; `stop` asks it to end once step `stop_at` was."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def stop(self) -> bool:
        return any(event["type"] == "step" and event["step"] == self.stop_at for event in self)


class Recorded(loop.Fit):
    """A fit that writes down what it trains on: by step, the token ids of this rank's rows."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.seen: dict[int, list[str]] = {}

    def _train(self, step: Step, factor: float) -> None:
        rows = self.seen.setdefault(self.state.step, [])
        for micro in step.micros:
            counts_B = micro.weight_B > 0
            for ids_L, mask_L in zip(
                micro.inputs["input_ids"][counts_B], micro.inputs["attention_mask"][counts_B], strict=True
            ):
                rows.append(" ".join(map(str, ids_L[mask_L.bool()].tolist())))
        super()._train(step, factor)


def recorded(root: Path, rank: int, world: int, *, name: str, stop_at: int | None = None, **job: Any) -> dict[str, Any]:
    """`run`, with `rows`: by step, the token ids of the rows of the global batch, ranks in order."""
    made, events = make_job(root, world=world, **{"run": name, **job}), Events(stop_at)
    ensure_process_group(made, world)
    fit = Recorded(made, rank=rank, world=world, report=events.append, stop=events.stop)
    result = fit.run().dump()
    fit.engine.close()
    ranks: list[Any] = [fit.seen]
    if world > 1:
        ranks = [None] * world
        torch.distributed.all_gather_object(ranks, fit.seen)
    rows = {str(step): [row for seen in ranks for row in seen[step]] for step in fit.seen}
    return {**result, "rows": rows}


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


DOES: dict[str, Callable[..., dict[str, Any]]] = {
    "run": run,
    "recorded": recorded,
    "breaking": breaking,
    "pieces": engine_cases.pieces,
    "skipping": engine_cases.skipping,
    "resuming": engine_cases.resuming,
    "releasing": engine_cases.releasing,
    "trained": engine_cases.trained,
    "reducing": engine_cases.reducing,
    "sharing": engine_cases.sharing,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

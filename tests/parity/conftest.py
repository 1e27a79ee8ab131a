"""All runs that need DeepSpeed or two ranks, made once: one pair of processes for world 2, one process for world 1."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from tests.parity import driver
from tests.tiny import make_job, make_store, make_weights

HERE = Path(__file__).resolve().parents[2]
STAGES = (0, 1, 2, 3)
ENGINES = ("auto", *STAGES)  # of two ranks; auto: bare torch, which must not load DeepSpeed, so its cases come first
MOVES = (("auto", 3), (3, 1), (1, 2), (2, 0), (0, "auto"))  # a run's stage before and after a stop
OFFLOADS = ((1, "optimizer"), (3, "optimizer"), (3, "all"))
TIMEOUT_S = 280.0
OPTIMIZERS: dict[str, dict[str, Any]] = {  # besides AdamW, which all other cases have
    "adam": {"name": "adam", "lr": 2e-3},
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "bare-sgd": {"name": "sgd", "lr": 0.1},
    "lamb": {"name": "lamb", "lr": 2e-2},
}
STEPPED = {  # under which stages each trains; SGD without momentum has no state for ZeRO to cut
    name: (1, 3) if name == "bare-sgd" else ENGINES for name in OPTIMIZERS
}
ADAPTERS = (
    ("lora", "auto"),
    ("bottleneck", "auto"),
    ("prompt", "auto"),
    ("prefix", "auto"),
    ("lora", 3),
    ("prefix", 3),
)
MODELS: dict[str, dict[str, Any]] = {"shared": {"share_layers": 1}, "pooled": {"pooling": "mean"}}
CHAINS: dict[str, tuple[Any, ...]] = {"lamb": ("auto", 3, 1), "sgd": (0, 3, 2)}  # two steps under each, then one rank
Case = dict[str, Any]
# One update at the peak rates, without weight decay: AdamW's first step moves a weight by just its rate.
ONE_STEP: Case = {
    "rows": 12,
    "schedule": {"name": "constant", "warmup": 0},
    "optimizer": {"lr": 2e-3, "weight_decay": 0.0},
}


def _cases(world: int) -> list[Case]:
    """The words of `driver.run`: dropout is 0, for other stages and world sizes draw it otherwise."""
    if world == 3:
        return [
            *({"name": f"{n}to3", "run": f"{n}to3", "do": "recorded"} for n in (1, 2)),
            *({"name": f"3to{n}-stopped", "run": f"3to{n}", "do": "recorded", "stop_at": 4} for n in (1, 3)),
            {"name": "3to3", "run": "3to3", "do": "recorded"},
            {"name": "3whole"},
            {"name": "reducing", "do": "reducing"},
            {"name": "sharing", "do": "sharing"},
        ]
    if world == 1:
        return [{"name": f"w{world}-stage{stage}", "zero": {"stage": stage}} for stage in STAGES]
    found: list[Case] = []
    for stage in ENGINES:
        found.append({"name": f"w{world}-stage{stage}", "zero": {"stage": stage}})
        zero, layers = {"stage": stage}, {"decay": 0.5, "freeze": 1}
        found.append({"name": f"micro{stage}", "zero": zero, "micro_batch": 2})
        found.append({"name": f"moved{stage}", "zero": zero, "layers": layers, **ONE_STEP})
        found.append({"name": f"broken{stage}", "do": "breaking", "zero": zero, "layers": layers})
        noisy: Case = {"zero": zero, "dropout": 0.1}
        found.append({"name": f"noisy{stage}-unbroken", **noisy})
        found.append({"name": f"noisy{stage}-stopped", **noisy, "run": f"noisy{stage}", "stop_at": 4})
        found.append({"name": f"noisy{stage}-resumed", **noisy, "run": f"noisy{stage}"})
    for stage in ENGINES:
        zero = {"stage": stage}
        found += [{"name": f"{do}{stage}", "do": do, "zero": zero} for do in ("pieces", "skipping", "releasing")]
        found.append({"name": f"kept{stage}", "do": "trained", "zero": zero, "dropout": 0.1})
    found.append({"name": "reducing", "do": "reducing"})
    found.append({"name": "sharing", "do": "sharing"})
    for stage in ("auto", 2, 3):
        again: Case = {"do": "trained", "zero": {"stage": stage}, "dropout": 0.1, "activation_checkpointing": True}
        found.append({"name": f"again{stage}", **again})
    for stage, offload in OFFLOADS:
        zero = {"stage": stage, "offload": offload}
        found.append({"name": f"there{stage}{offload}", "do": "trained", "zero": zero, "dropout": 0.1})
    for first, then in MOVES:
        run = f"from{first}to{then}"
        found.append({"name": f"{run}-stopped", "run": run, "zero": {"stage": first}, "stop_at": 4})
        found.append({"name": run, "run": run, "zero": {"stage": then}})
    for name, optimizer in OPTIMIZERS.items():
        found += [{"name": f"{name}{s}", "zero": {"stage": s}, "optimizer": optimizer} for s in STEPPED[name]]
    found += [{"name": f"{kind}-{s}", "adapter": kind, "zero": {"stage": s}} for kind, s in ADAPTERS]
    found += [
        {"name": f"{name}-{s}", "model": model, "zero": {"stage": s}}
        for name, model in MODELS.items()
        for s in ("auto", 3)
    ]
    for name, stages in CHAINS.items():
        chosen: Case = {"run": f"{name}-chain", "optimizer": OPTIMIZERS[name]}
        for i, stage in enumerate(stages):
            found.append({"name": f"{name}-chain{i}", "zero": {"stage": stage}, "stop_at": 2 * i + 1, **chosen})
        for stage in ENGINES:
            chosen = {"zero": {"stage": stage}, "optimizer": OPTIMIZERS[name]}
            found += [{"name": f"{name}-{do}{stage}", "do": do, **chosen} for do in ("resuming", "skipping")]
    found.append({"name": "2to3-stopped", "run": "2to3", "do": "recorded", "stop_at": 4})
    found.append({"name": "1to2", "run": "1to2", "do": "recorded"})
    found.append({"name": "shrunk-stopped", "run": "shrunk", "zero": {"stage": 2}, "stop_at": 4})
    return found


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with the tiny model and a store of 85 rows: seven batches of 12 and one of 1, in which a rank has none."""
    root = tmp_path_factory.mktemp("parity")
    make_weights(Storage(str(root)))
    make_store(Storage(str(root)), train=85)
    return root


@pytest.fixture(scope="session")
def begun(root: Path) -> dict[str, Any]:
    """By case: what one rank gave until it was stopped, for others to go on."""
    with one_thread():
        return {
            f"1to{n}-stopped": driver.recorded(root, 0, 1, name=f"1to{n}", micro_batch=5, stop_at=4) for n in (1, 2, 3)
        }


@pytest.fixture(scope="session")
def of_two(root: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """By case: what two ranks gave."""
    return _run(root, world=2)


@pytest.fixture(scope="session")
def of_three(root: Path, of_two: dict[str, Any]) -> dict[str, Any]:
    """By case: what three ranks gave."""
    return _run(root, world=3)


@pytest.fixture(scope="session")
def of_one(root: Path) -> dict[str, Any]:
    """By case: what DeepSpeed gave on one rank."""
    return _run(root, world=1)


@pytest.fixture(scope="session")
def bare(root: Path) -> dict[str, Any]:
    """By case: what bare torch gives, in this process."""
    with one_thread():
        whole = loop.run(make_job(root, run="bare"), report=_ignore)
        parts = loop.run(make_job(root, run="bare-micro", micro_batch=3), report=_ignore)
        kinds = dict.fromkeys(kind for kind, _ in ADAPTERS)
        adapted = {k: loop.run(make_job(root, run=f"bare-{k}", adapter=k), report=_ignore).dump() for k in kinds}
        changed = {
            n: loop.run(make_job(root, run=f"bare-{n}", model=m), report=_ignore).dump() for n, m in MODELS.items()
        }
    return {"whole": whole.dump(), "micro": parts.dump(), **adapted, **changed}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As the processes of `_run` have it: sums in the same order, so that equal means equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def losses(result: dict[str, Any]) -> list[float]:
    return [event["loss"] for event in result["history"] if event["type"] == "step"]


def _ignore(event: dict[str, Any]) -> None:
    pass


@pytest.fixture(scope="session")
def weights(root: Path) -> Callable[[dict[str, Any]], dict[str, torch.Tensor]]:
    """The weights in the last checkpoint of a result."""
    return lambda result: checkpoint.open(Storage(str(root)), result["last_checkpoint"]).weights()


@pytest.fixture(scope="session")
def moments(root: Path) -> Callable[[dict[str, Any]], dict[str, torch.Tensor]]:
    """The optimizer's, in the last checkpoint of a result."""
    return lambda result: checkpoint.open(Storage(str(root)), result["last_checkpoint"]).moments()


def _run(root: Path, *, world: int) -> dict[str, Any]:
    (root / f"cases-{world}.json").write_text(json.dumps(_cases(world)))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TOKENIZERS_PARALLELISM": "false"}
    logs = [root / f"log-{world}-{rank}.txt" for rank in range(world)]
    ranks = []
    for rank, log in enumerate(logs):
        command = [sys.executable, "-m", "tests.parity.driver", str(root), str(rank), str(world)]
        with log.open("w") as out:
            ranks.append(subprocess.Popen(command, cwd=HERE, env=env, stdout=out, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(TIMEOUT_S) for process in ranks]
    except subprocess.TimeoutExpired:
        codes = [-1]
    finally:
        for process in ranks:  # a rank whose peer died waits in a collective
            process.kill()
    assert not any(codes), "\n".join(log.read_text()[-3000:] for log in logs)
    return dict(json.loads((root / f"found-{world}.json").read_text()))

"""How many trials run at once. Takes what the live cluster has and what a trial needs; gives a number, from a pure function.
Trials of several workers are outside Ray Tune's own accounting, so one too many would leave all of them waiting for the
rest of their workers for ever. Called by `sweep.py`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from orchestration.errors import UserError


@dataclass(frozen=True)
class Node:
    """`cpus`, `gpus`: what Ray schedules. `cores`: the machine's own; None: as many as `cpus`."""

    cpus: float
    gpus: float = 0.0
    cores: int | None = None


@dataclass(frozen=True)
class Room:
    """`concurrent` trials at once, each worker with `cpus` and `gpus`."""

    concurrent: int
    cpus: float
    gpus: float


def room(
    nodes: list[Node],
    free: dict[str, float],
    *,
    trials: int,
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float | None,
    wanted: int | None,
) -> Room:
    """`free`: what the cluster has unused now. `wanted`: the spec's `tune.concurrent`.

    Logical CPUs may exceed the machine's cores (Ray inside one machine starts with at least four), so workers that compute are
    counted by cores; a single trial may take logical CPUs. Raises UserError where not even one trial fits.
    """
    gpus = gpus_per_worker
    if gpus is None:
        gpus = 1.0 if sum(node.gpus for node in nodes) >= workers else 0.0
    logical = sum(_slots(node.cpus, node.gpus, cpus_per_worker, gpus) for node in nodes) // workers
    if logical == 0:
        have = f"{sum(n.cpus for n in nodes):g} CPUs and {sum(n.gpus for n in nodes):g} GPUs on {len(nodes)} node(s)"
        raise UserError(
            f"a trial of tune.workers={workers} needs {workers} x {cpus_per_worker:g} CPUs and {workers} x {gpus:g} GPUs, the cluster has {have};"
            " lower tune.workers, cluster.cpus_per_worker or cluster.gpus_per_worker"
        )
    real = (
        sum(_slots(min(node.cpus, node.cores or node.cpus), node.gpus, cpus_per_worker, gpus) for node in nodes)
        // workers
    )
    now = _slots(free.get("CPU", 0.0), free.get("GPU", 0.0), cpus_per_worker, gpus) // workers
    return Room(concurrent=max(1, min(trials, real, now, wanted or trials)), cpus=cpus_per_worker, gpus=gpus)


def _slots(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    """Workers that fit into so many CPUs and GPUs; fractions of 1e-9 are rounding of Ray's own."""
    by_cpu = math.floor(cpus / cpus_each + 1e-9)
    return min(by_cpu, math.floor(gpus / gpus_each + 1e-9)) if gpus_each else by_cpu


def live_nodes() -> list[Node]:
    """The nodes of the connected cluster. Of this machine the cores are counted, elsewhere Ray's number is trusted."""
    import ray

    here = ray.util.get_node_ip_address()
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            resources: dict[str, Any] = node["Resources"]
            cores = len(os.sched_getaffinity(0)) if node["NodeManagerAddress"] == here else None
            found.append(Node(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), cores=cores))
    return found

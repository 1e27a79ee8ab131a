"""What a cluster could hold, asked without holding anything: this machine's own numbers, or the live cluster's at `address`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cluster.config import ClusterConfig
from cluster.local import MIN_LOGICAL_CPUS, join


@dataclass(frozen=True)
class Capacity:
    """`cpus`: what Ray schedules (logical); `cores`: what there is, None for a remote cluster. `memory_bytes`: of all nodes."""

    cpus: float
    gpus: float
    nodes: int
    memory_bytes: int
    cores: int | None


def capacity(config: ClusterConfig) -> Capacity:
    """Raises ClusterError where `cluster.address` does not answer."""
    if config.address is None:
        cores = os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        logical = max(MIN_LOGICAL_CPUS, cores, int(config.most_workers * config.cpus_per_worker) + 2)
        return Capacity(cpus=logical, gpus=float(_local_gpus()), nodes=1, memory_bytes=memory, cores=cores)
    join(config.address, log_to_driver=False, logging_level="ERROR")
    import ray

    try:
        found = ray.cluster_resources()
        return Capacity(
            cpus=found.get("CPU", 0.0),
            gpus=found.get("GPU", 0.0),
            nodes=sum(node["Alive"] for node in ray.nodes()),
            memory_bytes=int(found.get("memory", 0)),
            cores=None,
        )
    finally:
        ray.shutdown()


def _local_gpus() -> int:
    """NVIDIA devices of this machine, without importing torch."""
    return (
        len([name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit()])
        if os.path.isdir("/dev")
        else 0
    )

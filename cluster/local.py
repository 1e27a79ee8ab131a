"""Ray for one command. Takes the `cluster` part of the spec; starts Ray inside this machine or joins the cluster at
`address`, ships the staged packages, and leaves nothing behind. Every verb that computes runs inside `session`."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from typing import Any

from cluster.config import ClusterConfig
from cluster.runtime_env import ClusterError, runtime_env, stage

# Two workers of one CPU each plus Ray Data, Tune and Serve need more than two logical CPUs, or the pipeline waits for ever.
MIN_LOGICAL_CPUS = 4


@contextlib.contextmanager
def session(config: ClusterConfig, *, files: dict[str, str] | None = None, dashboard: bool = False) -> Iterator[dict[str, Any]]:
    """Yields `{"address", "cpus", "gpus", "nodes"}` of a live Ray; shuts down what it started, however the block ends.

    `files`: name -> text, shipped beside the packages (the resolved spec). Raises ClusterError where a cluster does not answer.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about a coming default
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # we print our own
    import ray

    folder, mark = stage(files)
    try:
        _start(ray, config, runtime_env(folder, mark, config.env), dashboard)
        resources = ray.cluster_resources()
        yield {
            "address": ray.get_runtime_context().gcs_address,
            "cpus": resources.get("CPU", 0.0),
            "gpus": resources.get("GPU", 0.0),
            "nodes": sum(node["Alive"] for node in ray.nodes()),
        }
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(ray: Any, config: ClusterConfig, env: dict[str, Any], dashboard: bool) -> None:
    """Embedded Ray always starts its own cluster (`address="local"`): it never joins a stray one by accident."""
    address = config.address or os.environ.get("EAGLERAY_ADDRESS")
    if address is None and "RAY_JOB_ID" in os.environ:
        address = "auto"  # inside a submitted job
    common: dict[str, Any] = {"runtime_env": env, "logging_level": logging.WARNING, "log_to_driver": True}
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"cluster.address={address}: no Ray cluster answers ({str(error).splitlines()[0]}); start one with `ray start --head`, or leave"
                " cluster.address out to run inside this machine"
            ) from None
        return
    logical = max(MIN_LOGICAL_CPUS, os.cpu_count() or 1, int(config.workers * config.cpus_per_worker) + 2)
    ray.init(address="local", num_cpus=logical, include_dashboard=dashboard, **common)

"""Ray for one command. Takes the `cluster` part of the spec; starts Ray inside this machine or joins the cluster at
`address`, ships the staged packages, and leaves nothing behind. Every verb that computes runs inside `session`."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.auth import HOW, ensure_token, find_token, join_with_token, quiet
from cluster.config import ClusterConfig
from cluster.errors import ClusterError
from cluster.runtime_env import VARIABLE, assert_ours, assert_shipped, runtime_env, stage
from cluster.template import template

# Two workers of one CPU each plus Ray Data, Tune and Serve need more than two logical CPUs, or the pipeline waits for ever.
MIN_LOGICAL_CPUS = 4
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a submitted job, and for nothing else


@contextlib.contextmanager
def session(
    config: ClusterConfig,
    *,
    files: dict[str, str] | None = None,
    dashboard: bool = False,
    modules: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yields `{"address", "cpus", "gpus", "nodes", "embedded"}` of a live Ray; shuts down what it started, however the block ends.

    `files`: name -> text, shipped beside the packages (the resolved spec). Inside a job that `eagleray submit` sent, the
    packages and the spec are on the cluster already and are used as they are. `modules`: what most workers will import; an embedded
    Ray forks its workers from a process that has. Raises ClusterError where a cluster does not answer.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about a coming default
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # we print our own
    address = _address(config)
    with contextlib.ExitStack() as stack:
        folder, env = _shipment(config, files)
        if folder is not None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if address is None:
            ensure_token()
            # Ray would start two workers without our environment at once (1 s of processor time), which nothing here can use.
            os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
            if env is not None and (python := stack.enter_context(template(modules, env["env_vars"]))):
                env["py_executable"] = python
        import ray

        stack.callback(ray.shutdown)
        _start(ray, config, address, env, dashboard)
        resources = ray.cluster_resources()
        yield {
            "address": ray.get_runtime_context().gcs_address,
            "cpus": resources.get("CPU", 0.0),
            "gpus": resources.get("GPU", 0.0),
            "nodes": sum(node["Alive"] for node in ray.nodes()),
            "embedded": address is None,
        }


def _address(config: ClusterConfig) -> str | None:
    """Where to join; None: start Ray here."""
    address = config.address or os.environ.get("EAGLERAY_ADDRESS")
    return "auto" if address is None and IN_JOB in os.environ else address  # auto: inside a submitted job


def _shipment(config: ClusterConfig, files: dict[str, str] | None) -> tuple[Any, dict[str, Any] | None]:
    """The staged folder and Ray's runtime environment; (None, None) where a submitted job has brought both."""
    if IN_JOB in os.environ and os.environ.get(VARIABLE):
        assert_shipped()  # the command itself must run the shipped copy, as the workers must
        return None, None
    assert_ours()
    folder, mark = stage(files)
    return folder, runtime_env(folder, mark, config.env)


def _start(ray: Any, config: ClusterConfig, address: str | None, env: dict[str, Any] | None, dashboard: bool) -> None:
    """Embedded Ray always starts its own cluster (`address="local"`): it never joins a stray one by accident."""
    common: dict[str, Any] = {
        "runtime_env": env,
        "logging_level": logging.WARNING,
        "log_to_driver": bool(os.environ.get("EAGLERAY_WORKER_LOGS")),
    }
    if address is None:
        logical = max(MIN_LOGICAL_CPUS, os.cpu_count() or 1, int(config.most_workers * config.cpus_per_worker) + 2)
        ray.init(address="local", num_cpus=logical, include_dashboard=dashboard, **common)
        return
    if IN_JOB in os.environ and env is not None:
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = (
            "1"  # a job somebody else's tool sent: our staged copy replaces its folder
        )
    join(address, **common)


def join(address: str, **options: Any) -> None:
    """`ray.init` at a running cluster, with its token. Raises ClusterError where that cannot be joined from here."""
    if "://" in address:
        raise ClusterError(
            f"cluster.address={address}: that is a dashboard; `eagleray submit` sends a job to it, to join a cluster from one of its machines write"
            " auto or host:port"
        )
    quiet() if address == "auto" else join_with_token()  # at `auto` Ray itself turns tokens on
    import ray

    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        token = find_token()
        sent = (
            f"the token from {token.origin} was sent; if it is not that cluster's, {HOW}"
            if token
            else f"no token was sent; if it asks for one, {HOW}"
        )
        raise ClusterError(
            f"cluster.address={address}: this machine cannot join a Ray cluster there ({first}; {sent}). Start one with `ray start --head`, send the job"
            " to its dashboard with `eagleray submit --address http://host:8265`, or leave cluster.address out to run inside this machine"
        ) from None

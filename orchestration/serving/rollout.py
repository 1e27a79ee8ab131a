"""Waiting for what Ray Serve does: start, stop, drain. Takes application names; gives back when it is so, or raises
UserError with Serve's own reason. Called by `app.py`. Knows nothing of packages."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

import ray
from ray import serve

from orchestration.errors import UserError
from orchestration.serving.replicas import ROUTER

POLL_S = 0.2
REMOVE_S = 3700.0  # a request may take an hour, the longest timeout_s


def running() -> list[str]:
    """Names of the applications on this Ray, whatever their state; empty where Serve does not run."""
    from ray.serve.context import _get_global_client

    if _get_global_client(raise_if_no_controller_running=False) is None:
        return []
    return list(serve.status().applications)


def wait_running(application: str, *, timeout_s: float) -> None:
    """Raises UserError with the replica's last error where it fails to start, or Serve's message when time is up."""
    state: Any = None
    for _ in _until(timeout_s):
        state = serve.status().applications.get(application)
        if state is None:
            continue
        if state.status == "RUNNING":
            return
        if state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise UserError(f"{application} did not start: {_reason(state)}")
    raise UserError(f"{application} is not up after {timeout_s:.0f} s: {_reason(state) if state else 'never created'}")


def _reason(state: Any) -> str:
    """The last line of a replica's traceback is the sentence that says what is wrong."""
    texts = [deployment.message for deployment in state.deployments.values() if deployment.message] or [state.message]
    lines = [line.strip() for line in "\n".join(texts).splitlines() if line.strip()]
    told = [line for line in lines if "Error: " in line]
    return (told or lines or ["no reason given"])[-1]


def wait_http(url: str, *, timeout_s: float) -> None:
    """Until GET answers 200."""
    last = "no answer"
    for _ in _until(timeout_s):
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            last = f"HTTP {error.code}"
        except OSError as error:
            last = str(error)
    raise UserError(f"{url} is not ready after {timeout_s:.0f} s: {last}")


def wait_drained(router: str, versions: Iterable[str], *, timeout_s: float) -> None:
    """Until no router replica has a request inside one of these versions; at most as long as a request may take."""
    handle = serve.get_deployment_handle(ROUTER, app_name=router)
    for version in versions:
        for _ in _until(timeout_s):
            if sum(handle.broadcast("inflight", version).results(timeout_s=10)) == 0:
                break


def remove(applications: Iterable[str]) -> None:
    """Delete what is there of these, all at once, each finishing its requests first; and wait for it."""
    gone = set(applications) & set(running())
    for application in gone:
        serve.delete(application, _blocking=False)
    for _ in _until(REMOVE_S):
        if not gone & set(running()):
            return
    raise UserError(
        f"Ray Serve did not remove {', '.join(sorted(gone))} within {REMOVE_S:.0f} s; see its controller's log"
    )


def fail_unless_room(replicas: int) -> None:
    """The new version runs beside the old: refuse before it would wait for ever."""
    free = ray.available_resources().get("CPU", 0.0)
    if free < replicas:
        raise UserError(
            f"serve.replicas={replicas}: the new version runs beside the old one and needs {replicas} free CPU(s), the"
            f" cluster has {free:g}; promote with --set serve.replicas={max(1, int(free))}, or add nodes"
        )


def on_head() -> bool:
    """Whether this driver runs on the cluster's head node, where a loopback endpoint listens."""
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and "node:__internal_head__" in node["Resources"] for node in ray.nodes())


def _until(timeout_s: float) -> Iterable[int]:
    """Counts polls until time is up; the first comes at once."""
    end, count = time.monotonic() + timeout_s, 0
    while count == 0 or time.monotonic() < end:
        yield count
        count += 1
        time.sleep(POLL_S)

"""Putting packages behind an endpoint and moving traffic between them, on the Ray that is connected. Takes a package in
storage and the `serve` part of the spec; gives an HTTP endpoint and its record `endpoints/<name>.json`. A version is an
application of its own, so `promote` is: deploy beside, verify its logits through the real handle, move the router's
weight, drain, remove. Called by `jobs/serve.py`, `jobs/promote.py` and the pipeline. Knows nothing of the registry."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import serve
from ray._private.runtime_env.packaging import pin_runtime_env_uri

from models.config import LABELLED
from orchestration import inference, package, probes
from orchestration.answers import facts, kinds
from orchestration.errors import UserError
from orchestration.serving import record
from orchestration.serving.config import ServeConfig
from orchestration.serving.record import Endpoint
from orchestration.serving.replicas import ROUTER, VERSION, RouterReplica, Version
from orchestration.serving.rollout import (
    fail_unless_room,
    on_head,
    remove,
    running,
    wait_drained,
    wait_http,
    wait_running,
)
from orchestration.storage import Storage

READY_S = 300.0  # a large package on a slow disk; a failed constructor is told at once
# Ray drops a shipped package when its driver and the last actor with it are gone. A driver that deploys and leaves must
# not take the package with it: the next replica could not start. 10 years stands for the life of the cluster.
PINNED_S = 10 * 365 * 24 * 3600
LOGGING = {"log_level": "WARNING", "enable_access_log": False}  # a line a request would flood the terminal


@dataclass(frozen=True)
class Promotion:
    """What `promote` did. `old`: the versions that no longer run."""

    endpoint: Endpoint
    old: list[str]
    new: str
    seconds: dict[str, float]


def deploy(*, name: str, storage: Storage, package_rel: str, version: int | str, config: ServeConfig) -> Endpoint:
    """Serve one version under `name` and wait until it answers over HTTP.

    Raises UserError where the port or name is taken, the token is not set, or the package is damaged or gives other
    logits than at training time; nothing stays deployed then.
    """
    limits = _limits(config)
    _start_http(config)
    if name in running():
        raise UserError(f"endpoint {name!r} is served on this Ray already; use `promote`, or stop it first")
    route, url = _route(name, storage, package_rel, str(version), config), _url(config)
    fixed = _Fixed(limits, config.max_queue, _options(0), os.urandom(8).hex(), route["task"], tuple(route["reads"]))
    try:  # both at once: the router starts while the replicas open the package
        _run(_version_app(route, storage, config), _router_app(name, {str(version): route}, fixed))
        _wait_verified(route, storage)
        wait_running(name, timeout_s=READY_S)
        if on_head() or config.token_env is not None:
            wait_http(f"{url}/readyz", timeout_s=READY_S)
    except BaseException:
        remove([name, route["application"]])
        raise
    return _record(storage, name, url, {str(version): route})


def promote(
    *,
    name: str,
    storage: Storage,
    package_rel: str,
    version: int | str,
    config: ServeConfig,
    say: Callable[[str], None] = lambda line: None,
) -> Promotion:
    """Move a live endpoint to another version; no request is lost. The connected Ray must be the record's.

    Raises UserError where there is no such endpoint, or the new version is of another task, does not start or gives other
    logits: then the old one goes on as if nothing had been.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    known, new = record.find(storage, name), str(version)
    if name not in running():
        raise UserError(f"endpoint {name!r} does not run on this Ray; start it with `eagleray serve`")
    if new in known.versions:
        raise UserError(f"endpoint {name!r} serves version {new} already")
    route, started = _route(name, storage, package_rel, new, config), time.monotonic()
    fixed = _Fixed(**serve.get_deployment_handle(ROUTER, app_name=name).fixed.remote().result(timeout_s=30))
    _check_task(name, fixed.task, new, route["task"])
    _check_reads(name, fixed.reads, new, route["reads"])
    fail_unless_room(config.replicas)
    say(f"version {new}: starting {config.replicas} replica(s) beside {', '.join(known.versions)}")
    try:
        _run(_version_app(route, storage, config))
        _wait_verified(route, storage)
    except BaseException:
        remove([route["application"]])
        raise
    ready = time.monotonic()
    say(f"version {new}: ready, its logits are those of training; moving the traffic")
    _run(_router_app(name, {new: route}, fixed))
    wait_running(name, timeout_s=READY_S)
    moved = time.monotonic()
    endpoint = _record(storage, name, known.url, {new: route})
    old = [key for key in known.versions if key != new]
    wait_drained(name, old, timeout_s=fixed.limits["timeout_s"] + 5)
    remove([known.versions[key]["application"] for key in old])
    say(f"version {new}: answers all requests; {', '.join(old)} drained and removed")
    seconds = {"start": ready - started, "move": moved - ready, "drain": time.monotonic() - moved}
    return Promotion(endpoint=endpoint, old=old, new=new, seconds=seconds)


def undeploy(*, name: str, storage: Storage) -> None:
    """Stop taking requests, finish those inside, remove all versions and the record."""
    mine = [app for app in running() if app == name or app.startswith(f"{name}-v")]
    remove([name])  # first, so that no request comes after its version went
    remove([app for app in mine if app != name])
    record.forget(storage, name)


# ------------------------------------------------------------------------------------------------ parts of a deployment


@dataclass(frozen=True)
class _Fixed:
    """What stays as it is for the router's life; asked of the router itself at `promote`, since it holds the token's
    digest and the cluster's environment, which do not belong into storage."""

    limits: dict[str, Any]
    max_queue: int
    options: dict[str, Any]
    code: str
    task: str
    reads: tuple[str, ...] = ("text",)


def _record(storage: Storage, name: str, url: str, routes: dict[str, dict[str, Any]]) -> Endpoint:
    shown = {key: {part: route[part] for part in ("application", "weight", "package")} for key, route in routes.items()}
    endpoint = Endpoint(name=name, url=url, address=ray.get_runtime_context().gcs_address, versions=shown)
    record.write(storage, endpoint)
    return endpoint


def _route(name: str, storage: Storage, package_rel: str, version: str, config: ServeConfig) -> dict[str, Any]:
    """What the router knows of a version. Raises DamagedError where the package is not sealed."""
    folder = storage.fetch(package_rel)
    task = package.read_json(folder, "task.json")["task"]
    labels = package.read_json(folder, "config.json")["id2label"] if task in LABELLED else {}
    return {
        "application": f"{name}-v{version}",
        "weight": 1.0,
        "package": package_rel,
        "task": task,
        "reads": list(facts.reads_of(folder)),
        "labels": [labels[str(i)] for i in range(len(labels))],
        "lineage": package.read_json(folder, "lineage.json"),
        "facts": facts.facts(folder, config.max_new_tokens),
    }


def _check_task(name: str, task: str, version: str, found: str) -> None:
    """Clients of one route cannot be moved to another."""
    if found != task:
        raise UserError(
            f"endpoint {name!r} answers for {task} at {kinds.KINDS[task].path}, and version {version} was trained for {found};"
            " serve it under another name"
        )


def _check_reads(name: str, reads: Sequence[str], version: str, found: Sequence[str]) -> None:
    """Nor be asked for what they do not send."""
    if tuple(found) != tuple(reads):
        raise UserError(
            f"endpoint {name!r} reads {', '.join(reads)}, and version {version} reads {', '.join(found)}; serve it under another name"
        )


def _limits(config: ServeConfig) -> dict[str, Any]:
    limits = {"max_body_bytes": config.max_body_bytes, "max_texts": config.max_texts, "timeout_s": config.timeout_s}
    if config.token_env is None:
        return {**limits, "token_sha256": None}
    token = os.environ.get(config.token_env, "")
    if len(token) < 16:
        raise UserError(
            f"serve.token_env={config.token_env}: the variable is {'not set' if not token else 'shorter than 16 letters'};"
            " export the bearer token clients must send, e.g. the output of `openssl rand -hex 32`"
        )
    return {**limits, "token_sha256": hashlib.sha256(token.encode()).hexdigest()}


def _start_http(config: ServeConfig) -> None:
    """Serve's HTTP proxy on the wanted address; one address a cluster."""
    from ray.serve.context import _get_global_client

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None and not running():
        serve.shutdown()  # left by an earlier endpoint: nothing runs in it, so this one may choose its address
        client = None
    if client is not None:
        there = (client.http_config.host, client.http_config.port)
        if there != (config.host, config.port):
            raise UserError(
                f"Ray Serve listens on {there[0]}:{there[1]} of this cluster already and has one address a cluster; set"
                f" serve.host and serve.port to it (found {config.host}:{config.port}), or use another cluster"
            )
        return
    _check_port_free(config)
    serve.start(
        proxy_location="HeadOnly" if config.token_env is None else "EveryNode",
        http_options={"host": config.host, "port": config.port, "request_timeout_s": config.timeout_s + 10},
        logging_config=LOGGING,
    )


def _check_port_free(config: ServeConfig) -> None:
    """Only where the proxy will run on this machine; elsewhere Serve's own start tells."""
    if len([node for node in ray.nodes() if node["Alive"]]) != 1:
        return
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise UserError(
                f"serve.port={config.port}: cannot listen on {config.host}:{config.port} ({error.strerror}); set"
                " serve.port to a free one, e.g. --set serve.port=8001"
            ) from None


def _url(config: ServeConfig) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{config.port}"


def _options(num_cpus: float) -> dict[str, Any]:
    """Actors run what this driver shipped: packages, mark and environment. The setup hook is the driver's alone."""
    mine = ray.get_runtime_context().runtime_env
    if str(mine.get("working_dir", "")).startswith("gcs://"):
        pin_runtime_env_uri(mine["working_dir"], expiration_s=PINNED_S)
    return {"num_cpus": num_cpus, "runtime_env": {key: mine[key] for key in ("working_dir", "env_vars") if key in mine}}


def _run(*targets: serve.RunTarget) -> None:
    serve.run_many(targets, wait_for_applications_running=False)  # its own wait has no end


def _version_app(route: dict[str, Any], storage: Storage, config: ServeConfig) -> serve.RunTarget:
    deployment = serve.deployment(
        Version,
        name=VERSION,
        num_replicas=config.replicas,
        ray_actor_options=_options(1),
        max_ongoing_requests=2 * config.max_batch,  # a full batch waits while one computes; the rest stay in the router
        max_queued_requests=-1,  # the router's own bound comes first
        max_constructor_retry_count=1,
        **_common(config.timeout_s),
    )
    app = deployment.bind(storage.url, route["package"], config.max_batch, config.batch_wait_s, config.timeout_s)
    return serve.RunTarget(app, name=route["application"], route_prefix=None)


def _router_app(name: str, routes: dict[str, dict[str, Any]], fixed: _Fixed) -> serve.RunTarget:
    """Where it runs already, all its replicas get the new routes without a restart."""
    room = 2 * fixed.max_queue + 64  # above the bound, so that refusals and /readyz are not queued
    deployment = serve.deployment(RouterReplica).options(
        name=ROUTER,
        version=fixed.code,
        ray_actor_options=fixed.options,
        max_ongoing_requests=room,
        max_queued_requests=room,
        user_config={"routes": routes},
        _internal=True,  # `version` is Serve's own: equal versions mean that only user_config has changed
        **_common(fixed.limits["timeout_s"]),
    )
    return serve.RunTarget(deployment.bind(name, asdict(fixed)), name=name, route_prefix="/")


def _common(timeout_s: float) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout_s": timeout_s + 5,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": 1.0,  # a dead replica is replaced after a second, not after ten
        "logging_config": LOGGING,
    }


def _wait_verified(route: dict[str, Any], storage: Storage) -> None:
    """Ready is: the probe's logits, asked through the real handle, are those of training."""
    wait_running(route["application"], timeout_s=READY_S)
    probe = package.read_json(storage.fetch(route["package"]), "probe.json")
    handle = serve.get_deployment_handle(VERSION, app_name=route["application"]).options(method_name="logits")
    logits_NC = handle.remote(probes.read(probe)).result(timeout_s=READY_S)
    inference.check_logits(logits_NC, probe["logits"], shown=f"the replicas of {route['package']}")

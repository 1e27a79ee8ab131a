"""The endpoint on a real Ray Serve: real packages, real HTTP, real kills. One endpoint for the whole module; tests that
change its version come last, in order."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from orchestration import package as packages
from orchestration.errors import UserError
from orchestration.registry import Registry
from orchestration.serving import record
from orchestration.serving.config import ServeConfig
from orchestration.storage import MANIFEST, Storage, describe
from tests.packages import LABELS, PREPROCESSING, cut_encoder, trained_tensors

NAME, TOKEN = "tiny", "a-token-of-decent-length"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TEXTS = ["Lovely.", "A dull film, and far too long for what it has.", "fine " * 60, "The re\u0301sume\u0301 was fine."]


@dataclass(frozen=True)
class World:
    """Two packages with different heads and the endpoint that serves the first."""

    storage: Storage
    rels: dict[str, str]
    config: ServeConfig
    url: str
    spec: Path


@pytest.fixture(scope="module")
def world(ray_session: Any, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from orchestration.serving import app

    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    weights_rel = cut_encoder(minilm, storage)
    rels = {str(seed): _export(storage, weights_rel, seed) for seed in (1, 2)}
    limits = {"max_body_bytes": 20_000, "max_texts": 8, "max_queue": 24, "timeout_s": 60.0}
    config = ServeConfig(port=free_port(), token_env="TINY_TOKEN", **limits)
    registry = Registry(storage)
    for rel in rels.values():
        registry.register(NAME, package_rel=rel)
    registry.set_alias(NAME, "champion", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_TOKEN", TOKEN)
        endpoint = app.deploy(name=NAME, storage=storage, package_rel=rels["1"], version=1, config=config)
        spec = write_spec(storage, weights_rel, config)
        yield World(storage=storage, rels=rels, config=config, url=endpoint.url, spec=spec)
        app.undeploy(name=NAME, storage=storage)
    assert storage.list("endpoints") == []
    with pytest.raises(httpx.HTTPStatusError):
        ask(httpx.Client(base_url=endpoint.url, headers=HEADERS), TEXTS[:1])


def _export(storage: Storage, weights_rel: str, seed: int) -> str:
    made = packages.export(
        storage,
        tensors=trained_tensors(storage, weights_rel, seed),
        weights_rel=weights_rel,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        lineage={"run": f"run-{seed}", "seed": seed},
    )
    return made.rel


def write_spec(storage: Storage, weights_rel: str, config: ServeConfig) -> Path:
    """A spec file whose registry and storage are the test's."""
    folder = Path(storage.path())
    (folder / "rows.csv").write_text("text,label\ngood,positive\n")
    spec = {
        "name": NAME,
        "storage": str(folder),
        "model": {"path": str(folder / weights_rel)},
        "data": {
            "labels": LABELS,
            "sources": [{"name": "rows", "path": str(folder / "rows.csv"), "label": {"column": "label"}}],
        },
        "serve": config.model_dump(),
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))
    return folder / "spec.yaml"


def eagleray(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from jobs.cli import main; main()", *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=world.url, headers=HEADERS, timeout=90) as made:
        yield made


def ask(client: httpx.Client, texts: list[str]) -> tuple[str, np.ndarray]:
    """Version and (N, C) logits of one request."""
    response = client.post("/v1/classify", json={"texts": texts, "logits": True})
    response.raise_for_status()
    body = response.json()
    return body["model"]["version"], np.array([[row["logits"][label] for label in LABELS] for row in body["results"]])


@dataclass
class Load:
    """What clients saw. Every answer is checked against the package of the version it names."""

    versions: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)

    def wait_for(self, count: int) -> None:
        """Until so many more answers came."""
        goal, end = sum(self.versions.values()) + count, time.monotonic() + 60
        while sum(self.versions.values()) < goal and time.monotonic() < end:
            time.sleep(0.05)


@contextlib.contextmanager
def load(world: World, clients: int, *, copies: int = 1, pause_s: float = 0.0) -> Iterator[Load]:
    """`copies` of a text a request, `pause_s` between a client's requests."""
    wanted = {
        version: packages.load(world.storage.fetch(rel), verify=False).logits(TEXTS)
        for version, rel in world.rels.items()
    }
    found, stop = Load(), threading.Event()

    def run(start: int) -> None:
        with httpx.Client(base_url=world.url, headers=HEADERS, timeout=90) as mine:
            turn = start
            while not stop.is_set():
                turn += 1
                row = turn % len(TEXTS)
                try:
                    version, logits_NC = ask(mine, [TEXTS[row]] * copies)
                    if not np.allclose(logits_NC, wanted[version][row], atol=1e-5, rtol=0):
                        found.failures.append(f"version {version} answered {logits_NC}, not {wanted[version][row]}")
                    found.versions[version] += 1
                except httpx.HTTPError as error:
                    found.failures.append(repr(error))
                stop.wait(pause_s)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        found.wait_for(clients)
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_endpoint_gives_the_logits_of_the_package(world: World, client: httpx.Client) -> None:
    version, logits_NC = ask(client, TEXTS)
    assert version == "1"
    wanted_NC = packages.load(world.storage.fetch(world.rels["1"])).logits(TEXTS)
    assert np.abs(logits_NC - wanted_NC).max() <= 1e-5


def test_a_request_that_is_larger_than_a_batch_or_wrong_is_answered_or_refused_as_documented(
    client: httpx.Client,
) -> None:
    def status(**options: Any) -> int:
        return client.post("/v1/classify", **options).status_code

    assert status(json={"texts": ["a"] * 8}) == 200
    assert status(json={"texts": ["a"] * 9}) == 422
    assert status(json={"text": ""}) == 422
    assert status(content=b"{") == 422
    assert status(json={"text": "x" * 20_001}) == 413
    assert status(content=(b"x" * 1000 for _ in range(40))) == 413  # chunked: no length is announced
    assert status(json={"text": "a"}, headers={"Authorization": "Bearer guess"}) == 401


def test_health_readiness_lineage_and_docs_are_there(world: World, client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["versions"] == ["1"]
    lineage = client.get("/v1/lineage").json()["versions"]["1"]
    assert lineage == {"package": world.rels["1"], "run": "run-1", "seed": 1}
    assert "/v1/classify" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200
    response = client.post("/v1/classify", json={"text": "fine " * 60}, headers={"X-Request-ID": "mine-1"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-1"
    assert response.json()["results"][0]["truncated"] is True


def test_explain_asks_the_live_endpoint_with_its_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import explain

    monkeypatch.delenv(explain.TOKEN_ENV, raising=False)
    with pytest.raises(UserError, match=r"asks for a token and EAGLERAY_SERVE_TOKEN is not set"):
        explain.origins(world.url)
    monkeypatch.setenv(explain.TOKEN_ENV, TOKEN)
    (found,) = explain.origins(world.url)
    assert (found.endpoint, found.name, found.version) == (world.url, NAME, "1")
    assert (found.package, found.lineage) == (world.rels["1"], {"run": "run-1", "seed": 1})


def test_more_requests_than_the_queue_holds_get_503_with_retry_after_and_the_rest_are_answered(world: World) -> None:
    answers: list[httpx.Response] = []

    def run() -> None:
        with httpx.Client(base_url=world.url, headers=HEADERS, timeout=90) as mine:
            answers.append(mine.post("/v1/classify", json={"texts": ["many words " * 30] * 8}))

    threads = [threading.Thread(target=run) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = collections.Counter(answer.status_code for answer in answers)
    assert set(count) == {200, 503}
    assert count[200] >= world.config.max_queue
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503)


def test_a_second_endpoint_of_the_same_name_or_on_another_port_is_refused(world: World) -> None:
    from orchestration.serving import app

    same = {"storage": world.storage, "package_rel": world.rels["1"], "version": 1}
    with pytest.raises(UserError, match="served on this Ray already"):
        app.deploy(name=NAME, config=world.config, **same)
    elsewhere = world.config.model_copy(update={"port": free_port()})
    with pytest.raises(UserError, match=r"serve\.port"):
        app.deploy(name="other", config=elsewhere, **same)


def test_a_version_whose_logits_are_not_those_of_training_is_refused_and_the_old_one_goes_on(
    world: World, client: httpx.Client
) -> None:
    from orchestration.serving import app

    rel = _forged(world)
    with pytest.raises(UserError, match="probe text 0"):
        app.promote(name=NAME, storage=world.storage, package_rel=rel, version=9, config=world.config)
    assert ask(client, TEXTS[:1])[0] == "1"
    assert list(record.find(world.storage, NAME).versions) == ["1"]
    assert "tiny-v9" not in app.running()


def _forged(world: World) -> str:
    """A package whose hashes agree and whose probe does not."""
    folder = Path(world.storage.path("packages/forged"))
    shutil.copytree(world.storage.fetch(world.rels["2"]), folder)
    probe = packages.read_json(folder, "probe.json")
    probe["logits"][0][0] += 1e-3
    packages._write_json(folder / "probe.json", probe)
    sealed = packages.read_json(folder, MANIFEST)
    sealed["files"]["probe.json"] = describe(folder / "probe.json")
    packages._write_json(folder / MANIFEST, sealed)
    return "packages/forged"


def test_promote_from_another_process_under_load_loses_no_request_and_then_sets_the_alias(
    world: World, client: httpx.Client
) -> None:
    from orchestration.serving import app

    with load(world, clients=8, pause_s=0.1) as seen:
        command = eagleray("promote", world.spec, "--version", "2", "--set", "serve.replicas=2")
        told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
        at_end = seen.versions["2"]
        seen.wait_for(40)
    assert seen.failures == []
    assert seen.versions["1"] > 0
    assert seen.versions["2"] >= at_end + 40 - 8
    assert list(record.find(world.storage, NAME).versions) == ["2"]
    assert client.get("/readyz").json()["versions"] == ["2"]
    assert app.running() == [NAME, "tiny-v2"]
    assert Registry(world.storage).get(NAME, "champion").version == 2


def test_a_replica_killed_under_load_costs_no_request(world: World) -> None:
    from ray import serve

    handle = serve.get_deployment_handle("Version", app_name="tiny-v2")
    before = {found["pid"] for found in handle.broadcast("ping").results(timeout_s=30)}
    assert len(before) == 2
    with load(world, clients=8, copies=8) as seen:  # enough work that a request is inside the replica when it dies
        os.kill(before.pop(), signal.SIGKILL)
        seen.wait_for(80)
    assert seen.failures == []
    assert seen.versions["2"] >= 80


@contextlib.contextmanager
def asking_until_gone(port: int) -> Iterator[collections.Counter[Any]]:
    """Four clients that ask until the route is gone (404); counts statuses, and connections lost before that."""
    seen: collections.Counter[Any] = collections.Counter()
    bodies = {"texts": TEXTS * 2}

    def run() -> None:
        status = 200
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as mine:
            while status == 200:
                try:
                    status = mine.post("/v1/classify", json=bodies).status_code
                except httpx.HTTPError:
                    seen["lost"] += 1
                    return
                seen[status] += 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not seen:
        time.sleep(0.01)
    yield seen
    for thread in threads:
        thread.join()


def test_serve_runs_until_interrupted_and_leaves_nothing_behind(world: World) -> None:
    port, folder = free_port(), Path(world.storage.path(world.rels["2"]))
    command = eagleray("serve", world.spec, "--model", folder)
    for setting in ("serve.token_env=null", f"serve.port={port}", "name=other"):
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            if "answers at" in line:
                break
        assert process.poll() is None, told
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as mine:
            version, logits_NC = ask(mine, TEXTS[:1])
        assert version == folder.name[:12]
        assert np.abs(logits_NC - packages.load(folder).logits(TEXTS[:1])).max() <= 1e-5
        assert "other.json" in world.storage.list("endpoints")
        with asking_until_gone(port) as seen:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert seen.pop("lost", 0) == 0, "requests inside were not finished"
    assert set(seen) <= {200, 404}, seen
    assert seen[200] > 0
    assert "Traceback" not in rest
    assert "other.json" not in world.storage.list("endpoints")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0

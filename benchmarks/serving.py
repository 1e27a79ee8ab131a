"""Requests a second, median and 99th percentile of the answer time of our endpoint (one replica) against FastAPI over a
transformers pipeline in one process, and against a plain Ray Serve deployment with `@serve.batch`.

16 clients on loopback, each sends the next text when its answer is there; one test text of real length a request. One server
runs at a time, in turn. Gate: every text's scores agree within 1e-4 with the peer's and no request failed. Our replica and the plain
Ray Serve one have one torch thread; the FastAPI process has all cores."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._claim import Claim, compare
from benchmarks._inputs import RECIPE, Inputs, quickstart
from benchmarks.harness import ROOT
from orchestration.errors import UserError

CLIENTS = 16
TEXTS = 400
TOLERANCE = 1e-4
READY_S, WARM_S = 180.0, 3.0
PEERS = {
    "FastAPI + transformers, one process": "fastapi_transformers.py",
    "plain Ray Serve with @serve.batch": "ray_serve_batch.py",
}


@dataclass
class Load:
    """What the clients saw: seconds of each answer, score of the first label by text number, failures, seconds in all."""

    latencies_s: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_s(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(repeats: int = 2, seconds: float = 10.0) -> list[Claim]:
    inputs = quickstart()
    folder = packaged(inputs)
    split = inputs.store.split("test")
    texts = split.texts(range(TEXTS))
    label = inputs.spec.data.labels[0]
    loads: dict[str, list[Load]] = {name: [] for name in ("ours", *PEERS)}
    for repeat in range(repeats):
        for name in list(loads) if repeat % 2 == 0 else list(loads)[::-1]:
            with server(name, inputs, folder) as (url, body):
                asyncio.run(press(url, body, texts, label, WARM_S))
                loads[name].append(asyncio.run(press(url, body, texts, label, seconds)))
            last = loads[name][-1]
            print(
                f"{name}: {last.per_s:.1f} requests/s, p50 {last.percentile_s(0.5):.3f} s, p99 {last.percentile_s(0.99):.3f} s, {len(last.failed)} failed",
                file=sys.stderr,
                flush=True,
            )
    return [claim for name in PEERS for claim in claims(name, loads["ours"], loads[name])]


def claims(name: str, mine: list[Load], peers: list[Load]) -> list[Claim]:
    shared = [
        (a.scores[i], b.scores[i]) for a, b in zip(mine, peers, strict=True) for i in a.scores.keys() & b.scores.keys()
    ]
    worst = max((abs(a - b) for a, b in shared), default=float("inf"))
    failed = [reason for load in mine + peers for reason in load.failed]
    values = [b for _, b in shared] or [0.0]
    gate: dict[str, Any] = {
        "gate": worst <= TOLERANCE and not failed,
        "gate_says": f"{len(shared)} scores from {min(values):.2f} to {max(values):.2f} differ by at most {worst:.1e}; {len(failed)} requests failed {failed[:1] or ''}".strip(),
    }
    text = f"{CLIENTS} clients, against {name}"
    return [
        Claim(
            f"requests a second, {text}",
            better="higher",
            unit="requests/s",
            **gate,
            **compare([x.per_s for x in mine], [x.per_s for x in peers]),
        ),
        Claim(
            f"median answer time, {text}",
            better="lower",
            unit="s",
            **gate,
            **compare([x.percentile_s(0.5) for x in mine], [x.percentile_s(0.5) for x in peers]),
        ),
        Claim(
            f"99th percentile of the answer time, {text}",
            better="lower",
            unit="s",
            **gate,
            **compare([x.percentile_s(0.99) for x in mine], [x.percentile_s(0.99) for x in peers]),
        ),
    ]


def packaged(inputs: Inputs) -> Path:
    """A package of the full encoder with a head drawn wide enough that scores differ from text to text."""
    import torch

    from models.text import build
    from orchestration.package import export

    labels, stored = inputs.spec.data.labels, inputs.store.preprocessing
    model = build(inputs.spec.model, inputs.folder, labels, seed=17)
    with torch.no_grad():
        model.classifier.weight.copy_(
            torch.randn(model.classifier.weight.shape, generator=torch.Generator().manual_seed(17))
        )
    done = export(
        inputs.storage,
        tensors=model.state_dict(),
        weights_rel=inputs.weights.rel,
        labels=labels,
        preprocessing={"clean": stored["clean"], "max_length": stored["tokenize"]["max_length"]},
        lineage={"benchmark": "serving"},
    )
    return inputs.storage.fetch(done.rel)


@contextlib.contextmanager
def server(name: str, inputs: Inputs, folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the URL to post to and the key that holds the text. Ended by SIGTERM, as an operator would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if name == "ours":
        sets = [part for item in (*inputs.overrides, f"serve.port={port}") for part in ("--set", item)]
        arguments = ["-m", "jobs.cli", "serve", str(RECIPE), *sets, "--model", str(folder)]
        path, ready = "/v1/classify", "/readyz"
    else:
        arguments = [str(ROOT / "benchmarks" / "peers" / PEERS[name]), str(folder), str(port)]
        path, ready = "/classify", "/ready"
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=sys.stderr.fileno())
    try:
        _wait_ready(f"http://127.0.0.1:{port}{ready}", process)
        yield f"http://127.0.0.1:{port}{path}", "text"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise UserError(f"the server for {url} ended with exit code {process.returncode}; its output is above")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5.0).status_code == 200:
                return
        time.sleep(0.3)
    raise UserError(f"{url} was not ready within {READY_S:.0f} s")


async def press(url: str, key: str, texts: list[str], label: str, seconds: float) -> Load:
    """So many clients for so long; client c sends texts c, c + CLIENTS, ... and around."""
    import httpx

    load = Load()
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(limits=limits, timeout=60.0, trust_env=False) as client:
        began = time.perf_counter()

        async def one(number: int) -> None:
            while time.perf_counter() - began < seconds:
                asked = time.perf_counter()
                answer = await client.post(url, json={key: texts[number]})
                load.latencies_s.append(time.perf_counter() - asked)
                if answer.status_code == 200:
                    load.scores[number] = _score(answer.json(), label)
                else:
                    load.failed.append(f"{answer.status_code} {answer.text[:200]}")
                number = (number + CLIENTS) % len(texts)

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        load.seconds = time.perf_counter() - began
    return load


def _score(body: dict[str, Any], label: str) -> float:
    return body["results"][0]["scores"][label] if "results" in body else body[label]

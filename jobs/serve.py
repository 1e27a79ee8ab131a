"""`eagleray serve`: a registered model behind HTTP. Without `cluster.address` Ray starts in this machine and the endpoint
lives until Ctrl-C; with it the endpoint is deployed to that cluster and stays there."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig
from cluster.local import session
from jobs.context import Job
from jobs.locate import locate
from jobs.spec import JobSpec
from orchestration.answers.facts import example, reads_of
from orchestration.registry import ModelVersion, Registry
from orchestration.serving.record import Endpoint
from orchestration.storage import Storage

# Of each part of a row, inside a body between single quotes.
_EXAMPLES = {
    "image": "'$(base64 -w0 picture.png)'",
    "audio": "'$(base64 -w0 sound.wav)'",
    "series": [[1.0], [2.0], [1.5]],
}


def run(spec: JobSpec, *, model: str = "champion") -> None:
    """Prints the URL when the endpoint answers. Raises UserError where it cannot."""
    storage = Storage(spec.storage)
    found = locate(model, name=spec.name, storage=storage, registry=Registry(storage, spec.tracking))
    begun = time.monotonic()
    with session(roomy(spec)):
        from orchestration.serving import app

        endpoint = app.deploy(
            name=spec.name,
            storage=storage,
            package_rel=found.package_rel,
            version=found.version,
            config=spec.serve,
        )
        _tell(endpoint, found.version, time.monotonic() - begun, storage.fetch(found.package_rel))
        if spec.cluster.address is not None:
            return
        try:
            wait_for_signal()
        finally:
            print("finishing the requests inside ...", flush=True)
            app.undeploy(name=spec.name, storage=storage)


@contextlib.contextmanager
def served(job: Job, model: ModelVersion) -> Iterator[Endpoint]:
    """The pipeline's stage: deployed inside the live Ray, taken down when the block ends unless it lives on a cluster."""
    from orchestration.serving import app

    with job.console.stage("deploy"):
        endpoint = app.deploy(
            name=job.spec.name,
            storage=job.storage,
            package_rel=model.package_rel,
            version=model.version,
            config=job.spec.serve,
        )
    try:
        yield endpoint
    finally:
        if job.spec.cluster.address is None:
            with job.console.stage("shut down"):
                app.undeploy(name=job.spec.name, storage=job.storage)


def roomy(spec: JobSpec) -> ClusterConfig:
    """Embedded Ray with logical CPUs for two versions side by side: `promote` starts the new beside the old."""
    if spec.cluster.address is not None:
        return spec.cluster
    return spec.cluster.model_copy(update={"workers": max(1, 2 * spec.serve.replicas - 2), "cpus_per_worker": 1.0})


def _tell(endpoint: Endpoint, version: str, seconds: float, folder: Path) -> None:
    """`folder`: of the package, which says how it is asked."""
    kind, text = example(folder)
    reads = reads_of(folder)
    body = kind.body([text]) if reads == ("text",) else _parts(text, reads)
    print(f"{endpoint.name} version {version} answers at {endpoint.url} ({seconds:.0f} s)", flush=True)
    print(f"""  curl {endpoint.url}{kind.path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'""")
    print(f"  {endpoint.url}/docs describes all routes; Ctrl-C or SIGTERM ends it", flush=True)


def _parts(text: str, reads: Sequence[str]) -> dict[str, Any]:
    """`text`: '' where a row needs none."""
    given = {"text": text, **_EXAMPLES}
    return {name: given[name] for name in reads if given[name]}


def wait_for_signal() -> None:
    """Until SIGINT or SIGTERM; a second one interrupts the clean end."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

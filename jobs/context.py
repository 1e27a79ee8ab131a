"""What every computing verb opens first: storage, console, registry, and (inside `computing`) a live Ray. Takes a JobSpec;
gives a Job. Keeps the verbs thin: they call `prepared(job)` or `fitted(job)` and print."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.local import session
from jobs.checks import check
from jobs.spec import JobSpec
from orchestration.data.config import op_inputs
from orchestration.registry import Registry
from orchestration.storage import Storage
from orchestration.telemetry import Console
from orchestration.training import warm


@dataclass
class Job:
    """One command's view of a spec. `cluster` is filled inside `computing`."""

    spec: JobSpec
    storage: Storage
    console: Console
    registry: Registry
    cluster: dict[str, Any] = field(default_factory=dict)

    def new_id(self, kind: str = "") -> str:
        """A run or sweep id that sorts by time and never repeats: Ray resumes silently where a name repeats."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return "-".join(part for part in (self.spec.name, kind, stamp, secrets.token_hex(2)) if part)

    def changed(self, values: dict[str, Any]) -> Job:
        """The same job with spec paths changed: how a sweep's winner goes on."""
        return dataclasses.replace(self, spec=self.spec.override(values))


def open_job(spec: JobSpec, *, json_lines: bool = False) -> Job:
    """Fetch what `catalog:` names, check it against the spec, open storage. Starts no Ray."""
    storage = Storage(spec.storage)
    job = Job(
        spec=spec, storage=storage, console=Console(json_lines=json_lines), registry=Registry(storage, spec.tracking)
    )
    fetch_inputs(job)
    return job


def fetch_inputs(job: Job) -> None:
    """Download catalogue items that are not here yet, then check the spec once more: now config.json can be read."""
    from orchestration.data.catalog import fetched, local

    missing = [ref for ref in catalogue_refs(job.spec) if fetched(ref) is None]
    for ref in missing:
        with job.console.stage(f"fetch {ref.removeprefix('catalog:')}"):
            local(ref)
    if missing:
        check(job.spec, origin=f"spec {job.spec.name!r}")


def catalogue_refs(spec: JobSpec) -> list[str]:
    """Every `catalog:NAME` in the spec, in order, once."""
    paths = [part.folder for part in spec.model.parts.values()]
    paths += [source.path for source in spec.data.sources]
    paths += [reference for _, reference, _ in op_inputs(spec.data)]
    return list(dict.fromkeys(path for path in paths if path.startswith("catalog:")))


@contextlib.contextmanager
def computing(job: Job, *, dashboard: bool = False, modules: Sequence[str] | None = None) -> Iterator[Job]:
    """Ray for the length of the block, with the resolved spec shipped beside the packages. `modules`: what its workers import; None:
    what training workers do."""
    with session(
        job.spec.cluster,
        files={"spec.json": json.dumps(job.spec.dump(), indent=1)},
        dashboard=dashboard,
        modules=warm.modules(job.spec.train) if modules is None else modules,
    ) as info:
        job.cluster = info
        yield job

"""`eagleray submit SPEC`: the same spec on any Ray cluster, through its Jobs API. Uploads what only this machine has, ships the
packages and the resolved spec (no .git, data or environments), starts the verb there, prints its log and ends with its exit code."""

from __future__ import annotations

import difflib
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.client import Client, Job
from cluster.runtime_env import runtime_env, stage
from jobs.arrive import SPEC, VARIABLE, storage_id
from jobs.inputs import upload
from jobs.spec import JobSpec
from orchestration.errors import SpecError
from orchestration.storage import Storage

VERBS = ("pipeline", "plan", "prepare", "train", "tune", "evaluate", "export", "serve", "promote")
# Ctrl-C's signal and a minute: a verb that is stopped can write its last checkpoint. Ray's default is SIGTERM and 3 s.
STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}


@dataclass(frozen=True)
class Submitted:
    """`url` is the cluster's dashboard; `spec` is what runs there, its inputs named in storage."""

    job_id: str
    url: str
    spec: JobSpec


def run(
    spec: JobSpec,
    *,
    verb: str = "pipeline",
    address: str | None = None,
    follow: bool = True,
    arguments: Sequence[str] = (),
    token_env: str | None = None,
) -> int:
    """Submit, then follow. Gives the exit code of the command on the cluster; 0 at once where `follow` is off.

    Raises SpecError for an unknown verb, UserError for an input that cannot be uploaded, ClusterError for a cluster that
    cannot be reached or refuses the token.
    """
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.4)
        raise SpecError(
            f"--verb {verb}: not a verb that runs on a cluster"
            + (f"; nearest: {near[0]}" if near else "")
            + f"; allowed: {', '.join(VERBS)}"
        )
    client = Client(address or spec.cluster.address, token_env=token_env)  # before anything is uploaded
    sent = send(client, spec, verb=verb, arguments=arguments)
    print(f"job {sent.job_id} at {sent.url}: {verb}", flush=True)
    if not follow:
        print(_later(sent))
        return 0
    try:
        job = client.follow(sent.job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\nthe job goes on; {_later(sent)}", file=sys.stderr)
        raise
    return outcome(job)


def send(client: Client, spec: JobSpec, *, verb: str, arguments: Sequence[str] = ()) -> Submitted:
    """Inputs to storage, packages and spec to the cluster, the verb started."""
    storage = Storage(spec.storage)
    mark = storage_id(storage)
    there = upload(spec, storage).override({"storage": storage.url, "cluster.address": None})
    folder, staged = stage({SPEC: json.dumps(there.dump(), indent=1, ensure_ascii=False)})
    try:
        env = runtime_env(folder, staged, {**STOP, **spec.cluster.env, VARIABLE: mark})
        metadata = {"name": spec.name, "verb": verb, "storage": storage.url}
        job_id = client.submit(entrypoint=entrypoint(spec, verb, arguments), runtime_env=env, metadata=metadata)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Submitted(job_id, client.url, there)


def entrypoint(spec: JobSpec, verb: str, arguments: Sequence[str] = ()) -> str:
    """The shell line of the job. `exec`: Ray's stop signal reaches the verb itself, and its exit code is the job's.

    `cluster.env.EAGLERAY_PYTHON` names the interpreter where it is not `python` on the cluster.
    """
    python = shlex.quote(spec.cluster.env.get("EAGLERAY_PYTHON", "python"))
    return f"{python} -m jobs.arrive && exec {python} -m jobs.cli {verb} {shlex.join([SPEC, *arguments])}"


def outcome(job: Job) -> int:
    """One line for how it ended, and the exit code to end with."""
    if job.status == "SUCCEEDED":
        return 0
    code = job.exit_code or 1
    why = (
        f"exit code {job.exit_code}" if job.exit_code else (job.message.strip().splitlines() or ["no reason given"])[0]
    )
    print(f"job {job.id}: {job.status.lower()} ({why})", file=sys.stderr)
    return code


def _later(sent: Submitted) -> str:
    place: Any = shlex.quote(sent.url)
    return f"see it with `eagleray job logs {sent.job_id} --follow --address {place}`, end it with `eagleray job stop {sent.job_id} --address {place}`"

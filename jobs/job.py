"""`eagleray job status|logs|stop|list`: submitted jobs of a cluster. Each function takes the dashboard's address and an id, and
prints; an unknown id is a ClusterError that names the known ones."""

from __future__ import annotations

import json
import sys
import time

from cluster.client import Client, Job

STOP_WAIT_S = 75.0  # a stopped verb has 60 s to write its last checkpoint


def status(*, address: str | None, job_id: str, json_lines: bool = False, token_env: str | None = None) -> Job:
    """State, times and command of one job; one JSON object with `json_lines`."""
    job = Client(address, token_env=token_env).status(job_id)
    if json_lines:
        print(json.dumps(job.as_dict(), ensure_ascii=False))
        return job
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in (
        ("job", job.id),
        ("status", job.status.lower()),
        ("verb", job.metadata.get("verb", "")),
        ("spec", job.metadata.get("name", "")),
        ("started", _clock(job.started_s)),
        ("took", _duration(job)),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("storage", job.metadata.get("storage", "")),
        ("command", job.entrypoint),
        ("message", (job.message.strip().splitlines() or [""])[0]),
    ):
        if value:
            table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)
    return job


def logs(*, address: str | None, job_id: str, follow: bool = False, token_env: str | None = None) -> Job | None:
    """What the job printed; with `follow` until it ends, and then how it ended on standard error."""
    client = Client(address, token_env=token_env)
    if not follow:
        sys.stdout.write(client.logs(job_id))
        return None
    job = client.follow(job_id, lambda text: print(text, end="", flush=True))
    print(
        f"job {job.id}: {job.status.lower()}" + (f", exit code {job.exit_code}" if job.exit_code else ""),
        file=sys.stderr,
    )
    return job


def stop(*, address: str | None, job_id: str, wait_s: float = STOP_WAIT_S, token_env: str | None = None) -> Job:
    """Send the stop signal (Ctrl-C's) and wait until the job has ended; after 60 s Ray kills it."""
    client = Client(address, token_env=token_env)
    stopped = client.stop(job_id)
    job = client.wait(job_id, timeout_s=wait_s)
    print(
        f"job {job.id}: {job.status.lower()}" if stopped else f"job {job.id}: had ended before ({job.status.lower()})"
    )
    return job


def list_jobs(*, address: str | None, json_lines: bool = False, token_env: str | None = None) -> list[Job]:
    """All jobs, oldest first; one JSON object a line with `json_lines`."""
    client = Client(address, token_env=token_env)
    jobs = client.list()
    if json_lines:
        for job in jobs:
            print(json.dumps(job.as_dict(), ensure_ascii=False))
        return jobs
    if not jobs:
        print(f"no jobs at {client.url}; `eagleray submit SPEC --address {client.url}` sends one")
        return jobs
    from rich.console import Console
    from rich.table import Column, Table

    whole = Column(
        "job", no_wrap=True, min_width=max(len(job.id) for job in jobs)
    )  # an id that is cut cannot be typed again
    table = Table(whole, "status", "verb", "spec", "started", "took", title=client.url)
    for job in jobs:
        table.add_row(
            job.id,
            job.status.lower(),
            job.metadata.get("verb", ""),
            job.metadata.get("name", ""),
            _clock(job.started_s),
            _duration(job),
        )
    Console(soft_wrap=True, highlight=False).print(table)
    return jobs


def _clock(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _duration(job: Job) -> str:
    if not job.started_s:
        return ""
    return f"{(job.ended_s or time.time()) - job.started_s:,.0f} s"

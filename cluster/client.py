"""A thin client of Ray's Jobs API: submit, status, logs, stop, list. Takes the address of a cluster's dashboard; gives small
dataclasses. Called by `jobs.submit`, `jobs.job` and `jobs.doctor`. Knows nothing of specs or training.

Ray's own client is used beneath. What is added: the address in any form a user has it, the token found and sent only where
the cluster asks for one, a time limit, and one sentence for each way to fail."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from cluster.auth import HOW, Token, find_token
from cluster.errors import ClusterError

DEFAULT_PORT = 8265
PROBE_TIMEOUT_S = 10.0
AGENT_WAIT_S = 60.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
MAX_LOST_CONNECTIONS = 5  # in a row, while a log is followed


@dataclass(frozen=True)
class Job:
    """One submitted job. Times in seconds since 1970; `exit_code` is None until its command has ended."""

    id: str
    status: str  # PENDING | RUNNING | SUCCEEDED | FAILED | STOPPED
    entrypoint: str
    message: str
    exit_code: int | None
    started_s: float | None
    ended_s: float | None
    metadata: dict[str, str]

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dashboard_url(address: str | None) -> str:
    """`http://host:8265` from `host:port`, `http(s)://host:port`, `auto` (the cluster on this machine) or nothing: then
    EAGLERAY_ADDRESS, RAY_API_SERVER_ADDRESS, else loopback. Raises ClusterError naming what is allowed."""
    given = (
        address
        or os.environ.get("EAGLERAY_ADDRESS")
        or os.environ.get("RAY_API_SERVER_ADDRESS")
        or f"http://127.0.0.1:{DEFAULT_PORT}"
    )
    if given == "auto":
        return _local_dashboard()
    url = given if "://" in given else f"http://{given}"
    parts = urlsplit(url)
    if parts.scheme == "ray":
        raise ClusterError(
            f"address {given}: that is Ray Client's address; jobs go to the dashboard: http://{parts.hostname}:{DEFAULT_PORT}"
        )
    if parts.scheme not in ("http", "https"):
        raise ClusterError(
            f"address {given}: unknown scheme {parts.scheme!r}; allowed: host:port, http://host:port, https://host:port, auto"
        )
    try:
        port = parts.port
    except ValueError:
        raise ClusterError(f"address {given}: the port is not a number from 0 to 65535") from None
    if not parts.hostname:
        raise ClusterError(f"address {given}: no host; allowed: host:port, http://host:port, https://host:port, auto")
    if port is None and "://" not in given:
        url = f"{url}:{DEFAULT_PORT}"
    return url.rstrip("/")


def _local_dashboard() -> str:
    """Asks the newest Ray on this machine for its dashboard."""
    from cluster.auth import join_with_token

    join_with_token()
    logging.getLogger("ray").setLevel(logging.ERROR)
    from ray.dashboard.utils import ray_address_to_api_server_url
    from ray.exceptions import AuthenticationError

    try:
        return str(ray_address_to_api_server_url("auto"))
    except AuthenticationError:
        raise ClusterError(f"address auto: the Ray on this machine refuses this account's token; {HOW}") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"address auto: no Ray cluster of this machine can be told ({_first_line(error)}); start one with `ray start --head`, or give host:port"
        ) from None


def probe(url: str, *, token_env: str | None = None) -> tuple[dict[str, Any], Token | None]:
    """Ask a dashboard for its version. Gives the answer and the token it wanted (None: it wants none).

    Raises ClusterError: unreachable, wrong scheme, not Ray, token missing, token refused.
    """
    answer = _get(url, None)
    token = None
    if answer.status_code == 401:  # the token is sent only to those who ask
        token = find_token(token_env)
        if token is None:
            raise ClusterError(f"{url}: the cluster asks for a token, and none was found; {HOW}")
        answer = _get(url, token)
    if answer.status_code in (401, 403):
        where = f"the token from {token.origin}" if token else "this client"
        raise ClusterError(f"{url}: the cluster refuses {where} (HTTP {answer.status_code}); {HOW}")
    try:
        version = answer.json()
        if answer.status_code != 200 or "ray_version" not in version:
            raise ValueError
    except ValueError:
        raise ClusterError(
            f"{url}: something answers there (HTTP {answer.status_code}), but it is not a Ray dashboard; its port is {DEFAULT_PORT} unless told otherwise"
        ) from None
    return version, token


def _get(url: str, token: Token | None) -> Any:
    import httpx

    try:
        return httpx.get(f"{url}/api/version", headers=headers(token), timeout=PROBE_TIMEOUT_S, follow_redirects=False)
    except httpx.ConnectError as error:
        if "SSL" in str(error) or "TLS" in str(error):
            raise ClusterError(
                f"{url}: no TLS there ({_first_line(error)}); a dashboard usually speaks http://"
            ) from None
        raise ClusterError(
            f"{url}: nothing answers ({_first_line(error)}); is the cluster up (`ray start --head`), and its dashboard reachable from here?"
        ) from None
    except httpx.TimeoutException:
        raise ClusterError(
            f"{url}: no answer within {PROBE_TIMEOUT_S:.0f} s; is a firewall or a wrong host in the way?"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        hint = (
            f"; that may be Ray's own port, jobs go to the dashboard's, usually {DEFAULT_PORT}"
            if url.startswith("http://")
            else ""
        )
        raise ClusterError(f"{url}: what answers there does not speak HTTP ({_first_line(error)}){hint}") from None


def headers(token: Token | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.value}"} if token else {}


class Client:
    """`Client("host:8265")`. Raises ClusterError at once where the cluster cannot be used."""

    def __init__(self, address: str | None = None, *, token_env: str | None = None) -> None:
        self.url = dashboard_url(address)
        version, token = probe(self.url, token_env=token_env)
        self.ray_version = str(version["ray_version"])
        from ray.job_submission import JobSubmissionClient

        for name in (
            "ray.dashboard.modules.dashboard_sdk",
            "ray.dashboard.modules.job.sdk",
            "ray._private.runtime_env.packaging",
        ):
            logging.getLogger(name).setLevel(logging.WARNING)
        with (
            _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"),
            self._errors(),
        ):  # they would override the address that was given
            self._ray = JobSubmissionClient(self.url, headers=headers(token))

    def submit(
        self,
        *,
        entrypoint: str,
        runtime_env: dict[str, Any],
        metadata: dict[str, str] | None = None,
        job_id: str | None = None,
    ) -> str:
        """Upload `runtime_env["working_dir"]`, start `entrypoint` in it, give the job's id."""
        end = time.monotonic() + AGENT_WAIT_S
        while True:
            try:
                with self._errors():
                    return str(
                        self._ray.submit_job(
                            entrypoint=entrypoint,
                            runtime_env=runtime_env,
                            metadata=dict(metadata or {}),
                            submission_id=job_id,
                        )
                    )
            except ClusterError as error:
                # A cluster that has just started answers before its agents do: nothing was started, so asking again is safe.
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1.0)

    def status(self, job_id: str) -> Job:
        with self._errors(job_id):
            return _job(self._ray.get_job_info(job_id))

    def list(self) -> list[Job]:
        """Jobs that came through the Jobs API, oldest first."""
        with self._errors():
            return sorted(
                (_job(item) for item in self._ray.list_jobs() if item.submission_id),
                key=lambda job: job.started_s or 0.0,
            )

    def logs(self, job_id: str) -> str:
        """All that the job's command has printed so far."""
        with self._errors(job_id):
            return str(self._ray.get_job_logs(job_id))

    def stop(self, job_id: str) -> bool:
        """Ask a job to end. False: it had ended before."""
        with self._errors(job_id):
            return bool(self._ray.stop_job(job_id))

    def wait(self, job_id: str, *, timeout_s: float, poll_s: float = 0.3) -> Job:
        """The job once it has ended, or as it is when the time is over."""
        end = time.monotonic() + timeout_s
        while not (job := self.status(job_id)).ended and time.monotonic() < end:
            time.sleep(poll_s)
        return job

    def follow(self, job_id: str, write: Callable[[str], None]) -> Job:
        """Pass the log on as it grows until the job has ended. A lost connection is taken up where it broke."""
        import asyncio

        written, lost = 0, 0
        while True:
            before = written
            self.status(job_id)  # an unknown id is told here
            with contextlib.suppress(OSError, RuntimeError):
                for text in self._tail(asyncio.new_event_loop(), job_id, skip=before):
                    write(text)
                    written += len(text)
            job = self.wait(job_id, timeout_s=2.0)
            if job.ended:
                rest = self.logs(job_id)[written:]
                if rest:
                    write(rest)
                return job
            lost = 0 if written > before else lost + 1
            if lost > MAX_LOST_CONNECTIONS:
                raise ClusterError(
                    f"{self.url}: the log of {job_id} broke off {lost} times; the job itself goes on: `eagleray job status {job_id}`"
                )

    def _tail(self, loop: Any, job_id: str, *, skip: int) -> Iterator[str]:
        """Ray's stream starts at the log's beginning each time: the first `skip` characters are known."""
        stream = self._ray.tail_job_logs(job_id)
        try:
            while True:
                try:
                    text = loop.run_until_complete(anext(stream))
                except StopAsyncIteration:
                    return
                if skip < len(text):
                    yield text[skip:]
                skip = max(0, skip - len(text))
        finally:
            loop.run_until_complete(stream.aclose())
            loop.close()

    @contextlib.contextmanager
    def _errors(self, job_id: str | None = None) -> Iterator[None]:
        """Ray's exceptions -> one sentence."""
        try:
            yield
        except ClusterError:
            raise
        except (ConnectionError, OSError) as error:  # requests' errors are OSErrors
            raise ClusterError(
                f"{self.url}: the connection broke ({_first_line(error)}); is the cluster still up?"
            ) from None
        except Exception as error:
            text = str(error)
            if job_id is not None and ("does not exist" in text or "status code 404" in text):
                raise ClusterError(f"no job {job_id!r} at {self.url}; {self._known()}") from None
            if type(error).__name__ in ("AuthenticationError", "RuntimeError", "ValueError"):
                raise ClusterError(f"{self.url}: {_reason(text)}") from None
            raise

    def _known(self) -> str:
        ids = [job.id for job in self.list()][-8:]
        return f"known: {', '.join(ids)}" if ids else "no job was submitted to it yet"


def _job(info: Any) -> Job:
    def seconds(value: int | None) -> float | None:
        return value / 1000 if value else None

    return Job(
        id=info.submission_id or info.job_id or "",
        status=str(getattr(info.status, "value", info.status)),
        entrypoint=info.entrypoint,
        message=info.message or "",
        exit_code=info.driver_exit_code,
        started_s=seconds(info.start_time),
        ended_s=seconds(info.end_time),
        metadata=dict(info.metadata or {}),
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reason(text: str) -> str:
    """Ray answers with a server-side traceback; its last line says what happened."""
    body = text.partition(": ")[2] if text.startswith("Request failed") else text
    with contextlib.suppress(ValueError, AttributeError):
        body = json.loads(body.rstrip(".")).get("msg", body)
    lines = [line.strip() for line in body.strip().splitlines() if line.strip(" .")]
    return (lines or [text])[-1] if "Traceback" in body else (lines or [text])[0]


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)

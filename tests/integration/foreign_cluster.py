"""A real Ray cluster that is not ours: another process, HOME, token, mount and process namespace. Where a folder of the client is
named in `hidden`, the cluster sees an empty one in its place. For tests of submitting and joining."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 60.0


@dataclass(frozen=True)
class Foreign:
    """`address`: host:port of the dashboard. `gcs`: host:port that a Ray process joins. `home`: the cluster's HOME."""

    address: str
    gcs: str
    token: str
    home: Path


def cannot_isolate() -> str | None:
    """Why a mount and process namespace cannot be made here; None where it can."""
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"unshare --mount --pid is not permitted here: {done.stderr.strip()}"


NAMESPACE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]


@contextlib.contextmanager
def foreign_cluster(folder: Path, *, hidden: list[Path], num_cpus: int = 2) -> Iterator[Foreign]:
    """Up while the block runs. `--kill-child` and the process namespace end every process of it with one signal."""
    home, token = folder / "cluster-home", secrets.token_hex(32)
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(token, encoding="utf-8")
    gcs, dashboard, client, agent = _free_ports(4)
    short = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets have at most 107 characters of path
    mounts = "".join(f"mount -t tmpfs tmpfs '{path}' && " for path in hidden)
    ray = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--port",
        str(gcs),
        "--node-ip-address=127.0.0.1",
    ]
    ray += [
        "--dashboard-port",
        str(dashboard),
        "--ray-client-server-port",
        str(client),
        "--dashboard-agent-listen-port",
        str(agent),
        "--temp-dir",
        short,
    ]
    ray += ["--num-cpus", str(num_cpus), "--object-store-memory=100000000", "--disable-usage-stats"]
    kept = ("LANG", "LC_ALL", "TMPDIR")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_AUTH_MODE": "token"}
    env |= {"EAGLERAY_CACHE": str(home / "cache")}
    log = folder / "cluster.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*NAMESPACE, "sh", "-c", f"{mounts}exec {' '.join(ray)}"],
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=home,
        )
    try:
        _await(f"http://127.0.0.1:{dashboard}", token, process, log)
        yield Foreign(f"127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token, home)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
        subprocess.run(["rm", "-rf", short], check=False)


def _await(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=5)
            if answer.status_code == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"the cluster did not come up:\n{log.read_text(errors='replace')[-3000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

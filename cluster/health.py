"""What a machine must have to run Ray and training: Python, libraries, devices, tokens, Ray itself. Gives one Line a check,
each with its remedy. Called by `jobs.doctor`. Imports neither torch nor Ray unless asked to start one, so it answers in a
second even where they are broken."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import socket
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.auth import Token, disabled, find_token, token_path
from cluster.client import dashboard_url, probe
from cluster.config import ClusterConfig
from cluster.errors import ClusterError

OK, WARN, FAIL = "ok", "warn", "FAIL"
PYTHONS = ((3, 11), (3, 12))
GB = 1e9
SMALL_MEMORY = 4 * GB
OPEN_FILES = 8192  # what Ray asks for


@dataclass(frozen=True)
class Line:
    """One check. `mend` says what to do; empty where nothing is to be done."""

    state: str
    check: str
    found: str
    mend: str = ""


def python() -> Iterator[Line]:
    here = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro} at {sys.prefix}"
    good = sys.version_info[:2] in PYTHONS
    yield Line(
        OK if good else FAIL, "python", here, "" if good else "use Python 3.11 or 3.12: `make PYTHON=python3.11 setup`"
    )


def libraries() -> Iterator[Line]:
    """Installed versions against the lock file, or where only the wheel is installed against its own pins."""
    wanted, origin = pins()
    missing, other = [], []
    for name, version in wanted.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if version and found.partition("+")[0] != version.partition("+")[0]:
            other.append(f"{name} {found} (pinned {version})")
    if missing:
        yield Line(
            FAIL, "libraries", f"missing: {_some(missing)}", "`make setup` installs what requirements.lock names"
        )
    if other:
        yield Line(
            WARN,
            "libraries",
            f"other versions: {_some(other)}",
            "`make setup`; other versions may work and are not tested",
        )
    if not missing and not other:
        yield Line(OK, "libraries", f"{len(wanted)} as {origin} pins them")


def pins() -> tuple[dict[str, str], str]:
    """name -> exact version ('' where any will do), and which list that is."""
    lock = Path(__file__).resolve().parent.parent / "requirements.lock"
    if lock.is_file():
        found = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
        return dict(found), lock.name
    requires = [item for item in importlib.metadata.requires("eagleray") or [] if "extra ==" not in item]
    split = [re.match(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?(?:==([^\s;,]+))?", item) for item in requires]
    return {match[1]: match[2] or "" for match in split if match}, "the installed package"


def device() -> Iterator[Line]:
    """GPU and torch's build, read from its version file: importing torch takes seconds."""
    gpus = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)] if os.path.isdir("/dev") else []
    file = Path(sysconfig.get_paths()["platlib"]) / "torch" / "version.py"
    match = (
        re.search(r"^cuda\b[^=]*=\s*(None|'[^']*')", file.read_text(encoding="utf-8"), re.MULTILINE)
        if file.is_file()
        else None
    )
    cuda = match[1].strip("'") if match and match[1] != "None" else None
    build = f"torch for CUDA {cuda}" if cuda else "torch for CPU"
    if gpus and cuda is None:
        yield Line(
            WARN,
            "device",
            f"{len(gpus)} GPU(s), but {build}",
            "install the CUDA build: `make clean && make setup TORCH_INDEX=URL-of-a-CUDA-index`",
        )
    elif cuda and not gpus:
        yield Line(OK, "device", f"no GPU, {build}: runs on the CPU, the CUDA libraries lie idle")
    else:
        yield Line(OK, "device", f"{len(gpus)} GPU(s), {build}" if gpus else f"no GPU, {build}")


def machine() -> Iterator[Line]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with_cache = _available_memory() or memory
    yield Line(
        OK if cores >= 2 else WARN,
        "cores",
        str(cores),
        "" if cores >= 2 else "it works and is slow: set cluster.workers: 1",
    )
    small = with_cache < SMALL_MEMORY
    yield Line(
        WARN if small else OK,
        "memory",
        f"{with_cache / GB:.1f} GB free",
        "close something, or set cluster.workers: 1" if small else "",
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        yield Line(
            WARN,
            "open files",
            f"at most {hard}",
            f"raise the hard limit to {OPEN_FILES} (`ulimit -Hn`, /etc/security/limits.conf)",
        )


def _available_memory() -> int | None:
    file = Path("/proc/meminfo")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE) if file.is_file() else None
    return int(match[1]) * 1024 if match else None


def tokens() -> Iterator[Line]:
    """Ray's cluster token: who may start jobs as this account."""
    if disabled():
        yield Line(
            WARN,
            "token",
            "RAY_AUTH_MODE=disabled: anyone who reaches a cluster of yours can run code in it",
            "unset RAY_AUTH_MODE",
        )
        return
    path = token_path()
    try:
        token: Token | None = find_token()
    except ClusterError as error:
        yield Line(FAIL, "token", str(error), f"make {path} readable for this account alone: `chmod 600`")
        return
    if token is None:
        empty = path.exists()
        yield Line(
            WARN if empty else OK,
            "token",
            f"{path} is empty" if empty else "none yet; the first Ray writes one",
            f"remove {path}" if empty else "",
        )
    elif re.search(r"\s", token.value) or len(token.value) < 16:
        yield Line(
            WARN,
            "token",
            f"from {token.origin}: {len(token.value)} characters; that does not look like one of Ray's",
            "`ray get-auth-token` on the cluster's head node prints the right one",
        )
    elif token.origin == str(path) and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Line(
            WARN,
            "token",
            f"{path} can be read by other accounts, who could then run jobs as you",
            f"`chmod 600 {path}`",
        )
    else:
        yield Line(OK, "token", f"from {token.origin}")


def compiler() -> Iterator[Line]:
    yield Line(OK, "compiler", "not needed: nothing is compiled at run time")


def ray_answers(address: str | None, *, start: bool) -> Iterator[Line]:
    """The cluster at `address` answers; else Ray's own programs are there, and with `start` a Ray comes up."""
    if address is not None:
        yield _answers(address)
        return
    folder = Path(sysconfig.get_paths()["platlib"]) / "ray" / "core" / "src" / "ray"
    lacking = [name for name in ("gcs/gcs_server", "raylet/raylet") if not os.access(folder / name, os.X_OK)]
    if lacking:
        yield Line(
            FAIL,
            "ray",
            f"{', '.join(lacking)} cannot be run from {folder}",
            "install again: `make clean && make setup`",
        )
    elif start:
        yield _starts()
    else:
        yield Line(OK, "ray", "installed; not started (`eagleray doctor --ray` starts one)")


def _answers(address: str) -> Line:
    mend = "is the cluster up (`ray start --head`) and reachable from here? Leave cluster.address out to run inside this machine"
    if "://" in address:
        try:
            version, token = probe(dashboard_url(address))
        except ClusterError as error:
            return Line(FAIL, "cluster", str(error), mend)
        ours, theirs = importlib.metadata.version("ray"), version["ray_version"]
        found = f"Ray {theirs} at {address}" + (f", token from {token.origin}" if token else ", no token asked")
        return Line(
            OK if ours == theirs else WARN,
            "cluster",
            found,
            "" if ours == theirs else f"this machine has Ray {ours}: jobs need the same version on the cluster",
        )
    if address == "auto":
        return Line(OK, "cluster", "auto: whatever Ray runs on this machine")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return Line(OK, "cluster", f"{address} takes connections")
    except OSError as error:
        return Line(FAIL, "cluster", f"{address}: {error.strerror or error}", mend)


def _starts() -> Line:
    """A Ray is started and one worker answers."""
    from cluster.local import session

    begin = time.monotonic()
    try:
        with session(ClusterConfig()) as info:
            import ray

            place = ray.get(ray.remote(_place).remote(), timeout=60)
            seconds = time.monotonic() - begin
            return Line(
                OK, "ray", f"a worker answered after {seconds:.1f} s ({info['cpus']:.0f} logical CPUs) from {place}"
            )
    except Exception as error:  # whatever it is, it is the finding
        return Line(
            FAIL,
            "ray",
            f"does not start: {type(error).__name__}: {str(error)[:200]}",
            "see the newest log under /tmp/ray/session_latest/logs",
        )


def _place() -> str:
    return os.getcwd()


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

"""`eagleray doctor [SPEC]`: what is wrong on this machine and how to mend it. Takes a spec or nothing; prints one line a check
(ok, warn, FAIL, with the remedy below) and gives the exit code: 1 only where something cannot work."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import health
from cluster.health import FAIL, GB, OK, WARN, Line
from jobs.arrive import MARKER
from jobs.spec import JobSpec
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage, cache_root, check_file

LOW_DISK, NO_DISK = 10 * GB, 1 * GB  # a quickstart writes about 0.5 GB; Ray stops taking objects on a disk 95% full
SMALL_SHM = 2 * GB  # below it Ray keeps its objects in /tmp, several times slower


def run(spec: JobSpec | None = None, *, ray: bool = False) -> int:
    """Print all lines; 1 where one says FAIL. `ray`: start an embedded Ray too (5 to 15 s)."""
    count = dict.fromkeys((OK, WARN, FAIL), 0)
    for line in diagnose(spec, ray=ray):
        count[line.state] += 1
        print(f"{line.state:<5} {line.check:<17} {line.found}", flush=True)
        if line.mend:
            print(f"{'':<23} to mend it: {line.mend}", flush=True)
    print(f"{count[OK]} ok, {count[WARN]} to look at, {count[FAIL]} broken")
    return 1 if count[FAIL] else 0


def diagnose(spec: JobSpec | None, *, ray: bool = False) -> Iterator[Line]:
    """All checks in order. One that breaks is itself a line, and the others go on."""
    address = spec.cluster.address if spec else None
    checks: list[Callable[[], Iterator[Line]]] = [
        health.python,
        health.libraries,
        health.device,
        health.machine,
        lambda: disks(spec),
        lambda: ports(spec),
        health.tokens,
        lambda: caches(spec),
        health.compiler,
        lambda: health.ray_answers(address, start=ray),
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor does not die of what it finds
            yield Line(
                FAIL,
                getattr(check, "__name__", "check").strip("<>"),
                f"the check itself broke: {type(error).__name__}: {error}",
                "report it with this line",
            )


def disks(spec: JobSpec | None) -> Iterator[Line]:
    yield from _disk(
        "temporary files",
        Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()),
        "set RAY_TMPDIR to a folder with room (short: sockets live in it)",
    )
    if (shm := Path("/dev/shm")).is_dir():
        size = shutil.disk_usage(shm).total
        small = size < SMALL_SHM
        yield Line(
            WARN if small else OK,
            "shared memory",
            f"{size / GB:.1f} GB at {shm}",
            "in a container: `--shm-size=4g`; else Ray keeps objects on disk" if small else "",
        )
    yield from _disk("cache", cache_root(), "set EAGLERAY_CACHE to a folder with room")
    storage = Storage(spec.storage if spec else JobSpec.model_fields["storage"].default)
    if storage.is_local:
        yield from _disk("storage", Path(storage.url), "set storage: to a folder with room that every worker reaches")
        return
    try:
        storage.exists(MARKER)
        yield Line(OK, "storage", f"{storage.url} answers")
    except UserError as error:
        yield Line(FAIL, "storage", str(error), "`pip install` the package it names, or set storage: to a folder")
    except Exception as error:  # each object store has its own
        yield Line(
            FAIL,
            "storage",
            f"{storage.url}: {type(error).__name__}: {str(error)[:200]}",
            "check the URL, the network and the credentials in the environment",
        )


def _disk(what: str, path: Path, mend: str) -> Iterator[Line]:
    """Free space and the right to write, asked of the nearest folder that exists; nothing is made."""
    near = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        yield Line(FAIL, what, f"{path}: cannot be written", mend)
        return
    free = shutil.disk_usage(near).free
    state = FAIL if free < NO_DISK else WARN if free < LOW_DISK else OK
    yield Line(state, what, f"{free / GB:.1f} GB free at {path}", "" if state == OK else mend)


def ports(spec: JobSpec | None) -> Iterator[Line]:
    host, port = (spec.serve.host, spec.serve.port) if spec else ("127.0.0.1", 8000)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe_socket:
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe_socket.bind((host, port))
        yield Line(OK, "serve port", f"{host}:{port} is free")
    except OSError as error:
        yield Line(
            WARN,
            "serve port",
            f"{host}:{port}: {error.strerror or error}",
            "end what listens there (an endpoint of yours?), or `--set serve.port=8001`",
        )


def caches(spec: JobSpec | None) -> Iterator[Line]:
    """Each catalogue item: there, absent, or damaged (its files against the sizes and sums noted when it was fetched)."""
    from jobs.context import catalogue_refs
    from orchestration.data import catalog

    needed = {ref.removeprefix(catalog.PREFIX).partition("/")[0] for ref in catalogue_refs(spec)} if spec else set()
    absent = []
    for name in catalog.entries():
        item = catalog.entry(name)
        if not item.fetched:
            absent.append(name)
            continue
        try:
            yield Line(OK, f"data {name}", f"{_verified(item.folder)} at {item.folder}")
        except (DamagedError, OSError, ValueError, KeyError) as error:
            yield Line(
                FAIL if name in needed else WARN,
                f"data {name}",
                f"damaged: {error}",
                f"`rm -r {item.folder} && eagleray data fetch {name}`",
            )
    if absent:
        wanted = sorted(needed & set(absent))
        why = f"not fetched yet: {', '.join(absent)}"
        yield Line(
            WARN if wanted else OK,
            "data",
            why,
            f"`eagleray data fetch {' '.join(wanted)}` (a run does it too)" if wanted else "",
        )


def _verified(folder: Path) -> str:
    """Compare an item's files with its entry.json. Raises DamagedError naming the first that differs."""
    files = json.loads((folder / "entry.json").read_text(encoding="utf-8")).get("files")
    if files is None:
        return "fetched (by a version that noted no sums)"
    for name, wanted in files.items():
        check_file(folder / name, wanted, shown=str(folder / name))
    return f"{len(files)} files as fetched"

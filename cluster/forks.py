"""A script: the process that an embedded Ray's workers are forked from. It imports the given modules once, so that no worker has to;
then each request of `launch` (one a worker) becomes a fork that runs Ray's own worker script. Started by `template`, ends with the
driver: its standard input is a pipe from it. Standard library only; it must not import anything of ours, which workers
take from the shipped copy, and no thread may run here when it forks."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

# Ray reads these when its library is loaded, and never again (RayConfig's internal flags). They are the same in all workers of a driver
# and a node, but known only from the first request: so `ray` is imported then, everything else before.
FIXED = ("RAY_JOB_ID", "RAY_RAYLET_PID")
REQUEST_BYTES = 1 << 20


def serve(listener: socket.socket, modules: list[str]) -> None:
    """Answer requests until the driver is gone. Returns in the forked workers too, when their script ends."""
    of_ray = [name for name in modules if name.partition(".")[0] == "ray"]
    load([name for name in modules if name not in of_ray])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended workers leave no zombies
    fixed: list[str | None] | None = None
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        with connection:
            request, files = receive(connection)
            if request is None:
                continue
            wanted = [request["environment"].get(name) for name in FIXED]
            if fixed is None:
                fixed = wanted
                set_environment(request["environment"])
                load(of_ray)
            if wanted == fixed:
                child = os.fork()
                if child == 0:
                    listener.close()
                    connection.close()
                    become(request, files)
                    return
                with contextlib.suppress(OSError):
                    connection.send(str(child).encode())
            for file in files:
                os.close(file)


def load(modules: list[str]) -> None:
    """What cannot be imported is left to the worker, whose own import tells why."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else a worker's collections touch, and so copy, every page that it shares


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The request and the launcher's standard streams. None: the launcher did not wait."""
    try:
        connection.send(b"ready")
        text, files, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
        return (json.loads(text) if text else None), files
    except OSError:
        return None, []


def become(request: dict[str, Any], files: list[int]) -> None:
    """Turn this fork into what the launcher would have been as a Python of its own, and run its script."""
    os.setpgid(0, 0)  # Ray signals a worker's whole group
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as handle:
        os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
        handle.write(request["oom_score"])
    inherited = search_path()
    set_environment(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["arguments"]
    script = sys.argv[0]
    sys.path[:] = [os.path.dirname(script), *search_path(), *(path for path in sys.path if path not in inherited)]
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # else all workers draw the same numbers; `random` sees to it itself
    runpy.run_path(script, run_name="__main__")


def search_path() -> list[str]:
    return [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])

"""A script: the process that an embedded Ray's workers are forked from. It imports the given modules once, so that no worker has to;
each request of `launch` (one a worker) becomes a fork that runs Ray's own worker script, between two imports or after them. Started
by `template`, ends with the driver: its standard input is a pipe from it. Standard library only; it must not import anything of
ours, which workers take from the shipped copy, and no thread may run here when it forks."""

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
# and a node, but known only from the first request: so what is Ray's is imported then, everything else before.
FIXED = ("RAY_JOB_ID", "RAY_RAYLET_PID")
REQUEST_BYTES = 1 << 20


class Template:
    def __init__(self, listener: socket.socket, modules: list[str]) -> None:
        self.listener = listener
        self.of_ray = [name for name in modules if name.partition(".")[0] == "ray"]
        self.others = [name for name in modules if name not in self.of_ray]
        self.fixed: list[str | None] | None = None
        self.sound = True

    def run(self) -> None:
        """Until the driver is gone. Leaves by SystemExit in a forked worker whose script has ended."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended workers leave no zombies
        gc.disable()  # of what is imported nothing is garbage: looking for it is a fifth of the time (4.6 s to 3.6 s)
        for name in self.others:
            load(name)
            while request := self._waiting(0.0):
                self._answer(request)
        while request := self._waiting(None):
            self._answer(request)

    def _waiting(self, timeout_s: float | None) -> socket.socket | None:
        """The next launcher's connection. Exits where the driver is gone."""
        ready, _, _ = select.select([self.listener, sys.stdin], [], [], timeout_s)
        if sys.stdin in ready:  # only a driver that was killed leaves this process alive, and its folder
            with contextlib.suppress(OSError):
                os.unlink(path := self.listener.getsockname())
                os.rmdir(os.path.dirname(path))
            sys.exit()
        return self.listener.accept()[0] if ready else None

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request, files = receive(connection)
            if request is None:
                return
            wanted = [request["environment"].get(name) for name in FIXED]
            if self.fixed is None:
                self.fixed = wanted
                set_environment(request["environment"])
                self.sound = load_ray(self.of_ray)
            if self.sound and wanted == self.fixed:
                gc.freeze()  # else a worker's collections touch, and so copy, every page that it shares
                child = os.fork()
                if child == 0:
                    self.listener.close()
                    connection.close()
                    become(request, files)
                    sys.exit()
                with contextlib.suppress(OSError):
                    connection.send(str(child).encode())
            for file in files:
                os.close(file)


def load(name: str) -> None:
    """What cannot be imported is left to the worker, whose own import tells why."""
    with contextlib.suppress(Exception):
        importlib.import_module(name)


def load_ray(names: list[str]) -> bool:
    """False: workers must not be forked from here.

    Ray draws ids from a generator that no fork seeds anew: once it is used here, all workers draw the same ids (two that started at once
    died of it). Importing needs one for each class of actors, which is given another here.
    """
    if not names:
        return True
    load("ray.actor")
    actor = sys.modules.get("ray.actor")
    if actor is None:
        return True
    real = actor.ActorClassID  # type: ignore[attr-defined]

    class Drawn:
        @staticmethod
        def from_random() -> Any:
            return real(os.urandom(real.size()))

    actor.ActorClassID = Drawn  # type: ignore[attr-defined]
    for name in names:
        load(name)
    actor.ActorClassID = real  # type: ignore[attr-defined]
    return draw() != draw()


def draw() -> bytes:
    """The id that Ray would draw first in a fork."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            os.write(theirs, sys.modules["ray._raylet"].UniqueID.from_random().binary())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        return pipe.read()


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
    gc.enable()
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
    Template(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]).run()

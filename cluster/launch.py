"""A script: what Ray starts as a worker's Python. It asks the process behind the socket for a fork that runs the worker (`forks`)
and lives as long as that; where nobody answers it becomes an ordinary Python. Runs without site packages, in 20 ms."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys

WAIT_S = 30.0  # for the template's imports; Ray gives a worker 60 s to come up


def main(path: str, arguments: list[str]) -> None:
    worker = ask(path, arguments)
    if worker is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        select.select([os.pidfd_open(worker)], [], [])


def ask(path: str, arguments: list[str]) -> int | None:
    """The forked worker's process id. After the greeting it is the template's to start the worker or to refuse: never both start one."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(WAIT_S)
            connection.connect(path)
            if not connection.recv(16):
                return None
            connection.settimeout(None)
            socket.send_fds(connection, [json.dumps(request(arguments)).encode()], [0, 1, 2])
            answer = connection.recv(64)
        return int(answer) if answer else None
    except OSError:
        return None


def request(arguments: list[str]) -> dict[str, object]:
    with open("/proc/self/oom_score_adj") as handle:
        oom_score = handle.read()
    return {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "oom_score": oom_score,  # this and the next are as Ray has set them for its worker
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

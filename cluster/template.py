"""Workers that need not import. Takes the names of modules that workers will want; gives the command by which an embedded Ray starts its
workers as forks of one process that has imported them (`forks`, `launch`). On two cores a training worker, Ray Train's
controller and its helpers each spend 2 to 4 s of processor time on the same imports otherwise.

Nothing depends on it: where there is no such process, or it has ended, workers start as ordinary Pythons."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
SWITCH = "EAGLERAY_FORK_WORKERS"  # 0: workers start as ordinary Pythons
NO_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # pyarrow's allocator would start one
PATH_BYTES = 107  # of a socket's path, on Linux
GPUS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@contextlib.contextmanager
def template(modules: Sequence[str], variables: dict[str, str]) -> Iterator[str | None]:
    """Yields the command (`py_executable` of Ray's runtime environment); None where workers are not to be forked. `variables`: the
    workers' environment, as the libraries read it when they are imported. Returns at once: the imports go on beside the caller."""
    folder = tempfile.mkdtemp(prefix="eagleray-forks-")  # ours alone: who can connect can run code as us
    path = os.path.join(folder, "socket")
    if not modules or not can_fork() or len(os.fsencode(path)) > PATH_BYTES:
        os.rmdir(folder)
        yield None
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(256)
        process = _start(listener, modules, variables)
    try:
        yield shlex.join([sys.executable, "-I", "-S", str(HERE / "launch.py"), path])
    finally:
        process.kill()  # its forks end with Ray; where we are killed it sees that the pipe is closed
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def _start(listener: socket.socket, modules: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", str(HERE / "forks.py"), str(listener.fileno()), *modules],
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("EAGLERAY_WORKER_LOGS") else subprocess.DEVNULL,  # libraries' warnings at import
        env={**os.environ, **variables, **NO_THREADS},
        process_group=0,  # Ctrl-C is the driver's. No session of its own: the kernel may share processor time by sessions
    )


def can_fork() -> bool:
    """Not beside a GPU: a library that has only counted them leaves CUDA unusable in a fork."""
    return (
        hasattr(os, "pidfd_open")
        and os.environ.get(SWITCH, "1") != "0"
        and not any(os.path.exists(device) for device in GPUS)
    )

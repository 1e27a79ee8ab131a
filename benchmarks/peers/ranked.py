"""Served peer scripts that run on several ranks: the served process is rank 0 and starts the others, as `torchrun` would, over gloo on
this machine. What it is told, all ranks are told. Imports nothing of Eagleray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import served
import torch

Work = Callable[..., dict[str, Any]]


def main(script: str, work: Work) -> None:
    """`SCRIPT --ranks N` serves with N ranks, `SCRIPT` with one, which has no process group."""
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    ranks = int(given.get("--ranks", 1))
    if ranks == 1:
        served.serve(work)
    elif "--rank" in given:
        join(int(given["--rank"]), ranks, int(given["--port"]))
        while (told := shared(None)) is not None:
            work(**told)
    else:
        lead(script, work, ranks)


def lead(script: str, work: Work, ranks: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, script, "--ranks", str(ranks), "--port", str(port), "--rank"]
    others = [
        subprocess.Popen([*command, str(rank)], stdin=subprocess.DEVNULL, stdout=sys.stderr) for rank in range(1, ranks)
    ]
    join(0, ranks, port)
    served.serve(lambda **given: work(**(shared(given) or given)))
    shared(None)
    for process in others:
        process.wait()


def join(rank: int, ranks: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo")


def shared(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """What rank 0 was given, on every rank; None: the end."""
    box = [given]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def of_all_ranks(values: list[Any]) -> list[Any]:
    if not torch.distributed.is_initialized():
        return values
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, values)
    return [value for part in found for value in part]

"""Memory that all ranks of one machine see. Takes a size; gives every rank's buffer of that size to all of them. `reduction` adds
gradients up in it: over loopback gloo copies each byte four times through the kernel, 0.7 ms a MB on two busy cores; here each rank
reads and writes its share once, 0.15 ms a MB.

A buffer is an anonymous file (memfd), found by the others under /proc: it has no name, so nothing is left behind, whatever dies, and
/dev/shm, 64 MB in many containers, is not used."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets

import torch

HEAD = 4096  # bytes before the buffer: a page that says whose it is


def buffers(numel: int, world: int) -> list[torch.Tensor] | None:
    """fp32 buffers by rank, zeros, of which each may be written by all. None where some rank cannot see all others' memory: on
    other machines, in other containers, or where the system has no memfd. Collective."""
    own = _create(HEAD + 4 * numel)
    told: list[tuple[int, int, bytes] | None] = [None] * world
    torch.distributed.all_gather_object(told, (os.getpid(), own[0], own[1]) if own else None)
    found: list[torch.Tensor] | None = None
    if own and all(told):
        with contextlib.suppress(OSError, ValueError):
            found = [_see(place, numel) for place in told if place]
    seen = torch.tensor([int(found is not None)])
    torch.distributed.all_reduce(seen, op=torch.distributed.ReduceOp.MIN)
    if own:
        os.close(own[0])  # what is mapped stays
    return found if int(seen) else None


def _create(size: int) -> tuple[int, bytes] | None:
    """Its descriptor, and what its first bytes are: another container may have a file under the same numbers."""
    if not hasattr(os, "memfd_create"):
        return None
    mark = secrets.token_bytes(16)
    descriptor = os.memfd_create("eagleray")
    os.ftruncate(descriptor, size)
    os.pwrite(descriptor, mark, 0)
    return descriptor, mark


def _see(place: tuple[int, int, bytes], numel: int) -> torch.Tensor:
    pid, descriptor, mark = place
    with open(f"/proc/{pid}/fd/{descriptor}", "r+b") as file:
        memory = mmap.mmap(file.fileno(), HEAD + 4 * numel)
    if memory[:16] != mark:
        raise ValueError("another process's memory")
    return torch.frombuffer(memory, dtype=torch.float32, offset=HEAD, count=numel)

"""One rank's part of a checkpoint, and all ranks' parts together. Takes a snapshot; gives its files in the folder that rank 0 will seal.
A folder without a manifest does not exist for readers, so files are written in their last place. `rank-%05d.json` comes last: where
it is, that rank's files are whole and on the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestration.storage import MANIFEST, Storage
from orchestration.training.checkpoint import format, tensors
from orchestration.training.fragments import Fragment, Snapshot

PREFIXES = {"weights": "weights", "moments": "optimizer"}
OVERHEAD_BYTES = 1 << 20  # headers, rank and state files; of 200 layers
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(storage: Storage, rel: str, snapshot: Snapshot, *, rank: int, world: int) -> None:
    """Raises OSError; where the disk is full it names the folder, the bytes needed and those free."""
    if storage.exists(f"{rel}/{format.part_file(rank)}"):
        return  # written before for the same step, by a save that another rank could not finish
    storage.remove(f"{rel}/{format.failed_file(rank)}")
    local = storage.make_folder(rel) if storage.is_local else storage.staging()
    fragments = {"weights": snapshot.weights, "moments": snapshot.moments}
    needed = sum(_bytes(values) for values in fragments.values()) + OVERHEAD_BYTES
    part: dict[str, Any] = {"rank": rank, "world": world, "files": {}}
    try:
        _refuse_full(local, needed)
        for kind, values in fragments.items():
            name = f"{PREFIXES[kind]}-{rank:05d}-of-{world:05d}.safetensors"
            keyed = {f"{fragment.name}@{fragment.start}": fragment for fragment in values}
            part[kind] = _index(keyed, name)
            if keyed:
                named = {key: fragment.values for key, fragment in keyed.items()}
                part["files"][name] = tensors.write(local / name, named)
                if not storage.is_local:
                    storage.put(f"{rel}/{name}", local / name)
        storage.write(f"{rel}/{format.part_file(rank)}", json.dumps(part, sort_keys=True).encode())
    except OSError as error:
        raise _in_words(error, local, storage.path(rel), needed) from error
    finally:
        if not storage.is_local:
            shutil.rmtree(local, ignore_errors=True)


def withdraw(storage: Storage, rel: str, rank: int, reason: str) -> None:
    """Remove this rank's files after a failure, and let rank 0 know, who waits for them."""
    ours = (format.part_file(rank), *(f"{prefix}-{rank:05d}-of-" for prefix in PREFIXES.values()))
    for name in storage.list(rel):
        if name.startswith(ours) or (rank == 0 and name in (format.STATE, MANIFEST)):
            storage.remove(f"{rel}/{name}")
    if rank == 0:
        if storage.is_local:
            with contextlib.suppress(OSError):
                os.rmdir(storage.path(rel))  # where no other rank has written
    else:
        storage.write(f"{rel}/{format.failed_file(rank)}", json.dumps({"reason": reason}).encode())


def wait_for(storage: Storage, rel: str, world: int, wait_s: float, refuse_stale: Callable[[], None]) -> None:
    """Until every rank's part is there. Raises OSError where one failed or wrote nothing in time."""
    wanted, until, pause_s = {format.part_file(rank): rank for rank in range(world)}, time.monotonic() + wait_s, 0.002
    while missing := set(wanted) - (present := set(storage.list(rel))):
        for name in missing:
            failed = format.failed_file(wanted[name])
            if failed in present:
                reason = storage.read_json(f"{rel}/{failed}")["reason"]
                storage.remove(f"{rel}/{failed}")  # it was told: who tries again must not hear it again
                raise OSError(f"checkpoint {storage.path(rel)}: rank {wanted[name]} could not write its part: {reason}")
        if time.monotonic() > until:
            ranks = ", ".join(str(wanted[name]) for name in sorted(missing))
            raise TimeoutError(
                f"checkpoint {storage.path(rel)}: no part of rank {ranks} after {wait_s:g} s; it is not sealed"
            )
        if pause_s > 0.1:
            refuse_stale()
        time.sleep(pause_s)
        pause_s = min(0.5, 1.5 * pause_s)


def collect(storage: Storage, rel: str, world: int, snapshot: Snapshot) -> dict[str, Any]:
    """All ranks' files. Raises ValueError where the parts do not hold each element once: nothing that cannot be read is sealed."""
    files: dict[str, Any] = {}
    found = []
    for rank in range(world):
        name = format.part_file(rank)
        data = storage.read(f"{rel}/{name}")
        part = format.parse_part(data, f"{storage.path(rel)}/{name}")
        files |= {name: format.describe(data), **part["files"]}
        found.append(part)
    weights, moments = format.merge(found, "weights"), format.merge(found, "moments")
    if wrong := format.gaps(weights, moments, snapshot.shapes, snapshot.steps):
        raise ValueError(f"checkpoint {rel} is not sealed: {wrong}")
    return files


def _index(keyed: dict[str, Fragment], file: str) -> dict[str, list[format.Piece]]:
    found: dict[str, list[format.Piece]] = {}
    for key, fragment in keyed.items():
        found.setdefault(fragment.name, []).append((file, key, fragment.start, fragment.values.numel()))
    return found


def _bytes(fragments: Sequence[Fragment]) -> int:
    return sum(fragment.values.numel() * fragment.values.element_size() for fragment in fragments)


def _refuse_full(folder: Path, needed: int) -> None:
    """Before the first byte: a disk filled to the end would stop others as well."""
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _in_words(error: OSError, folder: Path, shown: str, needed: int) -> OSError:
    if error.errno not in FULL:
        return error
    free = shutil.disk_usage(folder).free
    return OSError(
        error.errno,
        f"the checkpoint was not written, {os.strerror(error.errno).lower()}: it needs {needed:,} bytes and {free:,} are free;"
        " the ones before are whole. Free space, or set train.checkpoint.keep lower",
        shown,
    )

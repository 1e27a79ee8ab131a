"""What the files of a checkpoint say. Takes names and bytes in storage; gives plain values, or DamagedError naming the file. Used by
the writer, the reader and the search for the newest. Knows no tensor library.

The manifest holds a digest of itself and must be, to the byte, what we would write: a change that JSON would forgive, in a number
or in the order of entries, counts as damage like any other."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import MANIFEST, Storage, digest, dump_json
from orchestration.training.state import TrainState

FORMAT = 2
STATE = "state.json"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FOLDER_NAME = re.compile(r"step-(\d+)\.(\d+)")

Piece = tuple[str, str, int, int]  # file, key in it, first element, number of elements


@dataclass(frozen=True)
class Seal:
    """A manifest. `meta`: step, attempt, world, score, best, frozen, state (the file's name)."""

    files: dict[str, dict[str, Any]]
    meta: dict[str, Any]


@dataclass(frozen=True)
class State:
    """What state.json holds."""

    train: TrainState
    meta: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, int]
    extra: dict[str, float]


def name(run_rel: str, step: int, attempt: int) -> str:
    return f"{run_rel}/checkpoints/step-{step:08d}.{attempt:06d}"


def place(folder_name: str) -> tuple[int, int] | None:
    """(step, attempt), by which checkpoints sort; None for a folder that is none."""
    found = FOLDER_NAME.fullmatch(folder_name)
    return (int(found[1]), int(found[2])) if found else None


def part_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def failed_file(rank: int) -> str:
    return f"failed-{rank:05d}.json"


def next_state_file(name: str) -> str:
    """state.json, state-2.json, state-3.json: a file that a manifest names is never written over."""
    number = name.removesuffix(".json").partition("-")[2]
    return f"state-{int(number or 1) + 1}.json"


def describe(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# ------------------------------------------------------------------------------------------------ manifest


def seal(storage: Storage, rel: str, files: dict[str, dict[str, Any]], meta: dict[str, Any]) -> None:
    """Commit a folder whose files are in place."""
    storage.seal(rel, files, {**meta, "digest": digest({"files": files, "meta": meta})})


def read_seal(storage: Storage, rel: str) -> Seal | None:
    """None where there is no manifest. Raises DamagedError where it is not what was written."""
    shown = f"{storage.path(rel)}/{MANIFEST}"
    try:
        data = storage.read(f"{rel}/{MANIFEST}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = json.loads(data)
        files, meta = value["files"], dict(value["meta"])
        claimed = meta.pop("digest")
        whole = data == dump_json(value) and claimed == digest({"files": files, "meta": meta})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{shown}: not a manifest of a checkpoint ({type(error).__name__}: {error})") from None
    if not whole:
        raise DamagedError(f"{shown}: its digest is not that of its entries")
    if bad := [file for file in files if not FILE_NAME.fullmatch(file)]:
        raise DamagedError(f"{shown}: {bad[0]!r} is no file name")
    return Seal(files, meta)


# ------------------------------------------------------------------------------------------------ state and parts


def dump_state(state: State) -> bytes:
    values = {**vars(state), "train": vars(state.train), "format": FORMAT}
    return json.dumps(values, sort_keys=True).encode()  # no indent: that would be the Python encoder, 20 times slower


def parse_state(data: bytes, shown: str) -> State:
    """Raises DamagedError."""
    try:
        value = json.loads(data)
        if value.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}: it was written by another version")
        train = dict(value["train"])
        train["pending"] = tuple(train["pending"])
        shapes = {name: tuple(shape) for name, shape in value["shapes"].items()}
        return State(TrainState(**train), value["meta"], shapes, value["steps"], value["extra"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{shown}: {error}") from None


def parse_part(data: bytes, shown: str) -> dict[str, Any]:
    """One rank's json: rank, world, step, attempt, files, weights and moments (name -> pieces). Raises DamagedError."""
    try:
        value = json.loads(data)
        for kind in ("weights", "moments"):
            value[kind] = {
                name: [(str(f), str(k), int(a), int(n)) for f, k, a, n in pieces]
                for name, pieces in value[kind].items()
            }
        return {**value, "files": dict(value["files"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{shown}: {type(error).__name__}: {error}") from None


def merge(parts: Iterable[dict[str, Any]], kind: str) -> dict[str, list[Piece]]:
    """All ranks' pieces of each tensor, in order."""
    found: dict[str, list[Piece]] = {}
    for part in parts:
        for tensor, pieces in part[kind].items():
            found.setdefault(tensor, []).extend(pieces)
    return {tensor: sorted(pieces, key=lambda piece: piece[2]) for tensor, pieces in found.items()}


def gaps(
    weights: dict[str, list[Piece]], moments: dict[str, list[Piece]], shapes: dict[str, Any], steps: dict[str, int]
) -> str | None:
    """What is wrong with a cut: each element of each tensor must occur exactly once. None: nothing."""
    if missing := sorted((set(shapes) | set(steps)) - set(weights) - set(moments)):
        return f"{missing[0]} is missing"
    for tensor, pieces in (*weights.items(), *moments.items()):
        if (shape := shapes.get(tensor)) is None:
            return f"{tensor} has no shape"
        at = 0
        for _, _, start, numel in pieces:
            if start != at:
                return (
                    f"{tensor}: {'elements are missing' if start > at else 'elements occur twice'} at {min(start, at)}"
                )
            at = start + numel
        if at != math.prod(shape):
            return f"{tensor}: {at} elements of {math.prod(shape)}"
    return None

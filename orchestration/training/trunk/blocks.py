"""Where outputs of a frozen bottom lie: `trunks/<address>`, one folder for a split of a store. Takes token counts of the split's rows in
shown order; gives its blocks of rows, which of them are there, and their values as mapped arrays. `trunk` fills and reads; nothing
here knows a model.

A block is one raw file, `{number}-{rows}-{sha256}.bin`: tokens x width values of its rows end to end, for int8 then a float32
scale a token. It arrives by one rename (one put on an object store) with its checksum in its name, so it is there whole or not at all
and two writers cannot mix their bytes. A run that uses the first rows of a split stores a shorter last block; a longer one serves
shorter needs. While a block is computed, `{number}.claim` tells other ranks and trials; losing that race only costs double work."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.errors import DamagedError
from orchestration.storage import Storage, check_file, describe, dump_json
from orchestration.training.trunk.cost import token_bytes

FOLDER = "trunks"
BLOCK_ROWS = (
    256  # a claim lasts 7 s of one thread (MiniLM, 50 tokens a row), a run that uses 300 rows computes no more than 300
)
MOST_BLOCKS = (
    4096  # files and mappings of a split; above a million rows blocks get larger (Linux allows 65,530 mappings)
)
TOUCH_S, STALE_S = (
    10.0,
    120.0,
)  # a claim is renewed between batches; one that was not for so long belongs to a dead process
VALUES: dict[str, Any] = {"fp32": np.float32, "bf16": np.int16, "int8": np.int8}  # numpy has no bf16
_checked: set[tuple[str, int, int]] = (
    set()
)  # (path, mtime, size) of files whose checksum this process has seen to be right


@dataclass(frozen=True)
class Need:
    """Block `number`, of which the first `rows` rows are needed."""

    number: int
    rows: int


class Blocks:
    """`tokens_N`: stored tokens of each row of the split, in shown order."""

    def __init__(self, storage: Storage, rel: str, *, tokens_N: np.ndarray, width: int, dtype: str) -> None:
        self.storage, self.rel, self.width, self.dtype = storage, rel, width, dtype
        self.rows = BLOCK_ROWS
        while self.rows * MOST_BLOCKS < len(tokens_N):
            self.rows *= 2
        self.offsets_N1 = np.concatenate([[0], np.cumsum(tokens_N, dtype=np.int64)])

    def needed(self, places: np.ndarray) -> list[Need]:
        """Blocks that hold these rows."""
        numbers = places // self.rows
        last = np.zeros(int(numbers.max(initial=-1)) + 1, np.int64)
        np.maximum.at(last, numbers, places - numbers * self.rows + 1)
        return [Need(int(number), int(last[number])) for number in np.flatnonzero(last)]

    def tokens(self, number: int, rows: int) -> int:
        first = number * self.rows
        return int(self.offsets_N1[first + rows] - self.offsets_N1[first])

    def found(self) -> dict[int, tuple[int, str]]:
        """Block -> (rows, file name) of the longest file that is there."""
        blocks: dict[int, tuple[int, str]] = {}
        for name in self.storage.list(self.rel):
            if name.endswith(".bin"):
                number, rows, _ = name.split("-")
                blocks[int(number)] = max(blocks.get(int(number), (0, "")), (int(rows), name))
        return blocks

    def missing(self, needs: list[Need]) -> list[Need]:
        there = self.found()
        return [need for need in needs if there.get(need.number, (0, ""))[0] < need.rows]

    # ---------------------------------------------------------------------------------------------- one block

    def check(self, name: str) -> None:
        """Size and checksum, once a process. Raises DamagedError naming the file."""
        path = self.local(name)
        number, rows, digest = name.removesuffix(".bin").split("-")
        mark = _mark(path)
        if mark not in _checked:
            wanted = {
                "bytes": self.tokens(int(number), int(rows)) * token_bytes(self.width, self.dtype),
                "sha256": digest,
            }
            check_file(path, wanted, shown=f"{self.storage.path(self.rel)}/{name}")
            _checked.add(mark)

    def drop(self, name: str) -> None:
        self.storage.remove(f"{self.rel}/{name}")
        if not self.storage.is_local:
            self.local(name).unlink(missing_ok=True)

    def put(self, number: int, rows: int, file: Path) -> None:
        """Move a finished local file in."""
        self.storage.put(f"{self.rel}/{number:06d}-{rows:06d}-{describe(file)['sha256']}.bin", file)

    def open(self, number: int, rows: int, path: Path, mode: Any = "r") -> tuple[np.ndarray, np.ndarray | None]:
        """(values tokens x width, scales tokens or None) of a block's file, mapped. Raises DamagedError for another size."""
        tokens = self.tokens(number, rows)
        wanted, size = tokens * token_bytes(self.width, self.dtype), path.stat().st_size
        if size != wanted:
            raise DamagedError(f"{path}: {size} bytes instead of {wanted}; remove it and start again")
        values = np.memmap(path, VALUES[self.dtype], mode, shape=(tokens, self.width))
        if self.dtype != "int8":
            return np.asarray(values), None
        scales = np.memmap(path, np.float32, mode, offset=tokens * self.width, shape=(tokens,))
        return np.asarray(values), np.asarray(scales)  # plain arrays: memmap's own slices cost 3 times as much

    def create(self, number: int, rows: int, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """The same of a new file, to be written to. Its bytes are reserved first: a full disk under a mapping kills the process, here it
        raises OSError."""
        with open(path, "wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, self.tokens(number, rows) * token_bytes(self.width, self.dtype))
        return self.open(number, rows, path, "r+")

    def local(self, name: str) -> Path:
        """The file itself, or a copy of an object store's in the cache."""
        return self.storage.cached(f"{self.rel}/{name}", f"{self.rel}/{name}")

    # ---------------------------------------------------------------------------------------------- claims

    @contextlib.contextmanager
    def claim(self, number: int) -> Iterator[Claim | None]:
        """None where another living process computes the block."""
        rel = f"{self.rel}/{number:06d}.claim"
        mine = Claim(self.storage, rel)
        if not self.storage.create(rel, dump_json(mine.value())):
            if _alive(self.storage, rel):
                yield None
                return
            mine.write()
        try:
            yield mine
        finally:
            self.storage.remove(rel)

    def tidy(self) -> None:
        """Remove claims of processes that died."""
        for name in self.storage.list(self.rel):
            if name.endswith(".claim") and not _alive(self.storage, f"{self.rel}/{name}"):
                self.storage.remove(f"{self.rel}/{name}")


class Claim:
    def __init__(self, storage: Storage, rel: str) -> None:
        self.storage, self.rel, self.at = storage, rel, time.time()

    def value(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "at": self.at}

    def write(self) -> None:
        self.storage.write_json(self.rel, self.value())

    def touch(self) -> None:
        if time.time() - self.at > TOUCH_S:
            self.at = time.time()
            self.write()


def _alive(storage: Storage, rel: str) -> bool:
    """By process id on the same machine, by age everywhere."""
    try:
        claim = storage.read_json(rel)
        with contextlib.suppress(PermissionError):  # somebody else's process
            if claim["host"] == socket.gethostname():
                os.kill(claim["pid"], 0)
        return bool(time.time() - claim["at"] < STALE_S)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (
        json.JSONDecodeError,
        KeyError,
        TypeError,
    ):  # created, not written yet; or by a process that died in between
        return _young(storage, rel)


def _young(storage: Storage, rel: str) -> bool:
    if not storage.is_local:
        return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - os.stat(storage.path(rel)).st_mtime < TOUCH_S
    return False


def _mark(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size

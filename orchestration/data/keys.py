"""What the first pass found of each row: identity, hashes, label. Takes the passes' results in any order; gives columns over all
rows, in the order of units, and what is decided from them. Called by `prepare` on the driver. The columns lie in files of the
driver's machine, 52 bytes a row (and near-duplicate features), so the driver's memory holds a few bytes a row, not the corpus."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data.dedup import find_duplicates
from orchestration.data.sketch import Features
from orchestration.data.sources import EXAMPLES

DTYPE = np.dtype([("row_id", "<u8", 2), ("text", "<u8", 2), ("group", "<u8", 2), ("label", "<i4")])
BUCKET_ROWS = 2_000_000  # rows compared at once: about 200 MB while they are sorted


def pack(row_ids: list[bytes], texts: list[bytes], groups: list[bytes], labels: list[int]) -> bytes:
    """In a worker: the keys of a unit's rows, 52 bytes each."""
    keys = np.empty(len(labels), DTYPE)
    for name, digests in (("row_id", row_ids), ("text", texts), ("group", groups)):
        keys[name] = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    keys["label"] = labels
    return keys.tobytes()


@dataclass
class Keys:
    """`folder`: an empty one for the files. `bounds`: where each unit's rows begin, and the end; known after `close`."""

    folder: Path
    units: int

    def __post_init__(self) -> None:
        self._sizes = np.zeros(self.units, np.int64)
        self.marks: list[str] = [""] * self.units
        self._left: list[dict[str, Any]] = [{} for _ in range(self.units)]
        self.featured: list[int] = []  # units with near-duplicate features

    def add(self, found: dict[str, Any]) -> None:
        """One result of `passes.read_keys`."""
        number = found["unit"]
        self._path(number).write_bytes(found["keys"])
        self._sizes[number] = len(found["keys"]) // DTYPE.itemsize
        self.marks[number], self._left[number] = found["mark"], json.loads(found["left"])
        if found["features"]:
            self.featured = sorted([*self.featured, number])
            for name, values in np.load(io.BytesIO(found["features"])).items():
                np.save(self.folder / f"{name}-{number:06d}.npy", values)

    def close(self) -> Keys:
        self.bounds = np.concatenate([[0], np.cumsum(self._sizes)])
        self.left = merge_left(self._left)
        return self

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def _path(self, number: int) -> Path:
        return self.folder / f"keys-{number:06d}.bin"

    def unit(self, number: int) -> np.ndarray:
        """A unit's keys, mapped (structured, DTYPE)."""
        if not self._sizes[number]:
            return np.empty(0, DTYPE)
        return np.memmap(self._path(number), DTYPE, "r")

    def features(self, number: int) -> Features:
        """A unit's near-duplicate features, mapped."""
        names = [field.name for field in fields(Features)]
        return Features(*(np.load(self.folder / f"{name}-{number:06d}.npy", mmap_mode="r") for name in names))

    def column(self, name: str) -> np.ndarray:
        """One column of all rows, in memory."""
        return np.concatenate([np.empty(0, DTYPE)[name], *(self.unit(number)[name] for number in range(self.units))])

    def duplicates(self) -> tuple[np.ndarray, int]:
        """keep_N: True for the row with the smallest id of each text; and how many of the others have another label than it.

        Rows are compared a bucket of hashes at a time, so memory does not grow with the corpus.
        """
        keep_N = np.zeros(len(self), bool)
        conflicts = 0
        bits = max(0, int(np.ceil(np.log2(max(len(self), 1) / BUCKET_ROWS))))
        for bucket in range(1 << bits):
            parts, at = [], []
            for number in range(self.units):
                keys = self.unit(number)
                rows = np.flatnonzero(keys["text"][:, 0] >> np.uint64(64 - bits) == bucket) if bits else slice(None)
                parts.append(keys[rows])
                at.append(self.bounds[number] + np.arange(len(keys))[rows])
            keys, places = np.concatenate(parts), np.concatenate(at)
            found = find_duplicates(keys["text"], keys["row_id"], keys["label"])
            keep_N[places[found.keep_N]] = True
            conflicts += found.conflicts
        return keep_N, conflicts


def merge_left(
    units: list[dict[str, dict[str, Any]]], before: dict[str, dict[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Reason -> {bad, count, examples} over all units, in their order, behind those merged `before`; the first few examples are kept."""
    merged = {reason: dict(found) for reason, found in (before or {}).items()}
    for unit in units:
        for reason, left in unit.items():
            found = merged.setdefault(reason, {"bad": left["bad"], "count": 0, "examples": []})
            found["count"] += left["rows"]
            found["examples"] = (found["examples"] + left["examples"])[:EXAMPLES]
    return merged

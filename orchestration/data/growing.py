"""A streamed store, finished or still being written. Takes storage and the store's name; gives splits whose shards become more.
Called by training ranks where the spec has `data.stream`; one reader for both cases, so that a run which streams and one which
prepared first see the same batches. Knows nothing of who writes it: a unit is there once its note is, all units once the
manifest is.

Validation rows are those of the first window of units, whole from the start and the same ever after."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data.draw import Stream
from orchestration.data.passes import note_name
from orchestration.data.store import Split, mapped
from orchestration.data.stream import FAILED, PLAN
from orchestration.errors import DamagedError, DataError
from orchestration.storage import Storage

POLL_S = 0.2
QUIET_S = 600.0  # without a new unit: whoever prepares is gone, or far too slow to wait for


class StreamedStore:
    """Opened once a rank. `meta` says what every store says, without the report. Raises DamagedError where nothing comes, DataError where
    whoever prepares has given up."""

    folds = None

    def __init__(self, storage: Storage, rel: str, *, quiet_s: float = QUIET_S) -> None:
        self.storage, self.rel, self.quiet_s = storage, rel, quiet_s
        self._units: list[dict[str, str]] = []  # split -> file, of each unit in order
        self.complete = False
        self.meta: dict[str, Any] = self._wait(self._plan)
        self.labels: list[str] = list(self.meta["labels"])
        self.fingerprint: str = self.meta["address"]
        self.packed = bool(self.meta["spec"].get("tokenize", {}).get("pack"))
        self.window: int = self.meta["spec"]["stream"]["window"]
        self.tags: list[str] = self.meta["spec"].get("tags", [])
        self.heads: dict[str, list[str]] = self.meta["spec"].get("heads", {})
        self.shapes = {kind: tuple(shape) for kind, shape in self.meta["shapes"].items()}
        self.targets: list[str] = self.meta.get("targets", [])
        self.pairs = "pair_at" in self.targets
        self._train = GrowingSplit(self)

    def split(self, name: str, fold: int | None = None) -> Any:
        """`train` grows; `validation` is that of the first window of units."""
        if name == "train":
            return self._train
        self.wait_units(self.window)
        files = [unit[name] for unit in self._units[: self.window] if name in unit]
        batches = [batch for file in files for batch in mapped(self.local(file))]
        return Split(name, batches, np.arange(sum(map(len, batches))), self.shapes, self.targets)

    def stream(self, shards: int) -> Stream:
        """Waits until the training split has so many shards, or all. For `Feed`."""
        while len(self._train.files) < shards and not self.complete:
            self.wait_units(len(self._units) + 1)
        return Stream(self._train.shard_rows, self.window, self.complete)

    def wait_units(self, count: int) -> None:
        """Until so many units are there, or all."""

        def enough() -> bool | None:
            self._look()
            return True if self.complete or len(self._units) >= count else None

        self._wait(enough)
        self._train.grow([unit["train"] for unit in self._units if "train" in unit])

    # ---------------------------------------------------------------------------------------------- looking

    def _plan(self) -> dict[str, Any] | None:
        try:
            return self.storage.read_json(f"{self.rel}/{PLAN}")
        except FileNotFoundError:
            return None

    def _look(self) -> None:
        """Notes first, then the manifest: the notes go once it is there."""
        while not self.complete:
            try:
                note = json.loads(self.storage.read(f"{self.rel}/{note_name(len(self._units))}"))
            except FileNotFoundError:
                break
            self._units.append({name: note[name]["file"] for name in note if name != "left"})
        manifest = None if self.complete else self.storage.manifest(self.rel)
        if manifest is not None:
            found: dict[int, dict[str, str]] = {}
            for name, part in manifest.meta["splits"].items():
                for file in part["shards"]:
                    found.setdefault(int(Path(file).stem.rpartition("-")[2]), {})[name] = file
            self._units = [found.get(number, {}) for number in range(self.meta["units"])]
            self.complete = True

    def _wait(self, look: Callable[[], Any]) -> Any:
        """What `look` gives once it is not None. Every new unit starts the clock anew."""
        since, seen = time.monotonic(), len(self._units)
        while (found := look()) is None:
            if len(self._units) > seen:
                since, seen = time.monotonic(), len(self._units)
            if time.monotonic() - since > self.quiet_s:
                raise DamagedError(
                    f"{self.storage.path(self.rel)}: no new shard for {self.quiet_s:.0f} s ({seen} units are there); is"
                    " `eagleray prepare` still running? Run it to its end, then resume this run"
                )
            self._refuse_failed()
            time.sleep(POLL_S)
        return found

    def _refuse_failed(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            why = self.storage.read_json(f"{self.rel}/{FAILED}")["error"]
            raise DataError(f"the rows that this run was waiting for will not come: {why}")

    def local(self, name: str) -> Path:
        """A shard as a local file: the file itself, or a copy of an object store's in the cache."""
        return self.storage.cached(f"{self.rel}/{name}", f"streamed/{self.fingerprint}/{name}")


class GrowingSplit:
    """Entries 0, 1, ... in the order of shards, as many as are there by now. Reads like `store.Split`."""

    def __init__(self, store: StreamedStore) -> None:
        self._store = store
        self.files: list[str] = []
        self.shard_rows: list[int] = []
        self._shards: list[Split] = []
        self._starts = np.zeros(1, np.int64)

    def grow(self, files: list[str]) -> None:
        for file in files[len(self.files) :]:
            batches = mapped(self._store.local(file))
            rows_N = np.arange(sum(map(len, batches)))
            shard = Split("train", batches, rows_N, self._store.shapes, self._store.targets)
            self.files.append(file)
            self._shards.append(shard)
            self.shard_rows.append(len(shard))
        self._starts = np.cumsum([0, *self.shard_rows])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def lengths(self) -> _Column:
        return _Column(self, lambda shard: shard.lengths, np.int32)

    @property
    def labels(self) -> _Column:
        return _Column(self, lambda shard: shard.labels, np.int64)

    @property
    def values(self) -> _Column:
        return _Column(self, lambda shard: shard.values, np.float32)

    @property
    def heads(self) -> dict[str, _Column]:
        def column(head: str) -> _Column:
            return _Column(self, lambda shard: shard.heads[head], np.int64)

        return {head: column(head) for head in self._store.heads}

    def pair_at(self, indices: Any) -> np.ndarray:
        return np.array(self._gather(indices, lambda shard, rows: shard.pair_at(rows).tolist()), np.int32)

    def targets(self, indices: Any) -> list[np.ndarray]:
        return self._gather(indices, lambda shard, rows: shard.targets(rows))

    def withheld(self, indices: Any) -> list[np.ndarray]:
        return self._gather(indices, lambda shard, rows: shard.withheld(rows))

    def input_ids(self, indices: Any) -> list[np.ndarray]:
        return self._gather(indices, lambda shard, rows: shard.input_ids(rows))

    def texts(self, indices: Any) -> list[str]:
        return self._gather(indices, lambda shard, rows: shard.texts(rows))

    def ids_of(self, indices: Any) -> list[bytes]:
        return self._gather(indices, lambda shard, rows: shard.ids_of(rows))

    def names_of(self, indices: Any) -> list[tuple[bytes, int, int]]:
        return self._gather(indices, lambda shard, rows: shard.names_of(rows))

    def segments(self, indices: Any) -> list[list[int]]:
        return self._gather(indices, lambda shard, rows: shard.segments(rows))

    def media(self, kind: str, indices: Any) -> list[np.ndarray | None]:
        return self._gather(indices, lambda shard, rows: shard.media(kind, rows))

    def head(self, rows: int | None) -> GrowingSplit:
        """All of it: a stream has no known size to take a part of (the spec's checks refuse train.rows)."""
        return self

    def located(self, indices: Any) -> list[tuple[np.ndarray, Split, np.ndarray]]:
        """For each shard that holds some of the indices: where in `indices`, the shard, the rows in it."""
        rows = np.asarray(indices, np.int64)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        found = []
        for shard in np.unique(shards).tolist():
            at = np.flatnonzero(shards == shard)
            found.append((at, self._shards[shard], rows[at] - self._starts[shard]))
        return found

    def _gather(self, indices: Any, read: Callable[[Split, np.ndarray], list[Any]]) -> list[Any]:
        values: list[Any] = [None] * len(indices)
        for at, shard, rows in self.located(indices):
            for place, value in zip(at.tolist(), read(shard, rows), strict=True):
                values[place] = value
        return values


class _Column:
    """Numbers of the entries that are asked for: what `order.Epoch` wants of lengths."""

    def __init__(self, split: GrowingSplit, of: Callable[[Split], np.ndarray], dtype: Any) -> None:
        self._split, self._of, self._dtype = split, of, dtype

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, indices: Any) -> np.ndarray:
        values = np.empty(len(indices), self._dtype)
        for at, shard, rows in self._split.located(indices):
            values[at] = self._of(shard)[rows]
        return values


def open_store(storage: Storage, rel: str) -> Any:
    """A StreamedStore where the store was or is made by streaming, else a TokenStore."""
    from orchestration.data.store import TokenStore

    if storage.exists(f"{rel}/{PLAN}"):
        return StreamedStore(storage, rel)
    return TokenStore.open(storage, rel)

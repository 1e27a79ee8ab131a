"""The token store: what `prepare` writes and training reads. A sealed folder of Arrow shards by split, mapped into memory,
never loaded. `write_shard` is called in Ray workers, `TokenStore.open` by training ranks, evaluation and the sweep. Knows
nothing of Ray, models or how rows were made.

A split shows its rows in the order of a salted hash of their text, augmented copies behind their row, so that its first
rows are a random subset of it: `split.head(600)`."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestration.errors import DamagedError, UserError
from orchestration.storage import Manifest, Storage

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 65_536  # rows an Arrow record batch: list offsets are 32 bits, so a batch must stay below 2^31 tokens

SCHEMA = pa.schema(
    [
        ("row_id", pa.binary(16)),  # contract 2: hash of source name, relative path, record index
        ("copy", pa.int16()),  # 0 is the row as it is, 1 ... its augmented copies
        ("input_ids", pa.list_(pa.int32())),
        ("label", pa.int32()),  # index into the store's labels
        ("text", pa.string()),  # cleaned (and augmented) text
    ]
)


def write_shard(
    path: Path,
    *,
    row_ids: list[bytes],
    copies: list[int],
    input_ids: list[list[int]],
    labels: list[int],
    texts: list[str],
) -> None:
    """One Arrow IPC file without compression, whose bytes depend on the rows alone."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for start in range(0, len(row_ids), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            lengths = np.fromiter(map(len, input_ids[part]), np.int32)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            values = np.fromiter(chain.from_iterable(input_ids[part]), np.int32, count=int(offsets[-1]))
            columns = [
                pa.array(row_ids[part], SCHEMA.field("row_id").type),
                pa.array(copies[part], pa.int16()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)),
                pa.array(labels[part], pa.int32()),
                pa.array(texts[part], pa.string()),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


class Split:
    """Rows 0 ... len-1 in hash order. Index arrays are positions in this order."""

    def __init__(self, name: str, batches: list[pa.RecordBatch], rows_N: np.ndarray) -> None:
        """`rows_N`: the shown order, as rows of the shards laid end to end (int64)."""
        self.name = name
        self._batches = batches
        self._starts = np.cumsum([0, *(len(batch) for batch in batches)])
        self._rows_N = rows_N

    def __len__(self) -> int:
        return len(self._rows_N)

    def _column(self, name: str, dtype: Any) -> np.ndarray:
        """A fixed-width column in shown order."""
        parts = [batch.column(name).to_numpy(zero_copy_only=True) for batch in self._batches]
        return np.concatenate([np.empty(0, dtype), *parts])[self._rows_N].astype(dtype)

    @cached_property
    def _ids(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(offsets, values) of each record batch: views of the mapped file."""
        columns = [batch.column("input_ids") for batch in self._batches]
        return [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens a row (int32 N)."""
        parts = [np.diff(offsets) for offsets, _ in self._ids]
        return np.concatenate([np.empty(0, np.int32), *parts])[self._rows_N].astype(np.int32)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index a row (int64 N)."""
        return self._column("label", np.int64)

    @cached_property
    def copies(self) -> np.ndarray:
        """0 for a row as it is, else the number of the augmented copy (int16 N)."""
        return self._column("copy", np.int16)

    @cached_property
    def row_ids(self) -> list[str]:
        """32 hex digits a row; a copy has its row's id."""
        found = [value.hex() for batch in self._batches for value in batch.column("row_id").to_pylist()]
        return [found[row] for row in self._rows_N.tolist()]

    def _locate(self, indices: Any) -> list[tuple[int, int]]:
        """(record batch, row in it) of each index."""
        rows = self._rows_N[np.asarray(indices, dtype=np.int64)]
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        return list(zip(batches.tolist(), (rows - self._starts[batches]).tolist(), strict=True))

    def input_ids(self, indices: Any) -> list[np.ndarray]:
        """Token ids of each index: int32 views of the mapped file, not to be written to."""
        ids = self._ids
        return [ids[b][1][ids[b][0][row] : ids[b][0][row + 1]] for b, row in self._locate(indices)]

    def texts(self, indices: Any) -> list[str]:
        return [self._batches[b].column("text")[row].as_py() for b, row in self._locate(indices)]

    def head(self, rows: int | None) -> Split:
        """The first `rows` original rows with their copies: a random subset, the same for a given store. None: all."""
        if rows is None:
            return self
        starts = np.flatnonzero(self.copies == 0)
        if rows > len(starts):
            raise UserError(
                f"{rows} rows are wanted of split {self.name!r}, which has {len(starts)}; ask for fewer or none"
            )
        end = len(self) if rows == len(starts) else int(starts[rows])
        return Split(self.name, self._batches, self._rows_N[:end])


class TokenStore:
    """A sealed store. `fingerprint`: its content address. `meta`: everything its manifest says."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = manifest.meta
        self.fingerprint: str = self.meta["address"]
        self.labels: list[str] = list(self.meta["labels"])
        self.report: dict[str, Any] = self.meta["report"]  # keys sorted by name, as JSON keeps them
        self.preprocessing: dict[str, Any] = self.meta["preprocessing"]
        self._splits: dict[str, Split] = {}

    @classmethod
    def open(cls, storage: Storage, rel: str) -> TokenStore:
        """Raises DamagedError where the store was never finished or a file is missing or has another size."""
        manifest = storage.manifest(rel)
        if manifest is None:
            raise DamagedError(f"{storage.path(rel)}: no finished token store; run `eagleray prepare SPEC`")
        folder = storage.fetch(rel, manifest)
        for name, wanted in manifest.files.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != wanted["bytes"]:
                raise DamagedError(
                    f"{path}: {found} bytes, the manifest says {wanted['bytes']}; remove the folder, prepare again"
                )
        return cls(folder, manifest)

    def split(self, name: str) -> Split:
        """Raises UserError for another name than train, validation, test."""
        if name not in SPLITS:
            raise UserError(f"split {name!r}: allowed are {', '.join(SPLITS)}")
        if name not in self._splits:
            part = self.meta["splits"][name]
            batches = [batch for shard in part["shards"] for batch in _mapped(self.folder / shard)]
            rows_N = np.load(self.folder / f"{name}.order.npy", mmap_mode="r", allow_pickle=False)
            self._splits[name] = Split(name, batches, rows_N)
        return self._splits[name]


def _mapped(path: Path) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowInvalid as error:
        raise DamagedError(
            f"{path}: not a token store shard ({error}); remove the store's folder and prepare again"
        ) from None

"""The shards of a token store: what a training entry consists of, and the Arrow file that holds many. Takes the columns of a unit's
entries; writes one file whose bytes depend on them alone. Called by `entries` in Ray workers; `store` reads what is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

BATCH_ROWS, BATCH_TOKENS = 65_536, 1 << 28  # of an Arrow record batch: list offsets are 32 bits, 2^31 tokens at most

FIELDS = [
    ("row_id", pa.binary(16)),  # contract 2: hash of source name, relative path, record index
    ("copy", pa.int16()),  # 0 is the row as it is, 1 ... its augmented copies
    ("part", pa.int16()),  # number of the window of a long row
    ("source", pa.int16()),  # index into the spec's sources
    ("fold", pa.int8()),  # -1 without folds
    ("input_ids", pa.list_(pa.int32())),
    ("label", pa.int32()),  # index into the store's labels, -1 without
    ("text", pa.string()),  # cleaned (and augmented) text; null for a packed entry
]
PACKED = [
    ("segments", pa.list_(pa.int32())),  # tokens of each row in the entry
    ("segment_rows", pa.list_(pa.binary(16))),  # and their row ids
]

HEAD = "head:"  # and the head's name: a column of class numbers, -1 where a row has none
TARGETS = {
    "value": pa.float32(),
    "pair_at": pa.int32(),
    "target_ids": pa.list_(pa.int32()),
    "withheld": pa.list_(pa.int32()),
}  # besides heads

Numbers = (
    np.ndarray | tuple[np.ndarray, np.ndarray]
)  # one an entry; or lists: values end to end, and where each entry's begin


@dataclass(frozen=True)
class Columns:
    """E entries, one training example each. `values_T`, `offsets_E1`: token ids end to end, and where each entry begins.
    `media`: kind -> an array an entry, None where it has none. `segments`: of packed entries, the S rows that are in them; their row id, copy, source and fold are those of their first."""

    row_ids: list[bytes]
    labels: np.ndarray
    values_T: np.ndarray
    offsets_E1: np.ndarray
    texts: list[str] | None
    copies: np.ndarray | None = None
    parts: np.ndarray | None = None
    sources: np.ndarray | None = None
    folds: np.ndarray | None = None
    media: dict[str, list[np.ndarray | None]] = field(default_factory=dict)
    segments: tuple[np.ndarray, np.ndarray, list[bytes]] | None = None  # tokens_S, offsets_E1, row ids S
    targets: dict[str, Numbers] = field(default_factory=dict)  # names of TARGETS, or of heads

    def __len__(self) -> int:
        return len(self.offsets_E1) - 1


def write_shard(path: Path, columns: Columns) -> None:
    """One Arrow IPC file without compression, whose bytes depend on the columns alone."""
    targets = [(name, TARGETS.get(name, pa.int32())) for name in columns.targets]
    schema = pa.schema([*FIELDS, *(PACKED if columns.segments else []), *_media_fields(columns.media), *targets])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        lists = [column[1] for column in columns.targets.values() if isinstance(column, tuple)]
        for start, end in _batches(sum(lists, columns.offsets_E1)):
            writer.write_batch(pa.RecordBatch.from_arrays(_arrays(columns, start, end, schema), schema=schema))


def _batches(offsets_E1: np.ndarray) -> list[tuple[int, int]]:
    found, start = [], 0
    while start < len(offsets_E1) - 1:
        room = int(np.searchsorted(offsets_E1, offsets_E1[start] + BATCH_TOKENS, side="right")) - 1
        end = max(start + 1, min(start + BATCH_ROWS, room))
        found.append((start, end))
        start = end
    return found


def _media_fields(media: dict[str, list[np.ndarray | None]]) -> list[tuple[str, Any]]:
    """Images and windows of a series have one size in a store; audio has its own a row."""
    fields = []
    for kind, values in media.items():
        sizes = {value.nbytes for value in values if value is not None}
        fields.append((kind, pa.binary(sizes.pop()) if kind != "audio" and len(sizes) == 1 else pa.binary()))
    return fields


def _arrays(columns: Columns, start: int, end: int, schema: pa.Schema) -> list[pa.Array]:
    part = slice(start, end)
    count = end - start

    def numbers(values: np.ndarray | None, name: str, absent: int = 0) -> pa.Array:
        found = np.full(count, absent) if values is None else values[part]
        return pa.array(found.astype(schema.field(name).type.to_pandas_dtype()), schema.field(name).type)

    arrays = [
        pa.array(columns.row_ids[part], pa.binary(16)),
        numbers(columns.copies, "copy"),
        numbers(columns.parts, "part"),
        numbers(columns.sources, "source"),
        numbers(columns.folds, "fold", -1),
        _lists(columns.values_T, columns.offsets_E1, start, end),
        numbers(columns.labels, "label"),
        pa.nulls(count, pa.string()) if columns.texts is None else pa.array(columns.texts[part], pa.string()),
    ]
    if columns.segments:
        tokens_S, bounds_E1, row_ids_S = columns.segments
        offsets = pa.array((bounds_E1[start : end + 1] - bounds_E1[start]).astype(np.int32))
        ids = pa.array(row_ids_S[bounds_E1[start] : bounds_E1[end]], pa.binary(16))
        arrays += [_lists(tokens_S, bounds_E1, start, end), pa.ListArray.from_arrays(offsets, ids)]
    for kind, values in columns.media.items():
        found = [None if value is None else value.tobytes() for value in values[part]]
        arrays.append(pa.array(found, schema.field(kind).type))
    for name, column in columns.targets.items():
        arrays.append(_lists(*column, start, end) if isinstance(column, tuple) else numbers(column, name))
    return arrays


def _lists(values: np.ndarray, offsets_E1: np.ndarray, start: int, end: int) -> pa.ListArray:
    offsets = offsets_E1[start : end + 1]
    inside = values[offsets[0] : offsets[-1]].astype(np.int32, copy=False)
    return pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), pa.array(inside))

"""What lies in the input files, before any row is looked at. Takes the sources of the spec; gives each file's fingerprint
and the units of work. A unit is (file, first record, count), a pure function of the file's bytes and `data.shard_rows`, so
neither workers nor Ray's blocks can change what a shard holds. Called by `prepare` on the driver; `sources` reads units."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np

from orchestration.data.config import SourceConfig
from orchestration.data.files import find_files, open_binary
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage

READ_BYTES = 8 << 20
TEXT_COLUMNS = ("text", "file")  # of a text file: the line, and the file's relative path without its ending
MAX_FIELD_CHARS = 10_000_000  # of a CSV field: longer means a quote that was never closed


@dataclass(frozen=True)
class InputFile:
    """One file of a source. `path`: where to open it; `rel`: its part of every row's identity."""

    source: int
    path: str
    rel: str
    format: str
    bytes: int
    records: int
    sha256: str


@dataclass(frozen=True)
class Unit:
    """Records `first` ... `first + count - 1` of a file; of a line format they are `length` bytes from `offset`. `name` is
    what the user knows the file by."""

    number: int
    source: int
    path: str
    name: str
    rel: str
    format: str
    first: int
    count: int
    offset: int = 0
    length: int = 0
    header: tuple[str, ...] = ()

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Unit:
        value = json.loads(text)
        return cls(**{**value, "header": tuple(value["header"])})

    def shown(self, record: int) -> str:
        """`file row N`, counted from 1 as an editor does (a CSV file's header is not counted)."""
        return f"{self.name} row {record + 1}"


def scan(sources: list[SourceConfig], shard_rows: int, storage: Storage) -> tuple[list[InputFile], list[Unit]]:
    """All files and units, in the order of sources and relative paths.

    Raises UserError where a source has no files, DataError naming the file where one cannot be read or lacks a column.
    """
    files: list[InputFile] = []
    units: list[Unit] = []
    for number, source in enumerate(sources):
        for path, rel, form in find_files(source, storage):
            found = _scan_file(path, form, shard_rows, source)
            files.append(InputFile(number, path, rel, form, found.bytes, found.records, found.sha256))
            for first, count, offset, length in found.pieces:
                name = source.path if source.path.startswith("catalog:") else path
                units.append(
                    Unit(len(units), number, path, name, rel, form, first, count, offset, length, found.header)
                )
    if not any(file.records for file in files):
        raise UserError(f"data.sources: {', '.join(source.path for source in sources)} hold no records")
    return files, units


# ------------------------------------------------------------------------------------------------ one file


@dataclass(frozen=True)
class _Scan:
    bytes: int
    records: int
    sha256: str
    pieces: list[tuple[int, int, int, int]]  # first record, count, byte offset, byte length
    header: tuple[str, ...] = ()


def _scan_file(path: str, form: str, shard_rows: int, source: SourceConfig) -> _Scan:
    with open_binary(path) as handle:
        if form in ("text", "jsonl"):
            if form == "text":
                check_columns(path, list(TEXT_COLUMNS), source)
            return _scan_lines(handle, shard_rows)
        if form == "csv":
            return _scan_csv(handle, path, shard_rows, source)
        return _scan_table(handle, path, form, shard_rows, source)


def _scan_lines(handle: BinaryIO, shard_rows: int) -> _Scan:
    """Byte offsets of each `shard_rows`-th line: newlines are found a block at a time."""
    content, at, records = hashlib.sha256(), 0, 0
    starts = [0]  # of units
    last = b"\n"
    while block := handle.read(READ_BYTES):
        content.update(block)
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
        first = shard_rows - 1 - records % shard_rows  # the newline that ends the unit under way
        starts += (ends[first::shard_rows] + at + 1).tolist()
        records, at, last = records + len(ends), at + len(block), block[-1:]
    records += last != b"\n"
    return _Scan(at, records, content.hexdigest(), _pieces(starts, at, records, shard_rows))


def _pieces(starts: list[int], end: int, records: int, shard_rows: int) -> list[tuple[int, int, int, int]]:
    starts = starts[: -(-records // shard_rows)]
    bounds = [*starts[1:], end]
    counts = [min(shard_rows, records - i * shard_rows) for i in range(len(starts))]
    return [(i * shard_rows, counts[i], starts[i], bounds[i] - starts[i]) for i in range(len(starts))]


def delimiter(path: str) -> str:
    return "\t" if path.lower().endswith(".tsv") else ","


def _scan_csv(handle: BinaryIO, path: str, shard_rows: int, source: SourceConfig) -> _Scan:
    """Records by the csv module itself, since a quoted field may hold newlines: about a million rows a second."""
    content = hashlib.sha256()
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for raw in handle:
            content.update(raw)
            at += len(raw)
            yield raw.decode("utf-8", "surrogateescape")

    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(lines(), delimiter=delimiter(path))
    records, starts = 0, []
    try:
        header = tuple(name.removeprefix("\ufeff").strip() for name in next(reader, []))
        starts.append(at)
        for _ in reader:
            records += 1
            if records % shard_rows == 0:
                starts.append(at)
    except csv.Error as error:
        raise DataError(
            f"{path} row {records + 1} (line {reader.line_num}): not valid CSV: {error}; is a quote left open?"
        ) from None
    check_columns(path, list(header), source)
    return _Scan(at, records, content.hexdigest(), _pieces(starts, at, records, shard_rows), header)


def _scan_table(handle: BinaryIO, path: str, form: str, shard_rows: int, source: SourceConfig) -> _Scan:
    """Parquet and Arrow files know their rows."""
    import pyarrow as pa

    content = hashlib.sha256()
    while block := handle.read(READ_BYTES):
        content.update(block)
    size = handle.tell()
    handle.seek(0)
    try:
        records, names = table_shape(handle, form)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable {form} file: {error}") from None
    check_columns(path, names, source)
    pieces = [(first, min(shard_rows, records - first), 0, 0) for first in range(0, records, shard_rows)]
    return _Scan(size, records, content.hexdigest(), pieces)


def table_shape(handle: BinaryIO, form: str) -> tuple[int, list[str]]:
    """Rows and column names of a Parquet file or of an Arrow stream (what `datasets` saves)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "parquet":
        meta = pq.ParquetFile(handle)
        return meta.metadata.num_rows, meta.schema_arrow.names
    with pa.ipc.open_stream(handle) as reader:
        return sum(len(batch) for batch in reader), reader.schema.names


def check_columns(path: str, names: list[str], source: SourceConfig) -> None:
    wanted = {"text": source.text, "label.column": source.label.column if source.label else None, "group": source.group}
    for key, column in wanted.items():
        if column is not None and column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            shown = ", ".join(names[:20]) or "none"
            raise DataError(
                f"{path}: no column {column!r} (data.sources {source.name!r}, {key}){nearest}; columns: {shown}"
            )

"""CSV and TSV files with a header line. Records are found by the csv module itself, since a quoted field may hold newlines: about a
million rows a second. Both `scan` and `records` read them alike, so a broken record counts as one in both."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import BLANK, Record, Scan, check_columns, pieces

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

BROKEN = "a field longer than data.max_record_bytes; is a quote left open?"


class _TooLong(Exception):
    """A line above the limit: whatever record it is in cannot be used."""


class _Lines:
    """The lines of the next `length` bytes, newlines included. One above `limit` bytes is passed over, and said by _TooLong."""

    def __init__(
        self, handle: BinaryIO, length: int, limit: int, seen: Callable[[bytes], None] = lambda raw: None
    ) -> None:
        self.handle, self.left, self.limit, self.seen = handle, length, limit, seen
        self.at = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._read()
        if not raw:
            raise StopIteration
        if not raw.endswith(b"\n") and len(raw) >= self.limit:
            while raw and not raw.endswith(b"\n"):
                raw = self._read()
            raise _TooLong
        return raw.decode("utf-8", "surrogateescape")

    def _read(self) -> bytes:
        raw = self.handle.readline(min(self.limit, self.left - self.at))
        self.at += len(raw)
        self.seen(raw)
        return raw


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    content = hashlib.sha256()
    lines = _Lines(handle, sys.maxsize, config.max_record_bytes, content.update)
    rows = _rows(lines, path)
    header = tuple(name.removeprefix("\ufeff").strip() for name in next(rows, []) or [])
    check_columns(path, list(header), source)
    records, starts = 0, [lines.at]
    for _ in rows:
        records += 1
        if records % config.shard_rows == 0:
            starts.append(lines.at)
    return Scan(lines.at, records, content.hexdigest(), pieces(starts, lines.at, records, config.shard_rows), header)


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    with open_binary(unit.path) as handle:
        handle.seek(unit.offset)
        for fields in _rows(_Lines(handle, unit.length, config.max_record_bytes), unit.path):
            if fields is None:
                yield BROKEN
            elif len(fields) != len(unit.header):
                yield "not as many fields as the header" if fields else BLANK
            else:
                yield dict(zip(unit.header, fields, strict=True))


def _rows(lines: _Lines, path: str) -> Iterator[list[str] | None]:
    """Fields of each record; None for one that is too long. The csv module starts afresh at the line behind it."""
    csv.field_size_limit(lines.limit)
    reader = csv.reader(lines, delimiter="\t" if path.lower().endswith(".tsv") else ",")
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong):
            yield None

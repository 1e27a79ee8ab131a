"""File formats. Each module reads one: `scan` looks at a file once (fingerprint, records, units of work), `records` gives the
records of a unit. Called by `orchestration.data.scan` on the driver and by `sources` in workers. A format knows columns and
values; it knows nothing of labels, cleaning or row identity.

A record is a mapping of columns to values, or a text: why it is unreadable, the same text for all of its kind."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.errors import DataError

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

Record = dict[str, Any] | str

READ_BYTES = 8 << 20
BLANK = "blank line"  # not a fault: files end with them
TOO_LONG = "longer than data.max_record_bytes"

_MODULES = {
    "text": "lines",
    "jsonl": "lines",
    "csv": "delimited",
    "parquet": "table",
    "datasets": "table",
    "webdataset": "webdataset",
    "series": "series",
    "code": "tree",
    "images": "tree",
    "audio": "tree",
    "video": "tree",
}


@dataclass(frozen=True)
class Scan:
    """What one file holds. `pieces`: its units as (first record, count, byte offset, byte length); 0, 0 where the format
    seeks by record number. `header`: column names that `records` cannot see from the middle of the file."""

    bytes: int
    records: int
    sha256: str
    pieces: list[tuple[int, int, int, int]]
    header: tuple[str, ...] = ()


class Format(Protocol):
    """What a module offers. `records` gives exactly `unit.count` of them, in order."""

    def scan(self, path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan: ...

    def records(self, unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]: ...


def module(form: str) -> Format:
    return cast(Format, importlib.import_module(f"orchestration.data.formats.{_MODULES[form]}"))


def columns(source: SourceConfig) -> dict[str, str]:
    """Spec key -> column, of the columns that a source names."""
    named = {"text": source.text, "label.column": source.label.column if source.label else None, "group": source.group}
    named |= {**source.media, **source.targets}
    return {key: column for key, column in named.items() if column is not None}


def check_columns(path: str, names: list[str], source: SourceConfig, wanted: dict[str, str] | None = None) -> None:
    """Raises DataError for a column that the spec names and the file has not."""
    for key, column in (columns(source) if wanted is None else wanted).items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            shown = ", ".join(names[:20]) or "none"
            raise DataError(
                f"{path}: no column {column!r} (data.sources {source.name!r}, {key}){nearest}; columns: {shown}"
            )


def pieces(starts: list[int], end: int, records: int, shard_rows: int) -> list[tuple[int, int, int, int]]:
    """Units of a file read by bytes; `starts`: where each begins."""
    starts = starts[: -(-records // shard_rows)]
    bounds = [*starts[1:], end]
    return [
        (i * shard_rows, min(shard_rows, records - i * shard_rows), start, bounds[i] - start)
        for i, start in enumerate(starts)
    ]

"""CSV or Parquet files of numeric columns -> windows of a series. A record is a window: rows `index * stride` up to `index * stride +
window` of the file, in its order.

Its columns: `series`, float32 (window, columns) in the order of the spec; `start`, the first row's number from 0; `file`, the
relative path without its ending; and the value in the window's last row of each other column that the spec names (labels,
groups). A window with a value that is missing or no finite number is unreadable. Rows are found by `delimited` and `table`, whose
units of rows become units of windows here: a unit reads its own rows only, and holds a window and a block of them at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import BLANK, Record, Scan, check_columns, columns, delimited, table

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

BLOCK_ROWS = 1 << 13  # turned into numbers at once
OWN = ("series", "start", "file")  # columns that are made here


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    """Units of `data.shard_rows` windows. A file shorter than a window has none. Raises DataError for a missing column."""
    stride, window = config.series.stride, config.series.window
    rows = config.model_copy(update={"shard_rows": config.shard_rows * stride})
    bare = source.model_copy(
        update={"text": None, "label": None, "group": None, "image": None, "audio": None, "format": "auto"}
    )
    found = (table if _parquet(path) else delimited).scan(path, handle, source=bare, config=rows)
    names = list(found.header)
    if _parquet(path):
        handle.seek(0)
        names = table.shape(handle, "parquet")[1]
    check_columns(path, [*names, *OWN], source)
    check_columns(path, names, source, {f"series.{i}": name for i, name in enumerate(source.series or [])})
    windows = max(0, (found.records - window) // stride + 1)
    starts = [(first // stride, offset) for first, _, offset, _ in found.pieces if first // stride < windows]
    pieces = [
        (first, min(config.shard_rows, windows - first), offset, found.bytes - offset if offset else 0)
        for first, offset in starts
    ]
    return Scan(found.bytes, windows, found.sha256, pieces, found.header)


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    """`series` are views of shared memory, not to be written to: neighbouring windows may overlap."""
    window, stride = config.series.window, config.series.stride
    rows = replace(unit, first=unit.first * stride, count=(unit.count - 1) * stride + window)
    file = str(PurePosixPath(unit.rel).with_suffix(""))
    at, next_start = rows.first, rows.first  # the rows of the file that `held` and the next window begin with
    held: list[_Rows] = []
    for block in (_parquet_rows if _parquet(unit.path) else _csv_rows)(rows, source, config):
        held.append(block)
        end = at + sum(len(part.values_NC) for part in held)
        if end <= next_start:  # between windows that lie apart
            held, at = [], end
        if end < next_start + window:
            continue
        joined = _Rows.join(held)
        count = (end - next_start - window) // stride + 1
        for start in range(next_start, next_start + count * stride, stride):
            yield joined.window(start - at, window, {"start": start, "file": file})
        next_start += count * stride
        held, at = [joined.behind(next_start - at)], min(next_start, end)


# ------------------------------------------------------------------------------------------------ rows


@dataclass
class _Rows:
    """Neighbouring rows. `values_NC`: float32, NaN where there is no number; `faults`: (row, why it cannot be used), in order;
    `others`: column -> value a row."""

    values_NC: np.ndarray
    faults: list[tuple[int, str]]
    others: dict[str, list[Any]]

    @staticmethod
    def join(parts: list[_Rows]) -> _Rows:
        faults, at = [], 0
        for part in parts:
            faults += [(at + row, reason) for row, reason in part.faults]
            at += len(part.values_NC)
        others = {name: [value for part in parts for value in part.others[name]] for name in parts[0].others}
        values_NC = np.concatenate([part.values_NC for part in parts])
        values_NC.flags.writeable = False
        return _Rows(values_NC, faults, others)

    def window(self, first: int, count: int, own: dict[str, Any]) -> Record:
        last = first + count - 1
        fault = bisect_left(self.faults, (first, ""))
        if fault < len(self.faults) and self.faults[fault][0] <= last:
            return self.faults[fault][1]
        others = {name: values[last] for name, values in self.others.items()}
        return others | own | {"series": self.values_NC[first : last + 1]}

    def behind(self, first: int) -> _Rows:
        """From row `first` on."""
        faults = [(row - first, reason) for row, reason in self.faults if row >= first]
        return _Rows(self.values_NC[first:], faults, {name: values[first:] for name, values in self.others.items()})


def _rows(numbers: dict[str, np.ndarray], others: dict[str, list[Any]], faults: dict[int, str]) -> _Rows:
    """Columns put beside each other; the first of them without a finite number is a row's fault unless it has one already."""
    with np.errstate(over="ignore"):
        values_NC = np.stack(list(numbers.values()), axis=1).astype(np.float32)
    names = list(numbers)
    bad_NC = ~np.isfinite(values_NC)
    for row in np.flatnonzero(bad_NC.any(axis=1)).tolist():
        faults.setdefault(row, f"column {names[int(bad_NC[row].argmax())]!r} is not a number")
    return _Rows(values_NC, sorted(faults.items()), others)


def _numbers(values: list[Any]) -> np.ndarray:
    """float64, NaN for what is no number."""
    try:
        return np.array([float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _others(source: SourceConfig) -> list[str]:
    return [name for name in dict.fromkeys(columns(source).values()) if name not in OWN]


def _parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _csv_rows(rows: Unit, source: SourceConfig, config: DataConfig) -> Iterator[_Rows]:
    found = islice(delimited.records(rows, source=source, config=config), rows.count)
    while block := list(islice(found, BLOCK_ROWS)):
        faults = {
            row: "a blank row" if record == BLANK else record
            for row, record in enumerate(block)
            if isinstance(record, str)
        }
        whole = [{} if isinstance(record, str) else record for record in block]
        numbers = {name: _numbers([record.get(name) for record in whole]) for name in source.series or []}
        yield _rows(numbers, {name: [record.get(name) for record in whole] for name in _others(source)}, faults)


def _parquet_rows(rows: Unit, source: SourceConfig, config: DataConfig) -> Iterator[_Rows]:
    wanted = list(dict.fromkeys([*(source.series or []), *_others(source)]))
    with open_binary(rows.path) as handle:
        for batch in table.batches(handle, replace(rows, format="parquet"), wanted):
            numbers = {}
            for name in source.series or []:
                values = batch.column(name).to_numpy(zero_copy_only=False)
                numbers[name] = values if values.dtype.kind in "iuf" else _numbers(batch.column(name).to_pylist())
            yield _rows(numbers, {name: batch.column(name).to_pylist() for name in _others(source)}, {})

"""Parquet files and the Arrow streams that `datasets` saves: they know their rows, so units are ranges of row numbers. Class
numbers of `datasets` become their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import READ_BYTES, TOO_LONG, Record, Scan, check_columns, columns
from orchestration.errors import DataError

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

READ_ROWS = 1024  # rows turned into Python values at once: of 150 kB images these are 150 MB
MEDIA_ROWS = 256  # the same, a unit of rows with images or audio


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    """Raises DataError where the file is not what its name says."""
    import pyarrow as pa

    form = "parquet" if source.format == "parquet" or path.lower().endswith(".parquet") else "datasets"
    content = hashlib.sha256()
    while block := handle.read(READ_BYTES):
        content.update(block)
    size = handle.tell()
    handle.seek(0)
    try:
        records, names = shape(handle, form)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable {form} file: {error}") from None
    check_columns(path, names, source)
    step = min(config.shard_rows, MEDIA_ROWS) if source.media else config.shard_rows
    units = [(first, min(step, records - first), 0, 0) for first in range(0, records, step)]
    return Scan(size, records, content.hexdigest(), units)


def shape(handle: BinaryIO, form: str) -> tuple[int, list[str]]:
    """Rows and column names of a Parquet file or of an Arrow stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "parquet":
        meta = pq.ParquetFile(handle)
        return meta.metadata.num_rows, meta.schema_arrow.names
    with pa.ipc.open_stream(handle) as reader:
        return sum(len(batch) for batch in reader), reader.schema.names


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    """Raises DataError naming the rows where a part of the file cannot be decoded."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(columns(source).values()))
    numeric = _numeric(source)
    done = 0
    with open_binary(unit.path) as handle:
        try:
            for batch in batches(handle, unit, wanted):
                names = {} if numeric is None else class_names(batch.schema)
                values = [
                    _values(batch.column(name), None if name in (numeric or ()) else names.get(name)) for name in wanted
                ]
                done += len(batch)
                limit = config.max_record_bytes
                long = batch.nbytes > limit  # else no value can be; a look at each would be a tenth of the reading
                for row in zip(*values, strict=True):
                    record = dict(zip(wanted, row, strict=True))
                    yield TOO_LONG if long and any(_bytes(value) > limit for value in row) else record
        except (pa.ArrowInvalid, OSError) as error:
            first, last = unit.first + done + 1, unit.first + unit.count
            raise DataError(
                f"{unit.name} rows {first} to {last}: cannot be decoded ({error}); write the file again"
            ) from None


def _numeric(source: SourceConfig) -> set[str | None] | None:
    """Columns that are read as numbers though `datasets` may name their values; None where the spec names no classes."""
    labels = [label for label in (source.label, *(source.labels or {}).values()) if label is not None]
    if source.tags is None and all(label.rules for label in labels):
        return None
    return {source.value, *(label.column for label in labels if label.rules)}


def _bytes(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_bytes, value))
    if isinstance(value, dict):
        value = value.get("bytes")
    return len(value) if isinstance(value, (str, bytes)) else 0


def _values(column: Any, names: list[str] | None) -> list[Any]:
    try:
        found = column.to_pylist()
    except UnicodeDecodeError:  # of one row: Arrow does not look into its text columns
        found = [_text(value) for value in column]
    return found if names is None else [_named(value, names) for value in found]


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if value is not None and 0 <= value < len(names) else value


def _text(value: Any) -> Any:
    """The bytes that are not UTF-8 become lone surrogates, which `sources` names and counts."""
    if value.is_valid and hasattr(value, "values"):
        return [_text(one) for one in value.values]
    buffer = value.as_buffer() if value.is_valid else None
    return None if buffer is None else buffer.to_pybytes().decode("utf-8", "surrogateescape")


def batches(handle: BinaryIO, unit: Unit, wanted: list[str]) -> Iterator[Any]:
    """Record batches that together are exactly the unit's rows; the reading stops behind the last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start, end, at = unit.first, unit.first + unit.count, 0
    if unit.format == "parquet":
        file = pq.ParquetFile(handle)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        bounds = [sum(counts[:i]) for i in range(len(counts))]
        groups = [i for i, bound in enumerate(bounds) if bound < end and bound + counts[i] > start]
        at = bounds[groups[0]]
        batches: Iterator[Any] = file.iter_batches(READ_ROWS, row_groups=groups, columns=wanted)
    else:
        batches = (batch.select(wanted) for batch in pa.ipc.open_stream(handle))
    for batch in batches:
        low, high = max(start - at, 0), min(end - at, len(batch))
        if low < high:
            yield batch.slice(low, high - low)
        at += len(batch)
        if at >= end:
            return


def class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> class names, where `datasets` left them in the schema: of a class a row, or a list of them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    inner = {name: spec.get("feature", spec) for name, spec in features.items() if isinstance(spec, dict)}
    return {
        name: spec["names"]
        for name, spec in inner.items()
        if isinstance(spec, dict) and spec.get("_type") == "ClassLabel"
    }

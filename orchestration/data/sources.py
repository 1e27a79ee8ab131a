"""Input records -> rows. Takes a unit of work and the spec's source, labels and cleaning; gives clean rows with their
identity and counts what left and why. Called by both passes of `prepare` in Ray workers: the same unit gives the same rows.
A record that cannot be used never stops the reading: it is counted, shown by file and row, and judged by the driver."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from orchestration.data.clean import clean_text, match_text, refusal
from orchestration.data.config import CleanConfig, LabelConfig, SourceConfig, parse_rule
from orchestration.data.files import open_binary
from orchestration.data.scan import MAX_FIELD_CHARS, Unit, delimiter

EXAMPLES = 3
NO_RULE = -1
BLANK = "blank line"  # not a fault: files end with them
MISSING = object()  # a column that a record does not have

Record = tuple[Any, Any, Any] | str  # text, label, group; or why the record is unreadable


@dataclass
class Left:
    """Rows that left for one reason. `bad`: unreadable ones, which count against data.max_bad_rows."""

    bad: bool = False
    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, shown: str) -> None:
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(shown)


@dataclass
class Rows:
    """The clean rows of one unit, in record order."""

    records: list[int] = field(default_factory=list)
    row_ids: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    text_hashes: list[bytes] = field(default_factory=list)
    group_hashes: list[bytes] = field(default_factory=list)
    left: dict[str, Left] = field(default_factory=dict)

    def drop(self, reason: str, shown: str, *, bad: bool = False) -> None:
        self.left.setdefault(reason, Left(bad)).add(shown)


def read_rows(unit: Unit, source: SourceConfig, labels: list[str], clean: CleanConfig) -> Rows:
    """Read, label and clean the records of a unit.

    row_id (contract 2) is the 128-bit blake2b of source name, relative path and record index.
    """
    rows = Rows()
    identity = hashlib.blake2b(f"{source.name}\0{unit.rel}\0".encode(), digest_size=16)
    to_label = labeller(source.label, labels)
    for record, found in enumerate(_records(unit, source), start=unit.first):
        if isinstance(found, str):
            rows.drop(found, unit.shown(record), bad=found != BLANK)
            continue
        text, label, group = found
        try:
            text = _text(text, source.text)
            number = to_label(label)
            group_hash = _group_hash(group, source.group)
        except Unusable as error:
            rows.drop(error.reason, f"{unit.shown(record)}: {error.value}", bad=True)
            continue
        if number == NO_RULE:
            rows.drop("no label rule matches", f"{unit.shown(record)}: {label}")
            continue
        text = clean_text(text, clean)
        if reason := refusal(text, clean):
            rows.drop(reason, f"{unit.shown(record)}: {text[:60]!r}")
            continue
        row_id = identity.copy()
        row_id.update(b"%d" % record)
        text_hash = hashlib.blake2b(match_text(text).encode(), digest_size=16).digest()
        rows.records.append(record)
        rows.row_ids.append(row_id.digest())
        rows.texts.append(text)
        rows.labels.append(number)
        rows.text_hashes.append(text_hash)
        rows.group_hashes.append(group_hash or text_hash)
    return rows


class Unusable(Exception):
    """A value that no row can be made of. `reason` is the same for all rows of its kind; `value` goes into the example."""

    def __init__(self, column: str, reason: str, value: Any) -> None:
        missing = "is missing" if value is MISSING else "is empty" if value is None else reason
        super().__init__(f"column {column!r} {missing}")
        self.reason = str(self)
        self.value = "no value" if value is MISSING or value is None else ascii(value)[:60]


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise Unusable(column, "is not text", value)
    if not value.isascii():
        try:
            value.encode("utf-8")  # JSON escapes and bytes that are not UTF-8 leave lone surrogates
        except UnicodeEncodeError:
            raise Unusable(column, "is not valid UTF-8", value) from None
    return value


def _group_hash(group: Any, column: str | None) -> bytes | None:
    if column is None:
        return None
    if group is MISSING or group is None:
        raise Unusable(column, "", group)
    return hashlib.blake2b(f"group\0{group}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


# ------------------------------------------------------------------------------------------------ labels


def labeller(config: LabelConfig | None, labels: list[str]) -> Callable[[Any], int]:
    """A function from a record's value to a class index, NO_RULE, or raises Unusable."""
    if config is None:
        return lambda value: NO_RULE
    column = config.column
    if config.rules is None:
        index = {label: i for i, label in enumerate(labels)}

        def by_name(value: Any) -> int:
            found = index.get(value if isinstance(value, str) else _plain(value), NO_RULE)
            if found == NO_RULE:
                raise Unusable(column, f"is none of the labels {', '.join(labels)}", value)
            return found

        return by_name
    rules = [(_COMPARE[sign], bound, labels.index(label)) for label, (sign, bound) in _parsed(config.rules).items()]

    def by_rule(value: Any) -> int:
        number = _number(value)
        if number is None:
            raise Unusable(column, "is not a number", value)
        return next((label for compare, bound, label in rules if compare(number, bound)), NO_RULE)

    return by_rule


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "==": lambda value, bound: value == bound,
    ">=": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
}


def _parsed(rules: dict[str, str]) -> dict[str, tuple[str, float]]:
    return {label: parse_rule(text, label) for label, text in rules.items()}


def _plain(value: Any) -> str:
    """A number or truth value as a spec would write it: 1, true."""
    if value is MISSING or value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any) -> float | None:
    """A finite number, also from a CSV field; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# ------------------------------------------------------------------------------------------------ formats


def _records(unit: Unit, source: SourceConfig) -> Iterator[Record]:
    columns = (source.text, source.label.column if source.label else None, source.group)
    if unit.format in ("parquet", "datasets"):
        return _table_records(unit, columns, names=source.label is not None and source.label.rules is None)
    with open_binary(unit.path) as handle:
        handle.seek(unit.offset)
        data = handle.read(unit.length)
    if unit.format == "csv":
        return _csv_records(data, unit, columns)
    return _line_records(
        data, columns, None if unit.format == "jsonl" else str(PurePosixPath(unit.rel).with_suffix(""))
    )


def _line_records(data: bytes, columns: tuple[str | None, ...], file: str | None) -> Iterator[Record]:
    """One record a line: JSON, or text where `file` (the value of that column) is given. Lines end at newline bytes alone:
    other line separators of Unicode belong to the text."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"" and data:
        lines.pop()
    for line in lines:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            yield "not valid UTF-8"
            continue
        if file is None:
            yield _json_record(text, columns)
            continue
        values = {"text": text, "file": file}
        yield values[columns[0] or "text"], values.get(columns[1] or "", MISSING), values.get(columns[2] or "", MISSING)


def _json_record(line: str, columns: tuple[str | None, ...]) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "not valid JSON" if line.strip() else BLANK
    if not isinstance(value, dict):
        return "a JSON value, but not an object"
    text, label, group = (value.get(column, MISSING) for column in columns)
    return text, label, group


def _csv_records(data: bytes, unit: Unit, columns: tuple[str | None, ...]) -> Iterator[Record]:
    csv.field_size_limit(MAX_FIELD_CHARS)
    at = [unit.header.index(column) if column else None for column in columns]
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    reader = csv.reader((line + "\n" for line in (lines if lines[-1] else lines[:-1])), delimiter=delimiter(unit.path))
    for fields in reader:
        if len(fields) != len(unit.header):
            yield "not as many fields as the header" if fields else BLANK
            continue
        text, label, group = (MISSING if i is None else fields[i] for i in at)
        yield text, label, group


def _table_records(unit: Unit, columns: tuple[str | None, ...], *, names: bool) -> Iterator[Record]:
    """A range of rows of a Parquet file or Arrow stream. `names`: class numbers of `datasets` become their names."""
    import pyarrow as pa

    wanted = [column for column in columns if column]
    with open_binary(unit.path) as handle:
        table = pa.Table.from_batches(list(_batches(handle, unit, wanted)))
    class_names = _class_names(table.schema) if names else {}
    values: list[Any] = []
    for column in columns:
        if column is None:
            values.append([MISSING] * len(table))
            continue
        found = table.column(column).to_pylist()
        known = class_names.get(column)
        values.append([known[i] if known and i is not None and 0 <= i < len(known) else i for i in found])
    yield from zip(*values, strict=True)


def _batches(handle: Any, unit: Unit, columns: list[str]) -> Iterator[Any]:
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
        batches: Iterator[Any] = file.iter_batches(row_groups=groups, columns=list(dict.fromkeys(columns)))
    else:
        batches = (batch.select(list(dict.fromkeys(columns))) for batch in pa.ipc.open_stream(handle))
    for batch in batches:
        low, high = max(start - at, 0), min(end - at, len(batch))
        if low < high:
            yield batch.slice(low, high - low)
        at += len(batch)
        if at >= end:
            return


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> class names, where `datasets` left them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {
        name: spec["names"]
        for name, spec in features.items()
        if isinstance(spec, dict) and spec.get("_type") == "ClassLabel"
    }

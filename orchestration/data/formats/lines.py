"""Text and JSONL files: one record a line. Lines end at newline bytes alone: other line separators of Unicode belong to the
text. A line above the limit is never held whole, so a file without newlines costs no memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import BLANK, READ_BYTES, TOO_LONG, Record, Scan, check_columns, pieces

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

_value = json.JSONDecoder().raw_decode
COLUMNS = ["text", "file"]  # of a text file: the line, and the file's relative path without its ending


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    """Byte offsets of each `shard_rows`-th line: newlines are found a block at a time."""
    if source.format == "text" or path.lower().endswith(".txt"):
        check_columns(path, COLUMNS, source)
    content, at, records = hashlib.sha256(), 0, 0
    starts, shard_rows = [0], config.shard_rows
    last = b"\n"
    while block := handle.read(READ_BYTES):
        content.update(block)
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
        first = shard_rows - 1 - records % shard_rows  # the newline that ends the unit under way
        starts += (ends[first::shard_rows] + at + 1).tolist()
        records, at, last = records + len(ends), at + len(block), block[-1:]
    records += last != b"\n"
    return Scan(at, records, content.hexdigest(), pieces(starts, at, records, shard_rows))


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    file = None if unit.format == "jsonl" else str(PurePosixPath(unit.rel).with_suffix(""))
    with open_binary(unit.path) as handle:
        handle.seek(unit.offset)
        for line in lines(handle, unit.length, config.max_record_bytes):
            if line is None:
                yield TOO_LONG
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                yield "not valid UTF-8"
                continue
            yield _json(text) if file is None else {"text": text, "file": file}


def _json(line: str) -> Record:
    try:
        value, end = _value(line)  # half the time of json.loads, which looks for white space on both sides
    except (ValueError, RecursionError):
        end = -1
    if end != len(line):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return "not valid JSON" if line.strip() else BLANK
    return value if isinstance(value, dict) else "a JSON value, but not an object"


def lines(handle: BinaryIO, length: int, limit: int) -> Iterator[bytes | None]:
    """The lines of the next `length` bytes, without their newlines and the byte order mark; None for one above `limit` bytes."""
    rest, skipping = b"", False  # of a line whose end has not come yet
    at = 0
    while at < length:
        block = handle.read(min(READ_BYTES, length - at))
        if not block:
            break  # the file became shorter since it was scanned: the passes compare what they saw
        text = block if at else block.removeprefix(b"\xef\xbb\xbf")
        at += len(block)
        first, *more = text.split(b"\n")
        rest, skipping = _grown(rest, first, skipping, limit)
        if not more:
            continue
        yield None if skipping else rest
        for line in more[:-1]:
            yield None if len(line) > limit else line
        rest, skipping = _grown(b"", more[-1], False, limit)
    if rest or skipping:
        yield None if skipping else rest


def _grown(rest: bytes, more: bytes, skipping: bool, limit: int) -> tuple[bytes, bool]:
    """A line's beginning with what came next; nothing of it is kept once it is too long."""
    if skipping or len(rest) + len(more) > limit:
        return b"", True
    return rest + more, False

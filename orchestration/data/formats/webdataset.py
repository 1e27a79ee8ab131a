"""WebDataset shards: POSIX tar files of samples. A sample is a run of members with one key, the name up to the first dot of its base
name; the rest of the name, in lower case, is a column (`jpg`, `seg.png`, `txt`, `json`, `cls`).

Text members are decoded, the keys of a `json` object become columns too, other members that the spec names are bytes. Besides
there are `__key__`, `image` and `audio` (the first member with such an ending) and `text` (of `txt`, or of the JSON's `text` or
`caption`). Members that are no files, have no ending or a hidden name belong to no sample. Both `scan` and `records` read
headers by `_members`: one goes through the bytes to hash them, the other seeks over what nobody asked for."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import READ_BYTES, TOO_LONG, Record, Scan, columns, pieces
from orchestration.data.formats.table import MEDIA_ROWS
from orchestration.data.formats.tree import ENDINGS
from orchestration.errors import DataError

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

BLOCK = tarfile.BLOCKSIZE
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
NAME_BYTES = 1 << 20  # of a long name or a pax header: more is no name
TEXTS = ("txt", "json", "cls")  # last parts of names whose members are always read
CAPTIONS = ("text", "caption")  # keys of the JSON that are the sample's text where it has no txt member


@dataclass(frozen=True)
class _Member:
    key: str
    column: str
    start: int  # of its first header
    size: int  # bytes of data, right behind its last header


class _Damaged(Exception):
    """What is wrong, and where."""


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    """Raises DataError where the file is no tar file, ends inside a member or has a damaged header: unknown many samples
    would be missing."""
    reader = _Hashing(handle)
    step = min(config.shard_rows, MEDIA_ROWS) if source.media else config.shard_rows
    starts: list[int] = []
    samples, key = 0, None
    try:
        for member in _members(reader):
            if member.key != key:
                if samples % step == 0:
                    starts.append(member.start)
                samples, key = samples + 1, member.key
        if reader.at == 0:
            raise _Damaged("an empty file, no tar file")
    except _Damaged as error:
        raise DataError(f"{path}: {error}, behind {samples} samples; write or copy the file again") from None
    return Scan(reader.at, samples, reader.content.hexdigest(), pieces(starts, reader.at, samples, step))


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    """Raises DataError where the file is no longer the one that was scanned."""
    wanted = set(columns(source).values())
    with open_binary(unit.path) as handle:
        reader = _Reader(handle, unit.offset, unit.offset + unit.length)
        try:
            for key, members in groupby(_members(reader), key=lambda member: member.key):
                yield _sample(key, members, reader, wanted, config.max_record_bytes)
        except _Damaged as error:
            raise DataError(f"{unit.name}: {error}; it has changed while it was read") from None


# ------------------------------------------------------------------------------------------------ a sample


def _sample(key: str, members: Iterator[_Member], reader: _Reader, wanted: set[str], limit: int) -> Record:
    """One record of the members under one key. All of them are gone over, whatever is wrong with the first."""
    record: dict[str, Any] = {"__key__": key}
    reason, left, seen = "", limit, set()
    for member in members:
        if member.column in seen:
            reason = reason or "two members of one name in a sample"
        seen.add(member.column)
        names = _names(member.column, record, wanted)
        if reason or not names:
            continue
        if member.size > left:
            reason = TOO_LONG
            continue
        left -= member.size
        try:
            record |= dict.fromkeys(names, _value(member.column, reader.exactly(member.size)))
        except UnicodeDecodeError:
            reason = "not valid UTF-8"
        except (ValueError, RecursionError):
            reason = "not valid JSON"
    return reason or _spread(record)


def _names(column: str, record: dict[str, Any], wanted: set[str]) -> set[str]:
    """The columns a member fills: its own, and image or audio where it is the first of that kind. Text always counts as
    wanted, since it is small and JSON holds nobody knows which columns."""
    ending = column.rpartition(".")[2]
    if ending in TEXTS:
        return {column}
    kinds = {"image": ENDINGS["images"], "audio": ENDINGS["audio"]}
    return wanted & ({column} | {kind for kind, known in kinds.items() if f".{ending}" in known and kind not in record})


def _value(column: str, data: bytes) -> Any:
    ending = column.rpartition(".")[2]
    if ending not in TEXTS:
        return data
    text = data.decode("utf-8-sig").strip()
    return json.loads(text) if ending == "json" else text


def _spread(record: dict[str, Any]) -> dict[str, Any]:
    """With the keys of JSON members as columns where no member has that name, and a text where there is one."""
    inside: dict[str, Any] = {}
    for column, value in record.items():
        if column.rpartition(".")[2] == "json" and isinstance(value, dict):
            inside = value | inside  # the first member's keys count
    spread = inside | record
    caption = record.get("txt", next((inside[name] for name in CAPTIONS if name in inside), None))
    return spread if caption is None else spread | {"text": caption}


# ------------------------------------------------------------------------------------------------ the tar file


class _Reader:
    """A file read forwards from `at` to `end`."""

    def __init__(self, handle: BinaryIO, at: int, end: int) -> None:
        self.handle, self.at, self.end = handle, at, end
        handle.seek(at)

    def read(self, count: int) -> bytes:
        """Fewer bytes than asked for at the end only."""
        data = self.handle.read(max(0, min(count, self.end - self.at)))
        self.at += len(data)
        return data

    def exactly(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) < count:
            raise _Damaged(f"ends at byte {self.at}, {count - len(data)} bytes too early")
        return data

    def skip(self, count: int) -> None:
        self.at = self.handle.seek(self.at + count)


class _Hashing(_Reader):
    """A whole file, each byte hashed on the way."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(handle, 0, handle.seek(0, os.SEEK_END))
        self.content = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = super().read(count)
        self.content.update(data)
        return data

    def skip(self, count: int) -> None:
        while count > 0:
            count -= len(self.exactly(min(count, READ_BYTES)))


def _members(reader: _Reader) -> Iterator[_Member]:
    """The members that belong to samples. The consumer may read a member's data before it asks for the next. Raises _Damaged."""
    start, name, size = (
        reader.at,
        "",
        None,
    )  # of long names and pax headers, which come before the header they belong to
    while block := reader.read(BLOCK):
        if not block.strip(b"\0"):  # the end of an archive, which another may follow
            start = reader.at
            continue
        info = _header(block, reader.at - len(block))
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *PAX):
            data = _name_data(reader, info)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                found = _pax(data)
                name, size = found.get("path", name), int(found["size"]) if "size" in found else size
            continue
        holds = (
            info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        )  # links and folders name a size without having data
        length = (info.size if size is None else size) if holds else 0
        after = reader.at + length + -length % BLOCK
        key, column = _split(name or info.name)
        if key and column and info.isreg():
            yield _Member(key, column, start, length)
        reader.skip(min(after, max(reader.end, reader.at + length)) - reader.at)  # the last padding may be missing
        start, name, size = reader.at, "", None


def _header(block: bytes, at: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        what = "not a tar file (a compressed one must be unpacked)" if at == 0 else f"damaged at byte {at}"
        raise _Damaged(f"{what}: {error}") from None
    if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
        raise _Damaged(f"header at byte {at}: a sparse file or a size below 0")
    return info


def _name_data(reader: _Reader, info: tarfile.TarInfo) -> bytes:
    if info.size > NAME_BYTES:
        raise _Damaged(f"header at byte {reader.at - BLOCK}: a name of {info.size} bytes")
    data = reader.exactly(info.size)
    reader.skip(-info.size % BLOCK)
    return data


def _pax(data: bytes) -> dict[str, str]:
    """`path` and `size` of a pax header: lines of their length, a blank, key=value."""
    found = {}
    while data:
        digits, _, rest = data.partition(b" ")
        if not digits.isdigit() or len(digits) > 7 or not 3 < int(digits) <= len(data):
            raise _Damaged("damaged pax header")
        key, _, value = rest[: int(digits) - len(digits) - 2].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(digits) :]
    if (
        "GNU.sparse.major" in found
        or not 0 < len(found.get("size", "0")) < 20
        or not found.get("size", "0").isdecimal()
    ):
        raise _Damaged("pax header of a sparse file or without a size")
    return found


def _split(name: str) -> tuple[str, str]:
    """Key and column: `a/b.seg.png` -> `a/b`, `seg.png`."""
    folder, base = posixpath.split(name)
    stem, _, rest = base.partition(".")
    return posixpath.join(folder, stem) if stem else "", rest.lower()

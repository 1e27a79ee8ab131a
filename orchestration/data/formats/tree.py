"""Folder trees of one record a file: images, audio, video and code.

A record's columns: `image` or `audio` (the file's bytes; of a video `image`) or `text` (of code), `file` (relative path without its
ending) and `folder` (name of the folder that holds it: a class a folder). The caption of a picture, sound or video is in a text file
of the same stem beside it, or in a table of its folder or one above, `metadata.jsonl` or `metadata.csv`, whose column
`file_name` says which file a row is about and whose other columns become the record's (the convention of `datasets`); else
`text` is empty. Code has `language` and `licence` instead, the latter from the file's own head or the nearest licence file at
or above it.

`files` is called by the driver's scan, with all files of the tree; `records` by workers, with `unit.files`: (path, rel, companions)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.files import open_binary
from orchestration.data.formats import READ_BYTES, TOO_LONG, Record, Scan
from orchestration.errors import DataError

if TYPE_CHECKING:
    from orchestration.data.scan import Unit

ENDINGS = {
    "images": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".tif"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
    "video": (".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif"),
}
COLUMN = {"images": "image", "audio": "audio", "video": "image"}
TABLES = ("metadata.jsonl", "metadata.csv")
KEY = "file_name"  # column of a table that names the file
LICENCES = re.compile(r"(licen[cs]e|copying)(\.(txt|md|rst))?", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One file of the tree. `companions`: paths of the other files its record is made of, which its fingerprint must cover."""

    path: str
    rel: str
    companions: tuple[str, ...]


def endings(form: str) -> tuple[str, ...]:
    """Endings of the files that are records of a format, with their dots, in lower case."""
    if form == "code":
        from orchestration.data import code

        return tuple(code.ENDINGS)
    return ENDINGS[form]


def belongs(rel: str, form: str) -> bool:
    """Whether a file of the tree is a record of a format; code also goes by whole names (Makefile, Dockerfile)."""
    name = posixpath.basename(rel).lower()
    if form == "code":
        from orchestration.data import code

        return name in code.NAMES or PurePosixPath(name).suffix in code.ENDINGS
    return PurePosixPath(name).suffix in ENDINGS[form]


# ------------------------------------------------------------------------------------------------ on the driver


def files(paths: list[tuple[str, str]], form: str) -> list[Item]:
    """Items of files given as (path or URL, relative path). Each folder is listed once; nothing is read."""
    names: dict[str, list[str]] = {}
    return [Item(path, rel, tuple(_companions(path, rel, form, names))) for path, rel in paths]


def _companions(path: str, rel: str, form: str, names: dict[str, list[str]]) -> Iterator[str]:
    """Sidecar, then tables or the licence file, from the file's folder upwards to where relative paths start."""
    root, above = path[: -len(rel)], [*PurePosixPath(rel).parent.parts]
    wanted: tuple[str, ...] = (f"{PurePosixPath(rel).stem}.txt", *TABLES)
    for depth in range(len(above), -1, -1):
        folder = root + "/".join(above[:depth])
        found = names[folder] if folder in names else names.setdefault(folder, _list(folder))
        if form != "code":
            yield from (posixpath.join(folder, name) for name in wanted if name in found)
            wanted = TABLES
        elif licences := [name for name in found if LICENCES.fullmatch(name)]:
            yield posixpath.join(folder, licences[0])
            return


def _list(folder: str) -> list[str]:
    """Names of what may be a companion in a folder or under a URL, sorted."""
    if "://" not in folder:
        names = os.listdir(folder or ".")
    else:
        import fsspec

        fs, key = fsspec.core.url_to_fs(folder)
        names = [posixpath.basename(name.rstrip("/")) for name in fs.ls(key, detail=False)]
    return sorted(name for name in names if name.endswith(".txt") or name in TABLES or LICENCES.fullmatch(name))


def scan(path: str, handle: BinaryIO, *, source: SourceConfig, config: DataConfig) -> Scan:
    """One record, whatever is in it. Its unit is made of `files`, since units here are groups of files."""
    content, size = hashlib.sha256(), 0
    while block := handle.read(READ_BYTES):
        content.update(block)
        size += len(block)
    return Scan(size, 1, content.hexdigest(), [])


# ------------------------------------------------------------------------------------------------ in workers


def records(unit: Unit, *, source: SourceConfig, config: DataConfig) -> Iterator[Record]:
    """Raises DataError where a table of captions cannot be read: every record of its folder would be in doubt."""
    beside = _Beside(config.max_record_bytes)
    companions: list[str]
    for path, rel, *companions in unit.files:
        data = _read(path, config.max_record_bytes)
        try:
            if data is None:
                yield TOO_LONG
            elif unit.format == "code":
                yield _code(data, rel, beside.licence(companions))
            else:
                yield beside.caption(path, companions) | _own(rel) | {COLUMN[unit.format]: data}
        except UnicodeDecodeError:
            yield "not valid UTF-8"
        except _TooLong:
            yield TOO_LONG


class _TooLong(Exception):
    """A companion above the limit."""


def _read(path: str, limit: int) -> bytes | None:
    """All bytes of a file; None, and nothing read, above the limit."""
    with open_binary(path) as handle:
        if handle.seek(0, os.SEEK_END) > limit:
            return None
        handle.seek(0)
        return handle.read()


def _own(rel: str) -> dict[str, Any]:
    name = PurePosixPath(rel)
    return {"file": str(name.with_suffix("")), "folder": name.parent.name}


def _code(data: bytes, rel: str, beside: str | None) -> Record:
    """What the file itself says of its licence counts before `beside`, the licence file's."""
    from orchestration.data import code

    text = data.decode("utf-8-sig")
    licence = code.licence_of(text[: code.HEADER]) or beside
    return {"text": text, "language": code.language_of(rel, text[: code.HEADER]), "licence": licence} | _own(rel)


class _Beside:
    """What companions say about the records of one unit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._stamps: dict[str, tuple[float, int]] = {}

    def caption(self, path: str, companions: list[str]) -> dict[str, Any]:
        """Columns of a picture, sound or video: of the nearest table that has a row for it, and the sidecar's text."""
        tables = [name for name in companions if posixpath.basename(name) in TABLES]
        sidecars = [name for name in companions if name not in tables]
        rows = (
            _table(name, *self._stamp(name)).get(path[len(posixpath.dirname(name)) :].lstrip("/")) for name in tables
        )
        record = {"text": ""} | next((row for row in rows if row is not None), {})
        return record | ({"text": self._text(sidecars[0]).strip()} if sidecars else {})

    def licence(self, companions: list[str]) -> str | None:
        return _licence(companions[0], self.limit, *self._stamp(companions[0])) if companions else None

    def _text(self, path: str) -> str:
        data = _read(path, self.limit)
        if data is None:
            raise _TooLong
        return data.decode("utf-8-sig")

    def _stamp(self, path: str) -> tuple[float, int]:
        """Differs when the file did, so that what a worker remembers of it is never an older one's."""
        if path not in self._stamps:
            if "://" in path:
                with open_binary(path) as handle:
                    self._stamps[path] = 0.0, handle.seek(0, os.SEEK_END)
            else:
                state = os.stat(path)
                self._stamps[path] = state.st_mtime, state.st_size
        return self._stamps[path]


@lru_cache(1024)
def _licence(path: str, limit: int, changed: float, size: int) -> str | None:
    from orchestration.data import code

    data = _read(path, limit)
    return None if data is None else code.licence_of(data.decode("utf-8", "replace"))


@lru_cache(4)  # units go through a tree in order: a folder's table serves many records
def _table(path: str, changed: float, size: int) -> dict[str, dict[str, Any]]:
    """Relative file name -> the row's other columns."""
    with open_binary(path) as handle:
        try:
            lines = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
            rows = list(_jsonl(lines, path) if path.endswith(".jsonl") else csv.DictReader(lines, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: not a readable table of captions: {error}; mend it or remove it") from None
    found = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(KEY), str) or None in row:
            raise DataError(
                f"{path} row {number}: no column {KEY!r}, or more fields than the header; each row names a file"
            )
        found[posixpath.normpath(row[KEY])] = {name: value for name, value in row.items() if name != KEY}
    return found


def _jsonl(lines: io.TextIOWrapper, path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path} row {number}: not a JSON object; mend or remove the line")
        yield row

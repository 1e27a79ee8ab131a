"""What lies in the input files, before any row is looked at. Takes the `data` part of the spec; gives each file's fingerprint
and the units of work. A unit is (file, first record, count), or a group of files where a file is a record: a pure function
of the files' bytes and `data.shard_rows`, so neither workers nor Ray's blocks can change what a shard holds. Called by
`prepare` on the driver; `sources` reads units. Formats know how: `orchestration.data.formats`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from orchestration.data import formats
from orchestration.data.config import TREES, DataConfig, SourceConfig
from orchestration.data.files import find_files, open_binary
from orchestration.data.formats.table import MEDIA_ROWS
from orchestration.errors import UserError
from orchestration.storage import Storage


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
    what the user knows the file by. `files`: (path, rel, paths of its companions ...) of each record, where a record is a file."""

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
    files: tuple[tuple[str, ...], ...] = ()

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Unit:
        value = json.loads(text)
        value["files"] = tuple(map(tuple, value["files"]))
        return cls(**{**value, "header": tuple(value["header"])})

    def shown(self, index: int) -> str:
        """The unit's record `index`: `file row N`, counted from 1 as an editor does (a CSV file's header is not counted)."""
        return self.files[index][0] if self.files else f"{self.name} row {self.first + index + 1}"


def scan(config: DataConfig, storage: Storage) -> tuple[list[InputFile], list[Unit]]:
    """All files and units, in the order of sources and relative paths.

    Raises UserError where a source has no files, DataError naming the file where one cannot be read or lacks a column.
    """
    files: list[InputFile] = []
    units: list[Unit] = []
    for number, source in enumerate(config.sources):
        found = find_files(source, storage)
        whole = _trees if source.format in TREES else _files
        for file, unit in whole(number, source, found, config):
            files += [file] if file else []
            units += [unit] if unit else []
    if not any(file.records for file in files):
        raise UserError(f"data.sources: {', '.join(source.path for source in config.sources)} hold no records")
    return files, [Unit(**{**unit.__dict__, "number": i}) for i, unit in enumerate(units)]


Found = Iterator[tuple[InputFile | None, Unit | None]]


def _files(number: int, source: SourceConfig, found: list[tuple[str, str, str]], config: DataConfig) -> Found:
    """Files of many records each."""
    for path, rel, form in found:
        with open_binary(path) as handle:
            seen = formats.module(form).scan(path, handle, source=source, config=config)
        yield InputFile(number, path, rel, form, seen.bytes, seen.records, seen.sha256), None
        name = source.path if source.path.startswith("catalog:") else path
        for first, count, offset, length in seen.pieces:
            yield None, Unit(0, number, path, name, rel, form, first, count, offset, length, seen.header)


def _trees(number: int, source: SourceConfig, found: list[tuple[str, str, str]], config: DataConfig) -> Found:
    """One record a file. A record's fingerprint covers the files beside it that it is read with (captions, licences)."""
    from orchestration.data.formats import tree

    items = tree.files([(path, rel) for path, rel, _ in found], source.format)
    hashes: dict[str, tuple[str, int]] = {}
    for item in items:
        digest, size = _hashed(item.path, hashes)
        beside = "".join(_hashed(path, hashes)[0] for path in item.companions)
        whole = hashlib.sha256(f"{digest}{beside}".encode()).hexdigest() if beside else digest
        yield InputFile(number, item.path, item.rel, source.format, size, 1, whole), None
    step = config.shard_rows if source.format == "code" else min(config.shard_rows, MEDIA_ROWS)
    for first in range(0, len(items), step):
        group = tuple((item.path, item.rel, *item.companions) for item in items[first : first + step])
        yield None, Unit(0, number, group[0][0], source.path, "", source.format, first, len(group), files=group)


def _hashed(path: str, known: dict[str, tuple[str, int]]) -> tuple[str, int]:
    """sha256 and bytes of a file; companions are asked for again and again."""
    if path not in known:
        with open_binary(path) as handle:
            content, size = hashlib.sha256(), 0
            while block := handle.read(formats.READ_BYTES):
                content.update(block)
                size += len(block)
            known[path] = content.hexdigest(), size
    return known[path]

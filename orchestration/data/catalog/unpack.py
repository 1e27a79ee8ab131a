"""Reading archives and writing tables. Takes an archive's path and which members are wanted; gives their bytes, one after the
other, in the archive's order. Called by the conversions. Nothing is written under a name that an archive chose, links are
left out, and no member is run."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from orchestration.errors import DataError

TEXT_GROUP_ROWS = 65_536
MEDIA_GROUP_ROWS = 256  # some MB a row group: a reader seeks to the rows it wants


def members(archive: Path | BinaryIO, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the regular files for whose name `wanted` is true: of a zip or wheel, a tar in any compression, or the
    data part of a Debian package."""
    if isinstance(archive, Path) and archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for name in zipped.namelist():
                if not name.endswith("/") and wanted(name):
                    yield name, zipped.read(name)
        return
    if isinstance(archive, Path):
        with open(archive, "rb") as opened:
            yield from members(opened, wanted)
        return
    with tarfile.open(fileobj=_data_part(archive), mode="r:*") as tar:
        for member in tar:
            if member.isreg() and wanted(member.name):
                handle = tar.extractfile(member)
                assert handle is not None
                yield member.name, handle.read()


def only(archive: Path | BinaryIO, ending: str) -> bytes:
    """Content of the one file whose name ends so. Raises DataError where there is none, or more."""
    found = [content for _, content in members(archive, lambda name: name.endswith(ending))]
    if len(found) != 1:
        shown = archive.name if isinstance(archive, Path) else "inner archive"
        raise DataError(f"{shown}: expected one file {ending}, found {len(found)}")
    return found[0]


def _data_part(handle: BinaryIO) -> BinaryIO:
    """The handle itself, or the tar inside a Debian package, which is an `ar` file: headers of 60 bytes (name 16, size at 48),
    content padded to an even length."""
    if handle.read(8) != b"!<arch>\n":
        handle.seek(0)
        return handle
    while header := handle.read(60):
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(handle.read(size))
        handle.seek(size + size % 2, io.SEEK_CUR)
    raise DataError(f"{handle.name}: a Debian package without data.tar")


def write_rows(path: Path, columns: dict[str, str], rows: Iterable[tuple[Any, ...]], group_rows: int) -> None:
    """One Parquet file. `columns`: name -> Arrow type (string, float64, int32, binary ..., or strings: a list of them); the same
    rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        name: pa.list_(pa.string()) if kind == "strings" else getattr(pa, kind)() for name, kind in columns.items()
    }
    schema = pa.schema(kinds)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held: list[tuple[Any, ...]] = []
        for row in rows:
            held.append(row)
            if len(held) == group_rows:
                writer.write_table(_table(held, schema))
                held = []
        if held:
            writer.write_table(_table(held, schema))


def _table(rows: list[tuple[Any, ...]], schema: Any) -> Any:
    import pyarrow as pa

    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)

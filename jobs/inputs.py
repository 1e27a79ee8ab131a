"""Inputs that only this machine has, put into storage so that a cluster can read them. Takes a JobSpec; gives one whose paths
are `storage:inputs/<address>/...`. The address is a hash of names and contents: what is there already is not sent again.
Called by `jobs.submit`. File names stay, so every row keeps its identity."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from jobs.spec import JobSpec, is_local
from models.config.origins import OriginConfig
from orchestration.data.config import op_inputs
from orchestration.errors import UserError
from orchestration.storage import MANIFEST, Storage, describe, digest

Say = Callable[[str], None]


def upload(spec: JobSpec, storage: Storage, say: Say = print) -> JobSpec:
    """Upload data sources, model folder and thesaurus folders, catalogue items too. Raises UserError where one is missing."""
    changed: dict[str, object] = {}
    for i, source in enumerate(spec.data.sources):
        if (local := _local(source.path)) is not None:
            changed[f"data.sources[{i}].path"] = _send_source(local, storage, shown=source.path, say=say)
    for key, reference, _ in op_inputs(spec.data):
        if (local := _local(reference)) is not None:
            changed[key] = _send_source(local, storage, shown=reference, say=say)
    for key, part in spec.model.parts.items():
        if part.folder and (local := _local(part.folder)) is not None:
            changed[f"{key}.{part.folder_key}"] = _send_model(
                part, Path(local), storage, spec.model.reads_at(key), key=key, say=say
            )
    return spec.override(changed) if changed else spec


def _local(path: str) -> str | None:
    """The path on this machine; None for what the cluster can reach by itself."""
    if path.startswith("catalog:"):
        from orchestration.data.catalog import local

        return str(local(path))
    if path.startswith(("file://", "local://")):
        return path.partition("://")[2]
    return path if is_local(path) else None


def _send_model(
    model: OriginConfig, folder: Path, storage: Storage, reads: Sequence[str], *, key: str, say: Say
) -> str:
    """The folder, or of a model from scratch its tokenizer alone."""
    from orchestration.weights import model_files, tokenizer_files

    if model.path is None:
        found = tokenizer_files(folder, shown=model.folder)
    else:
        found = model_files(folder, shown=model.path, reads=reads, key=f"{key}.path")
    return f"storage:{_send({file.name: file for file in found}, storage, shown=model.folder, say=say)}"


def _send_source(path: str, storage: Storage, *, shown: str, say: Say) -> str:
    """A file, a folder or a glob -> the reference that reads the same files under the same names."""
    here = Path(path)
    if here.is_file():
        return f"storage:{_send({here.name: here}, storage, shown=shown, say=say)}/{here.name}"
    if here.is_dir():
        return f"storage:{_send(_tree(here), storage, shown=shown, say=say)}"
    root, pattern = _split_glob(path)
    files = {
        str(Path(name).relative_to(root)): Path(name)
        for name in sorted(glob.glob(path, recursive=True))
        if Path(name).is_file()
    }
    if not files:
        raise UserError(f"{shown}: no such file, folder or glob match")
    return f"storage:{_send(files, storage, shown=shown, say=say)}/{pattern}"


def _tree(folder: Path) -> dict[str, Path]:
    """All files below, hidden ones left out, and a top-level manifest.json, which storage writes itself."""
    names = ((str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        name: path
        for name, path in names
        if name != MANIFEST and not any(part.startswith(".") for part in PurePosixPath(name).parts)
    }


def _split_glob(path: str) -> tuple[Path, str]:
    """`/a/b/*/x*.csv` -> (`/a/b`, `*/x*.csv`)."""
    parts = Path(path).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed]), str(PurePosixPath(*parts[fixed:]))


def _send(files: dict[str, Path], storage: Storage, *, shown: str, say: Say) -> str:
    """Copy the files in, one at a time, and seal them. Gives the sealed folder's name."""
    found = {name: describe(path) for name, path in files.items()}
    rel = f"inputs/{digest({name: what['sha256'] for name, what in found.items()})}"
    size = sum(what["bytes"] for what in found.values())
    if storage.manifest(rel) is not None:
        say(f"{shown}: in storage already ({rel})")
        return rel
    say(
        f"{shown}: uploading {len(files)} file{'s' if len(files) != 1 else ''}, {size / 1e6:,.1f} MB, to {storage.path(rel)}"
    )
    aside = storage.staging()
    try:
        for name, path in files.items():
            copy = aside / "copy"
            shutil.copyfile(path, copy)
            if describe(copy) != found[name]:
                raise UserError(f"{path}: it changed while it was uploaded; submit again when nothing writes to it")
            storage.put(f"{rel}/{name}", copy)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    storage.seal(rel, found, {"origin": shown})
    return rel

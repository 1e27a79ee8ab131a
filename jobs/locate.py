"""Which package a `--model` means. Takes a version number, an alias or a package folder; gives its place in storage. Used by
the verbs that open a model; knows nothing of what they do with it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestration.errors import UserError
from orchestration.registry import Registry
from orchestration.storage import MANIFEST, Storage


@dataclass(frozen=True)
class Located:
    """`version`: the registered number, or the first letters of the address of a package that was given as a folder."""

    version: str
    package_rel: str


def locate(ref: str, *, name: str, storage: Storage, registry: Registry) -> Located:
    """Raises UserError naming what exists."""
    folder = Path(ref).expanduser()
    if (folder / MANIFEST).is_file():
        return _folder(folder, storage)
    if "/" in ref:
        raise UserError(f"--model {ref}: no package folder (it has no {MANIFEST}); give a version number or an alias")
    found = registry.get(name, ref)
    if storage.manifest(found.package_rel) is None:
        raise UserError(
            f"version {found.version} of {name!r} points to {storage.path(found.package_rel)}, which is not there;"
            f" it was registered from storage {found.storage_url or 'unknown'}: set storage: to that"
        )
    return Located(version=str(found.version), package_rel=found.package_rel)


def referred(ref: str, *, key: str, name: str, storage: Storage, registry: Registry) -> str:
    """The package in storage that a key of the spec or an option means: `model:NAME` is the champion of that name in the registry,
    `model:NAME@VERSION` another; `storage:packages/...` and a folder are packages themselves; else a version or alias of `name`. Raises
    UserError naming the key and what is there."""
    if ref.startswith("storage:"):
        rel = ref.removeprefix("storage:")
        if storage.manifest(rel) is None:
            raise UserError(f"{key}={ref}: no package of that name in {storage.path('packages')}")
        return rel
    if ref.startswith("model:"):
        name, _, version = ref.removeprefix("model:").partition("@")
        which = version or "champion"
    else:
        which = str(Path(ref).expanduser().resolve()) if "/" in ref or not name else ref
    try:
        return locate(which, name=name, storage=storage, registry=registry).package_rel
    except UserError as error:
        raise UserError(f"{key}={ref}: {error}") from None


def _folder(folder: Path, storage: Storage) -> Located:
    """A folder outside storage is copied in, so that every node can open it."""
    address = folder.resolve().name
    rel = f"packages/{address}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        shutil.copytree(folder, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        storage.commit(rel, aside, {"copied_from": str(folder)})
    return Located(version=address[:12], package_rel=rel)

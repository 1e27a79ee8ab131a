"""Frozen weights: they never change, so they are written once, in the sealed folder `frozen/<address>`, whatever the number of
checkpoints, trials and runs. The address is the sha256 of the file's bytes. A damaged one is written anew by whoever has the tensors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import Storage
from orchestration.training.checkpoint import format, tensors

FILE = "tensors.safetensors"


def keep_frozen(storage: Storage, named: dict[str, Any]) -> str | None:
    """Name in storage of the folder that holds exactly these tensors, written if it is not there; None for no tensors."""
    if not named:
        return None
    found = tensors.describe(named)
    rel = f"frozen/{found['sha256'][:32]}"
    try:
        verify(storage, rel)
    except DamagedError:
        _write(storage, rel, named)
    return rel


def verify(storage: Storage, rel: str) -> None:
    """Compare with the address. Raises DamagedError naming the file."""
    fetch(storage, rel, verify=True)


def fetch(storage: Storage, rel: str, *, verify: bool) -> Path:
    """The safetensors file as a local file. Raises DamagedError."""
    sealed = format.read_seal(storage, rel)
    if sealed is None:
        raise DamagedError(f"{storage.path(rel)}: these frozen weights are missing")
    wanted = sealed.files.get(FILE, {})
    if not str(wanted.get("sha256")).startswith(rel.rpartition("/")[2]):
        raise DamagedError(f"{storage.path(rel)}: holds other tensors than its address says")
    return storage.fetch_file(rel, FILE, wanted, verify=verify)


def _write(storage: Storage, rel: str, named: dict[str, Any]) -> None:
    """In place, file by file: a run that writes the same folder at the same time writes the same bytes."""
    aside = storage.staging()
    try:
        made = tensors.write(aside / FILE, named)
        storage.put(f"{rel}/{FILE}", aside / FILE)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    format.seal(storage, rel, {FILE: made}, {})

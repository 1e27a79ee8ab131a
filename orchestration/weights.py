"""A pretrained model folder, put into storage under its content address so that every node can read it. Takes the `model.path`
of the spec; gives a sealed folder `weights/<address>`. Called by the driver before any stage. Refuses pickled weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage, describe, digest

KEPT = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class Weights:
    """`rel`: the sealed folder in storage. `config`: its parsed config.json."""

    rel: str
    address: str
    config: dict[str, Any]


def stage(path: str, storage: Storage) -> Weights:
    """Copy the folder's weights, config and tokenizer into storage, once.

    Raises UserError where a file is missing or only pickled weights are there.
    """
    folder = locate(path, storage)
    files = model_files(folder, shown=path)
    address = digest({file.name: describe(file)["sha256"] for file in files})
    rel = f"weights/{address}"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if storage.manifest(rel) is None:
        aside = storage.staging()
        for file in files:
            shutil.copyfile(file, aside / file.name)
        storage.commit(rel, aside, {"path": path})
    return Weights(rel=rel, address=address, config=config)


def locate(path: str, storage: Storage) -> Path:
    """The local folder behind a plain path, `catalog:NAME` (fetched if need be) or `storage:REL`."""
    if path.startswith("catalog:"):
        from orchestration.data.catalog import local

        return local(path)
    if path.startswith("storage:"):
        return storage.fetch(path.removeprefix("storage:"))
    return Path(path)


def model_files(folder: Path, shown: str) -> list[Path]:
    """The files of a usable model folder, sorted by name. Raises UserError naming what is missing."""
    if not folder.is_dir():
        raise UserError(
            f"model.path={shown}: no such folder; give a folder with config.json, *.safetensors and tokenizer.json, or catalog:NAME"
        )
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"model.path={shown}: {name} is missing; a model folder has config.json, *.safetensors and tokenizer.json"
            )
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        why = (
            f"it has {', '.join(pickled)}, which is a pickle and is not loaded"
            if pickled
            else "no *.safetensors is there"
        )
        raise UserError(f"model.path={shown}: {why}; save the model with save_pretrained (safetensors) first")
    return sorted({file for pattern in KEPT for file in folder.glob(pattern)})

"""A model folder, put into storage under its content address so that every node can read it. Takes the `model` part of the spec;
gives a sealed folder `weights/<address>`: a pretrained model, or of one from scratch the config.json and the tokenizer (each worker
draws the same weights from the seed). Called by the driver before any stage. Refuses pickled weights."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ModelConfig
from models.families import new_config
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


def stage_model(model: ModelConfig, storage: Storage, *, positions: int) -> Weights:
    """The pretrained folder, or a new model of the spec's size with room for `positions` tokens. Raises UserError as `stage`, ModelError
    where the tokenizer cannot be used."""
    if model.path is not None:
        return stage(model.path, storage)
    aside = storage.staging()
    try:
        config = _from_scratch(model, storage, aside, positions)
        files = sorted(aside.iterdir())
        address = digest({file.name: describe(file)["sha256"] for file in files})
        rel = f"weights/{address}"
        if storage.manifest(rel) is None:
            storage.commit(rel, aside, {"tokenizer": model.tokenizer})
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Weights(rel=rel, address=address, config=config)


@contextlib.contextmanager
def model_folder(model: ModelConfig, storage: Storage, *, positions: int) -> Iterator[Path]:
    """The same as a local folder, for who writes nothing to storage: gone behind the block where it had to be made."""
    if model.path is not None:
        yield locate(model.path, storage)
        return
    with tempfile.TemporaryDirectory(prefix="eagleray-model-") as folder:
        _from_scratch(model, storage, Path(folder), positions)
        yield Path(folder)


def _from_scratch(model: ModelConfig, storage: Storage, folder: Path, positions: int) -> dict[str, Any]:
    """Writes config.json and the tokenizer's files; gives the former."""
    from models import tokens

    assert model.family is not None
    assert model.tokenizer is not None
    source = locate(model.tokenizer, storage)
    for file in tokenizer_files(source, shown=model.tokenizer):
        shutil.copyfile(file, folder / file.name)
    vocabulary = tokens.read(folder)
    # Rows that are longer than those of the corpus can be asked of an endpoint: BERT's 512 at least.
    config = new_config(
        model.family,
        model.numbers,
        vocab=vocabulary.size,
        positions=max(512, positions),
        special=vocabulary.special,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return config


def locate(path: str, storage: Storage) -> Path:
    """The local folder behind a plain path, `catalog:NAME` (fetched if need be) or `storage:REL`."""
    if path.startswith("catalog:"):
        from orchestration.data.catalog import local

        return local(path)
    if path.startswith("storage:"):
        return storage.fetch(path.removeprefix("storage:"))
    return Path(path)


def tokenizer_files(folder: Path, shown: str) -> list[Path]:
    """A tokenizer's files, sorted by name. Raises UserError where there is none."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"model.tokenizer={shown}: no tokenizer.json there; give a folder that has it (`eagleray data` can train one), or catalog:NAME"
        )
    names = (name for name in KEPT if "safetensors" not in name and name != "config.json")
    return sorted(folder / name for name in names if (folder / name).is_file())


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

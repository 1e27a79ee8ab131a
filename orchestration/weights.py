"""A model folder, put into storage under its content address so that every node can read it. Takes the `model` part of the spec;
gives a sealed folder `weights/<address>`: a pretrained model, or of one from scratch the config.json and the tokenizer (each worker
draws the same weights from the seed). Called by the driver before any stage. Refuses pickled weights."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import CAPTIONED, ContrastConfig, FusionConfig, ModelConfig
from models.config.origins import FAMILIES, OriginConfig
from models.families import ModelError, new_config
from models.scratch import TOWERS, Shapes, encoder_config, encoder_of, model_config, processing, reads_of, towers_config
from orchestration import cut
from orchestration.errors import UserError
from orchestration.storage import Storage, describe, digest

KEPT = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)

MEMORY_VERSION = 1  # rises when the same facts give another table
FACT_TOKENS = 64


@dataclass(frozen=True)
class Weights:
    """`rel`: the sealed folder in storage. `config`: its parsed config.json."""

    rel: str
    address: str
    config: dict[str, Any]


def stage(path: str, storage: Storage) -> Weights:
    """A pretrained model of text."""
    return stage_model(ModelConfig(path=path), storage, shapes=Shapes())


def stage_model(model: ModelConfig, storage: Storage, *, shapes: Shapes, facts: Sequence[str] | None = None) -> Weights:
    """The pretrained folder, or a new model of the spec's size for rows of those shapes; copied into storage once. `facts`: the texts of
    `model.memory`, whose table is made then too.

    Raises UserError where a file is missing or only pickled weights are there, ModelError where the tokenizer cannot be used."""
    aside = storage.staging()
    try:
        files = _files(model, storage, aside, shapes)
        told = {"memory": [MEMORY_VERSION, digest(facts)]} if facts else {}
        address = digest({name: describe(path)["sha256"] for name, path in sorted(files.items())} | told)
        rel = f"weights/{address}"
        config = json.loads(files["config.json"].read_text(encoding="utf-8"))
        if storage.manifest(rel) is None:
            _copy(files, aside)
            if facts:
                _write_table(aside, facts)
            said = {"layers": model.layers_from} if model.layers_from else {}
            storage.commit(rel, aside, {"path": model.path, **said} if model.path else {"tokenizer": model.tokenizer})
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Weights(rel=rel, address=address, config=config)


def _write_table(folder: Path, facts: Sequence[str]) -> None:
    """Once a base and model: 5,000 triples take MiniLM some 10 s on one core."""
    import numpy as np

    from models import memory
    from orchestration.data.tokenize import Tokenizer

    tokenizer = Tokenizer(folder, FACT_TOKENS)
    table_ND = memory.table(folder, tokenizer.encode(list(facts)), tokenizer.pad_id)
    np.save(folder / memory.FILE, table_ND, allow_pickle=False)


@contextlib.contextmanager
def model_folder(model: ModelConfig, storage: Storage, *, shapes: Shapes) -> Iterator[Path]:
    """The same as a local folder, for who writes nothing to storage: gone behind the block where it had to be made."""
    if model.path is not None and model.layers_from is None:
        yield locate(model.path, storage)
        return
    with tempfile.TemporaryDirectory(prefix="eagleray-model-") as folder:
        _copy(_files(model, storage, Path(folder), shapes), Path(folder))
        yield Path(folder)


def _files(model: ModelConfig, storage: Storage, aside: Path, shapes: Shapes) -> dict[str, Path]:
    """Name in the folder -> the file that is to stand there; what has to be written is written to `aside`."""
    if model.path is not None:
        found = model_files(locate(model.path, storage), shown=model.path, reads=model.reads)
        if model.layers_from is not None:
            found = cut.write(found, model.layers_from, aside)
        return {file.name: file for file in found}
    if model.towers is not None:
        return _towers(model, storage, aside, shapes)
    _from_scratch(model, storage, aside, shapes)
    return {path.name: path for path in aside.iterdir()}


def _towers(model: ModelConfig, storage: Storage, aside: Path, shapes: Shapes) -> dict[str, Path]:
    """A sub-folder for each tower; above them the config.json of all, the tokenizer and the processing of pictures."""
    files: dict[str, Path] = {}
    configs: dict[str, dict[str, Any]] = {}
    for name, tower in (model.towers or {}).items():
        inner = aside / name
        inner.mkdir()
        if tower.path is not None:
            there = locate(tower.path, storage)
            kept = model_files(there, shown=tower.path, reads=(name,), key=f"model.towers.{name}.path")
            found = {file.name: file for file in kept if _of_tower(file.name, name)}
        else:
            _from_scratch(tower, storage, inner, shapes, head=False)
            found = {path.name: path for path in inner.iterdir()}
        configs[name] = encoder_of(json.loads(found["config.json"].read_text(encoding="utf-8")), name)
        if configs[name]["model_type"] == TOWERS:
            raise UserError(
                f"model.towers.{name}.path={tower.path}: it is a whole model of Eagleray's and no encoder; give it as model.path, with model.modalities"
            )
        inside = [file for file in found if file == "config.json" or "safetensors" in file]
        files |= {f"{name}/{file}" if file in inside else file: path for file, path in found.items()}
    _write(aside / "config.json", towers_config(configs, *_joined(model)))
    return {**files, "config.json": aside / "config.json"}


def _of_tower(file: str, name: str) -> bool:
    """A folder of several encoders has the files of all; a tower takes weights and what its own modality is read by."""
    if "safetensors" in file or file == "config.json":
        return True
    return file == PROCESSING["image"] if name == "image" else name == "text" and file != PROCESSING["image"]


def _joined(model: ModelConfig) -> tuple[dict[str, Any] | None, int | None]:
    """What makes one model of the towers: their fusion, or the width in which they are compared."""
    if model.task in CAPTIONED:
        return None, None
    if model.task == "contrastive":
        return None, (model.contrast or ContrastConfig()).width
    return (model.fusion or FusionConfig()).model_dump(mode="json") if len(model.reads) > 1 else None, None


def _copy(files: dict[str, Path], folder: Path) -> None:
    """Files that were written to a folder and are not of it by that name leave it."""
    for name, path in files.items():
        target = folder / name
        if path != target:
            target.parent.mkdir(exist_ok=True)
            (shutil.move if folder in path.parents else shutil.copyfile)(str(path), str(target))


def _from_scratch(model: OriginConfig, storage: Storage, folder: Path, shapes: Shapes, *, head: bool = True) -> None:
    """Writes config.json, and the files of the tokenizer or of the processing of images. `head`: it is a model by itself, no tower."""
    assert model.family is not None
    if model.tokenizer is None:
        config = (model_config if head else encoder_config)(model.family, model.numbers, shapes)
        if FAMILIES[model.family] == "image":
            _write(folder / "preprocessor_config.json", processing(shapes))
    else:
        assert isinstance(model.tokenizer, str)  # one that is to be trained has a name by now
        config = _text_config(model, locate(model.tokenizer, storage), folder, shapes)
    _write(folder / "config.json", config)


def _text_config(model: OriginConfig, tokenizer: Path, folder: Path, shapes: Shapes) -> dict[str, Any]:
    from models import tokens

    for file in tokenizer_files(tokenizer, shown=str(model.tokenizer)):
        shutil.copyfile(file, folder / file.name)
    vocabulary = tokens.read(folder)
    # Rows that are longer than those of the corpus can be asked of an endpoint: BERT's 512 at least.
    return new_config(
        str(model.family),
        model.numbers,
        vocab=vocabulary.size,
        positions=max(512, shapes.positions),
        special=vocabulary.special,
    )


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


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


def vocabulary_fits(folder: Path, config: dict[str, Any]) -> str | None:
    """Why a model folder's tokenizer is another model's; None where every id has a row in the embeddings, or where the tokenizer is of a
    kind that cannot be read here."""
    from models import tokens

    rows = config.get("vocab_size")
    try:
        size = tokens.read(folder).size
    except ModelError:
        return None
    if not isinstance(rows, int) or size <= rows:
        return None
    return (
        f"tokenizer.json has ids up to {size - 1}, and the model (vocab_size in config.json) has {rows} embeddings;"
        " use the tokenizer that the model was trained with"
    )


# What a model reads -> the file beside config.json and weights that says how.
PROCESSING = {"text": "tokenizer.json", "image": "preprocessor_config.json"}


def model_files(folder: Path, shown: str, reads: Sequence[str] = ("text",), *, key: str = "model.path") -> list[Path]:
    """The files of a usable model folder, sorted by name. `key`: of the spec. Raises UserError naming what is missing."""
    needed = ["config.json", *(PROCESSING[name] for name in reads if name in PROCESSING)]
    if not folder.is_dir():
        raise UserError(
            f"{key}={shown}: no such folder; give a folder with {', '.join([needed[0], '*.safetensors', *needed[1:]])}, or catalog:NAME"
        )
    for name in needed:
        if not (folder / name).is_file():
            raise UserError(
                f"{key}={shown}: {name} is missing; the folder of a model that reads {' and '.join(reads)} has config.json, "
                + ", ".join(["*.safetensors", *needed[1:]])
                + _other(folder, reads)
            )
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        why = (
            f"it has {', '.join(pickled)}, which is a pickle and is not loaded"
            if pickled
            else "no *.safetensors is there"
        )
        raise UserError(f"{key}={shown}: {why}; save the model with save_pretrained (safetensors) first")
    return sorted({file for pattern in KEPT for file in folder.glob(pattern)})


def _other(folder: Path, reads: Sequence[str]) -> str:
    """A folder of another modality is told as one."""
    try:
        found = reads_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""
    named = f"; its model reads {', '.join(found)}: set model.modalities: [{', '.join(found)}]"
    return named if found and found != tuple(reads) else ""

"""What the ops of a spec read, put into storage on the driver: tables of synonyms, the tagger of `voice`. Takes `data.augment`; gives one
storage name an op, which travels to the workers. Called by `prepare`, `preview` and `train`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from orchestration.data.augment import thesaurus
from orchestration.data.config import AugmentConfig
from orchestration.data.files import on_disk
from orchestration.errors import UserError
from orchestration.storage import Storage, describe

TAGGER = "tagger.json"


def stage_ops(config: AugmentConfig | None, storage: Storage) -> list[str]:
    """One sealed folder's name an op, empty for an op that reads nothing. Raises UserError where something is missing."""
    return [_stage(op, storage) for op in config.ops] if config else []


def _stage(op: Any, storage: Storage) -> str:
    if op.op == "voice":
        return _stage_tagger(op.tagger, storage)
    return thesaurus.stage(op.thesaurus, storage, op=op.op) if hasattr(op, "thesaurus") else ""


def _stage_tagger(tagger: str, storage: Storage) -> str:
    source = _file(tagger, storage)
    if not source.is_file():
        raise UserError(
            f"data.augment: tagger {tagger} does not exist; give the JSON file of an averaged perceptron, or"
            " catalog:english-tagger"
        )
    rel = f"inputs/tagger-{describe(source)['sha256'][:32]}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        shutil.copyfile(source, aside / TAGGER)
        storage.commit(rel, aside, {"made_of": tagger})
    return rel


def _file(tagger: str, storage: Storage) -> Path:
    """The file, or the only file of a folder."""
    found = on_disk(tagger, storage)
    files = sorted(found.glob("*.json")) if found.is_dir() else []
    named = [path for path in files if path.name != "manifest.json"]
    return named[0] if len(named) == 1 else found

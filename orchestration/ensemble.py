"""Several packages as one, a package like any other. Takes packages in storage that answer the same question of the same rows; gives
`packages/<address>` whose answers are the mean of theirs:

    members/0 members/1 ...           of each: config.json, weights, task.json, lineage.json
    config.json                       the labels, and that no single model lies here
    tokenizer files, preprocessing.json, preprocessor_config.json, task.json, lineage.json, probe.json   as of any package

Evaluation, endpoints and `train.distill` take it as they take its members. Called by `eagleray export --ensemble`. Knows nothing of Ray,
MLflow or HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.ensemble import AVERAGED, MODEL_TYPE, Ensemble
from orchestration import lineage, package
from orchestration.data import knowledge
from orchestration.errors import UserError
from orchestration.package import Exported, Package
from orchestration.package_weights import ALONE, MEMBERS
from orchestration.storage import MANIFEST, Storage

OWN = ("config.json", "task.json", "lineage.json")  # what a member keeps to itself, beside its weights
SHARED = (
    "preprocessing.json",
    "tokenizer.json",
    "preprocessor_config.json",
    knowledge.BASE,
)  # what must be equal in all


def fuse(storage: Storage, rels: Sequence[str], *, name: str) -> Exported:
    """`rels`: the members, each verified before it is taken. `name`: of the model, for its lineage. The same members give the same
    address but for the time in the lineage.

    Raises UserError for fewer than two, one named twice, and members whose answers cannot be averaged.
    """
    if len(rels) < 2 or len(set(rels)) < len(rels):
        raise UserError(f"an ensemble needs two packages or more, each named once; found {', '.join(rels)}")
    members = [package.opened(storage, rel) for rel in rels]
    for rel, member in zip(rels, members, strict=True):
        if why := unfit(members[0], member):
            raise UserError(f"ensemble: package {rel} {why}")
    first = members[0]
    aside = storage.staging()
    try:
        for number, member in enumerate(members):
            _copy(member.folder, aside / MEMBERS / str(number), own=True)
        _copy(first.folder, aside, own=False)
        for file, value in _told(storage, rels, members, name).items():
            (aside / file).write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
        model = Ensemble([member.model for member in members], first.task.config.task, first.labels)
        return package.sealed(storage, aside, model, labels=first.labels)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unfit(first: Package, other: Package) -> str | None:
    """Why the answers of a package cannot be averaged with those of another; None where they can."""
    task = other.task.config.task
    if task not in AVERAGED:
        return f"was trained for {task}, whose answers cannot be averaged; allowed: {', '.join(AVERAGED)}"
    if task != first.task.config.task:
        return f"was trained for {task}, and the first one for {first.task.config.task}"
    if other.labels != first.labels:
        return f"has the labels {other.labels}, and the first one {first.labels}"
    if other.task.config.reads != first.task.config.reads:
        return f"reads {', '.join(other.task.config.reads)}, and the first one {', '.join(first.task.config.reads)}"
    if (other.folder / MEMBERS).is_dir():
        return "is an ensemble itself; name its members"
    if (other.folder / ALONE).is_file():
        return "holds an adapter alone; export it with model.adapter.alone=false"
    if other.task.config.memory is not None:
        return "has a memory of facts beside its weights, which an ensemble has no room for"
    if other.pair and other.task.token_types != first.task.token_types:
        return "tells the two texts of a row apart in another way than the first one"
    differ = [name for name in SHARED if _content(other.folder / name) != _content(first.folder / name)]
    return f"has another {differ[0]} than the first one: they would not read the same tokens" if differ else None


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _copy(source: Path, target: Path, *, own: bool) -> None:
    """Of a package what is a member's own, or what all share."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name not in (MANIFEST, "probe.json") and own == (path.name in OWN or path.suffix == ".safetensors"):
            shutil.copyfile(path, target / path.name)


def _told(storage: Storage, rels: Sequence[str], members: Sequence[Package], name: str) -> dict[str, Any]:
    """config.json, task.json and lineage.json of the whole."""
    first = members[0]
    config: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "id2label": {str(i): label for i, label in enumerate(first.labels)},
    }
    if first.task.token_types:
        config["type_vocab_size"] = 2
    read = package.read_json(first.folder, "config.json")
    config |= {key: read[key] for key in ("towers",) if key in read}  # what rows of a series are like
    task: dict[str, Any] = {"task": first.task.config.task}
    if first.task.config.reads != ("text",):
        task["modalities"] = list(first.task.config.reads)
    made = lineage.of_ensemble(name, dict(zip(rels, [member.lineage for member in members], strict=True)))
    return {"config.json": config, "task.json": task, "lineage.json": made}

"""The model package: one sealed folder that is evaluated, registered and served. Takes a checkpoint's named tensors,
the pretrained folder they started from, labels, text preprocessing and lineage; gives `packages/<address>` with

    config.json model.safetensors     opens with the Auto class of its task (AutoModelForMaskedLM ...).from_pretrained, labels inside
    task.json                         {"task": ..., "masking": ...}: what it was trained to do
    tokenizer files                   as they came with the pretrained folder
    preprocessor_config.json          of pictures: how pixels are scaled
    preprocessing.json                {"clean": ..., "max_length": ...}: cleaning and tokenising, the code that trained; "pair": true
                                      where a row is two texts; "knowledge": how facts are told; of models that read media also "image",
                                      "audio", "series": how they are decoded
    knowledge.json                    the triples that rows are told; memory.npy: those of `model.memory`, embedded; memory.npz: what follows
                                      where inside them, for a model that writes
    lineage.json                      which rows, seeds, trial, run and code made it
    probe.json                        a few rows, their token ids and the logits of the training-time weights (of models that answer
                                      at each token a few numbers of a row's last one)

`export` (driver, after a fit) reopens what it wrote and refuses it unless it gives the training-time logits; `load`
(evaluation, every serving replica) checks hashes and probe again. Nothing here is a pickle and no remote code is run.
Knows nothing of Ray, MLflow or HTTP."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from models.config import LABELLED, ModelConfig
from orchestration import inference, package_weights, probes
from orchestration.data import knowledge
from orchestration.data.config import CleanConfig, KnowledgeConfig
from orchestration.decoding import MEDIA, Decoder
from orchestration.errors import DamagedError, UserError
from orchestration.package_weights import read_json
from orchestration.storage import MANIFEST, Storage, check_file, describe, digest

if TYPE_CHECKING:
    from models.tasks.base import Rows, Task

MICRO_BATCH = 32
# A text; two; or what a row holds by name: text, and media encoded (bytes) or as the store has them.
Question = str | tuple[str, str] | Mapping[str, Any]
# Short and long, plain and not: decomposed accents, other scripts, runs of spaces, one far beyond a usual max_length.
PROBE_TEXTS = (
    "A quiet, moving film; I would see it again.",
    "Terrible.",
    "The re\u0301sume\u0301   was   fine, the interview less so :-(",
    "不坏，但也不好。",
    "We waited two hours for a table and the food was cold. " * 40,
)


@dataclass(frozen=True)
class Exported:
    """`rel`: the sealed folder in storage, `packages/<address>`; `address`: hash of all its files."""

    rel: str
    address: str


@dataclass(frozen=True)
class Encoded:
    """One row as the model sees it. `truncated`: its text had more than max_length tokens. `media`: kind -> array, None where it has
    none. `pair_at`: of two texts the first token of the second one. `withheld`: facts that its memory may not give it."""

    ids: list[int]
    truncated: bool
    media: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    pair_at: int | None = None
    withheld: Sequence[int] = ()


def export(
    storage: Storage,
    *,
    tensors: Mapping[str, Any],
    weights_rel: str,
    labels: Sequence[str],
    preprocessing: dict[str, Any],
    lineage: dict[str, Any],
    model: ModelConfig | None = None,
    knowledge_rel: str | None = None,
    held: Sequence[Sequence[int]] = (),
    probe_texts: Sequence[str] = PROBE_TEXTS,
) -> Exported:
    """Checkpoint -> sealed package. The same inputs give the same address, and nothing is written twice.

    `tensors`: a checkpoint's, by name (`checkpoint.open(...).weights()`). `weights_rel`: the staged pretrained folder. `preprocessing`: `{"clean": CleanConfig values, "max_length": tokens}`.
    `model`: the spec's part; None: a classifier. `knowledge_rel`: the staged triples that rows are told. `held`: token ids of validation rows, by which the memory
    of a model that writes is weighed. Raises UserError where the tensors do not fit the model or the reopened package gives other logits.
    """
    pretrained = storage.fetch(weights_rel)
    config = model or ModelConfig(path=str(pretrained))
    trained = trained_model(pretrained, tensors, labels, config)
    aside = storage.staging()
    try:
        package_weights.write(aside, trained, config, pretrained=pretrained, weights_rel=weights_rel)
        for file in _tokenizer_files(pretrained):
            shutil.copyfile(file, aside / file.name)
        if knowledge_rel is not None:
            shutil.copyfile(storage.fetch(knowledge_rel) / knowledge.BASE, aside / knowledge.BASE)
        if "image" in preprocessing:
            _fit_pixels(aside / "preprocessor_config.json", preprocessing["image"]["size"])
        _write_json(aside / "preprocessing.json", preprocessing)
        _write_json(aside / "task.json", _told(config))
        _write_json(aside / "lineage.json", lineage)
        if config.recalls:
            package_weights.remember(aside, trained, config, held)
        base = pretrained if config.adapter and config.adapter.alone else None
        return sealed(storage, aside, trained, labels=labels, probe_texts=probe_texts, base=base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sealed(
    storage: Storage,
    aside: Path,
    model: Any,
    *,
    labels: Sequence[str],
    probe_texts: Sequence[str] = PROBE_TEXTS,
    base: Path | None = None,
) -> Exported:
    """The last step of making a package of what lies `aside`: its probe, by `model`; opened and compared with it; moved into storage.
    Raises UserError where the reopened package gives other logits."""
    _write_probe(aside, model, probe_texts)
    _check_probe(_open(aside, threads=1, base=base, verify=True), shown="the reopened package")
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    address = digest({str(path.relative_to(aside)): describe(path)["sha256"] for path in files})
    rel = f"packages/{address}"
    if storage.manifest(rel) is None:
        storage.commit(rel, aside, {"labels": list(labels)})
    return Exported(rel=rel, address=address)


def opened(storage: Storage, rel: str, *, threads: int = 1, verify: bool = True) -> Package:
    """`load` of a package in storage, with what it rests on."""
    folder = storage.fetch(rel)
    return load(folder, threads=threads, verify=verify, base=package_weights.fetch_base(storage, folder))


def load(folder: Path, *, threads: int = 1, verify: bool = True, base: Path | None = None) -> Package:
    """Open a sealed package on the CPU. `threads`: torch threads of each forward pass. `base`: the pretrained folder, for a package of an
    adapter alone; None: looked for in the storage around it.

    Raises DamagedError where a file differs from the manifest, UserError where the probe's logits differ.
    """
    folder = Path(folder)
    if verify:
        _verify_files(folder)
    package = _open(folder, threads=threads, base=base, verify=verify)
    if verify:
        _check_probe(package, shown=f"package {folder}")
    return package


class Package:
    """An open package. Safe to call from one thread at a time; give each thread or process its own."""

    def __init__(self, folder: Path, model: Any, *, lineage: dict[str, Any], threads: int) -> None:
        self.folder = folder
        self.task = read_task(folder)
        self.labels = self.task.labels
        self.lineage = lineage
        self.preprocessing = _preprocessing(folder)
        self.max_length: int = self.preprocessing["max_length"]
        self.pair: bool = self.preprocessing.get("pair", False)
        self.threads = threads
        self.model = model
        self.tokenizer = _tokenizer(folder, self.max_length)
        self.pad_id: int = self.tokenizer.pad_id
        self._cleaning = CleanConfig.model_validate(self.preprocessing["clean"])
        self._decoder = Decoder(self.task.media, self.preprocessing)
        told = self.preprocessing.get("knowledge")
        self.knowledge = knowledge.load(folder, KnowledgeConfig(path=knowledge.BASE, **told)) if told else None

    def clean(self, texts: Sequence[str]) -> list[str]:
        """As training did."""
        from orchestration.data.clean import clean_text

        return [clean_text(text, self._cleaning) for text in texts]

    def encode(self, rows: Sequence[Question]) -> list[Encoded]:
        """Clean, tokenise and decode as training did. Special tokens are counted in max_length. Raises Unanswerable for media that cannot
        be decoded."""
        if self.pair:
            return self._encode_pairs(rows)
        parts = [{"text": row} if isinstance(row, str) else cast("Mapping[str, Any]", row) for row in rows]
        texts = [row.get("text") or "" for row in parts]
        return self.beside(self.encode_clean(self.clean(texts)), parts)

    def beside(self, encoded: list[Encoded], rows: Sequence[Mapping[str, Any]]) -> list[Encoded]:
        """The same rows with their media, where the model reads any."""
        if not self.task.media:
            return encoded
        return [
            replace(one, media=self._decoder(row, at)) for at, (one, row) in enumerate(zip(encoded, rows, strict=True))
        ]

    def _encode_pairs(self, rows: Sequence[Question]) -> list[Encoded]:
        texts, pairs = (self.clean(part) for part in zip(*cast("Sequence[tuple[str, str]]", rows), strict=True))
        told = self._told(texts, {"pair": pairs})
        framed = zip(self.tokenizer.framed(told.texts, told.beside["pair"]), told.withheld, strict=True)
        return [Encoded(row.ids.tolist(), row.cut, {}, row.parts[1].start, withheld) for row, withheld in framed]

    def encode_clean(self, cleaned: list[str]) -> list[Encoded]:
        """Texts that are clean already."""
        cleaned, _, withheld = self._told(cleaned, {})
        rows = zip(self.tokenizer.encode(cleaned), withheld, strict=True)
        encoded = [Encoded(ids, truncated=False, withheld=held) for ids, held in rows]
        full = [i for i, item in enumerate(encoded) if item.ids and len(item.ids) >= self.max_length]
        if full:  # exactly max_length tokens is not truncated: one more token of room tells the two apart
            longer = self._longer.encode([cleaned[i] for i in full])
            for i, ids in zip(full, longer, strict=True):
                encoded[i] = replace(encoded[i], truncated=len(ids) > self.max_length)
        return encoded

    def _told(self, texts: list[str], beside: dict[str, list[str]]) -> knowledge.Told:
        """With the facts that training told such rows; what they teach is not known here."""
        if self.knowledge is None:
            return knowledge.Told(texts, beside, [[] for _ in texts])
        return self.knowledge.tell(texts, beside)

    def forward(self, **inputs: Any) -> Any:
        """The model's logits of one batch, fp32, as training computes them."""
        logits = self.task.read(self.model(**inputs))
        return tuple(part.float() for part in logits) if isinstance(logits, tuple) else logits.float()

    @functools.cached_property
    def _longer(self) -> Any:
        return _tokenizer(self.folder, self.max_length + 1)

    def logits(self, rows: Sequence[Question], *, micro_batch: int = MICRO_BATCH) -> np.ndarray:
        """(N, C) float32, in the order of `rows`; C as in `labels`."""
        return self.logits_of(self.encode(rows), micro_batch=micro_batch)

    def logits_of(self, items: Sequence[Encoded], *, micro_batch: int = MICRO_BATCH) -> np.ndarray:
        """(N, C) float32 of encoded rows."""
        return inference.logits(
            self.model,
            self.rows(items),
            task=self.task,
            pad_id=self.pad_id,
            micro_batch=micro_batch,
            threads=self.threads,
        )

    def rows(self, items: Sequence[Encoded]) -> Rows:
        """As the task reads them."""
        from models.inputs import Rows

        media = {kind: [item.media.get(kind) for item in items] for kind in self.task.media}
        withheld = [item.withheld for item in items]
        return Rows([item.ids for item in items], media=media, pair_at=starts(items), withheld=withheld)

    def answer(self, texts: Sequence[Question], **options: Any) -> list[dict[str, Any]]:
        """What an endpoint says of each row, by the task: `orchestration/answers/kinds.py` has the options. Raises Unanswerable."""
        from orchestration import answers

        return answers.of(self, micro_batch=MICRO_BATCH).answer(texts, **options)


def starts(items: Sequence[Encoded]) -> list[int] | None:
    """Where each row's second text begins; None for rows of one text."""
    return [cast("int", item.pair_at) for item in items] if items and items[0].pair_at is not None else None


def trained_model(
    pretrained: Path, tensors: Mapping[str, Any], labels: Sequence[str], config: ModelConfig | None = None
) -> Any:
    """The model with exactly the checkpoint's tensors, fp32, eval mode. `config`: None for a classifier. Raises UserError naming keys."""
    from models.building import build
    from models.text import quiet_transformers
    from orchestration.training.bare import load_weights

    with quiet_transformers():
        chosen = config.model_copy(update={"dropout": None}) if config else ModelConfig(path=str(pretrained))
        model = build(chosen, pretrained, list(labels))
    load_weights(model, dict(tensors), shown=f"the checkpoint, for the model of {pretrained} with {len(labels)} labels")
    return model.eval()


# ------------------------------------------------------------------------------------------------ writing


def _told(config: ModelConfig) -> dict[str, Any]:
    """What task.json says. An adapter that was merged is no part of the model any more. What is read is told where it is more than text,
    so that packages of text keep their address."""
    told = config.model_dump(mode="json", include={"task", "masking", "denoising", "contrast", "memory"})
    if config.adapter is not None and not config.adapter.merges:
        told["adapter"] = config.adapter.model_dump(mode="json", exclude_none=True)
    if config.reads != ("text",):
        told["modalities"] = list(config.reads)
    if config.pooling == "mean":
        told["pooling"] = config.pooling
    return told


def _tokenizer_files(pretrained: Path) -> list[Path]:
    """What `weights.stage` kept beside config and weights."""
    files = [path for path in sorted(pretrained.iterdir()) if path.is_file() and "safetensors" not in path.name]
    return [path for path in files if path.name not in ("config.json", MANIFEST)]


def _fit_pixels(path: Path, size: int) -> None:
    """transformers' own processing of the folder cuts the square that training saw, and not the one of the pretrained model."""
    told = json.loads(path.read_text(encoding="utf-8"))
    square = {"height": size, "width": size}
    cut = {"do_center_crop": True, "crop_size": square, "size": {"shortest_edge": size}}
    _write_json(path, {**told, **(cut if told.get("do_center_crop") else {"size": square})})


def _write_probe(folder: Path, model: Any, texts: Sequence[str]) -> None:
    """Logits of the training-time model, in one padded batch as training computes them."""
    package = Package(folder, model, lineage={}, threads=1)
    rows = probes.rows(texts, package.task.config.reads, package.preprocessing)
    items = package.encode(rows)
    with inference.torch_threads(1):
        logits_NC = inference.forward(model, package.rows(items), task=package.task, pad_id=package.pad_id)
    ids = [item.ids for item in items]
    _write_json(folder / "probe.json", {**probes.written(rows), "ids": ids, "logits": logits_NC.tolist()})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ reading


def _open(folder: Path, *, threads: int, base: Path | None, verify: bool) -> Package:
    lineage, task = read_json(folder, "lineage.json"), read_task(folder)
    model = package_weights.read(folder, task.config, task.labels, base=base, verify=verify)
    return Package(folder, model, lineage=lineage, threads=threads)


def read_task(folder: Path) -> Task:
    """What the package at `folder` was trained to do. Raises UserError where task.json is not ours."""
    from models import tasks

    model, config = package_weights.told(folder), read_json(folder, "config.json")
    named = config.get("id2label") or {}
    labels = [named[str(i)] for i in range(len(named))] if model.task in LABELLED else []
    return tasks.make(model, labels, folder)


def _tokenizer(folder: Path, max_length: int) -> Any:
    from orchestration.data.untokenized import tokenizer_of

    return tokenizer_of(folder, max_length)


def _preprocessing(folder: Path) -> dict[str, Any]:
    values = read_json(folder, "preprocessing.json")
    known = isinstance(values, dict) and {"clean", "max_length"} <= set(values) <= {
        "clean",
        "max_length",
        "pair",
        "knowledge",
        *MEDIA,
    }
    if not known or not isinstance(values["max_length"], int) or not isinstance(values.get("pair", False), bool):
        raise UserError(
            f"{folder / 'preprocessing.json'}: found {values!r}; expected {{'clean': cleaning, 'max_length': tokens}}, 'pair': true where a"
            f" row is two texts, 'knowledge' where facts are told, and of media how they are decoded ({', '.join(MEDIA)})"
        )
    return values


def _verify_files(folder: Path) -> None:
    """Every file against the manifest, and no file beside it: one added later could change what is loaded."""
    files: dict[str, Any] = read_json(folder, MANIFEST)["files"]
    for name, wanted in files.items():
        check_file(folder / name, wanted, shown=str(folder / name))
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if strangers := sorted(present - set(files) - {MANIFEST}):
        raise DamagedError(f"{folder}: {', '.join(strangers)} not in {MANIFEST}; a sealed package is never changed")


def _check_probe(package: Package, shown: str) -> None:
    """Raises UserError unless the package tokenises and answers its probe as the training-time model did."""
    probe = read_json(package.folder, "probe.json")
    encoded = package.encode(probes.read(probe))
    differ = [row for row, item in enumerate(encoded) if item.ids != probe["ids"][row]]
    if differ:
        raise UserError(
            f"{shown}: probe text {differ[0]} gives other token ids than at export: cleaning or tokenizer differ;"
            " export the model again"
        )
    inference.check_logits(package.logits_of(encoded), probe["logits"], shown=shown)

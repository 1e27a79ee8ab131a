"""What pydantic cannot see: does the spec fit the files on disk and the model's config.json, and do the sweep's paths exist?
Takes a JobSpec; gives nothing or one SpecError. Called by `load_spec`, so it must stay fast: reads config.json, never
transformers. What `catalog:` names is checked here once it has been fetched (`fetched`), and by name before."""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import reading
from jobs.spec import JobSpec, all_paths, is_local, split_path
from models import entities
from models.config import METRICS
from models.config.origins import FAMILIES, OriginConfig
from models.families import ModelError, cut_config, depth_names, new_config, unadaptable, unfit, unmemorable, unpoolable
from models.scratch import Shapes, encoder_config, encoder_of
from orchestration.data.catalog import entries, fetched
from orchestration.data.config import FORMATS, op_inputs
from orchestration.errors import SpecError, UserError
from orchestration.tuning.config import Domain
from orchestration.weights import model_files, tokenizer_files, vocabulary_fits

SEARCHABLE = ("train.", "model.dropout")


def check(spec: JobSpec, origin: str) -> None:
    """Raises SpecError with one line for each thing that is wrong."""
    wrong: list[str] = []
    _inputs(spec, wrong)
    _storage(spec, wrong)
    _model(spec, wrong)
    _metrics(spec, wrong)
    _combinations(spec, wrong)
    _data(spec, wrong)
    if not wrong:
        _sweep(spec, wrong)
    if wrong:
        raise SpecError("\n".join(f"{origin}: {line}" for line in wrong))


def _inputs(spec: JobSpec, wrong: list[str]) -> None:
    for i, source in enumerate(spec.data.sources):
        key = f"data.sources[{i}].path"
        if source.path.startswith("catalog:"):
            _catalogue(source.path, key, "corpus", wrong)
        elif is_local(source.path):
            _local_source(source.path, source.format, key, wrong)
        else:
            _url(source.path, key, wrong)
    for key, reference, kind in op_inputs(spec.data):
        if reference.startswith("catalog:"):
            _catalogue(reference, key, kind, wrong)
        elif is_local(reference) and not Path(reference).exists():
            what = {
                "thesaurus": "a folder of WordNet database files, a .tsv file of synonyms",
                "graph": "a file of triples",
            }.get(kind, "a JSON file")
            wrong.append(f"{key}={reference}: no such file or folder; give {what}, or a {kind} of the catalogue")


def _local_source(path: str, form: str, key: str, wrong: list[str]) -> None:
    matches = [Path(path)] if Path(path).exists() else [Path(p) for p in glob.iglob(path, recursive=True)]
    if not matches:
        folder = Path(path).parent
        near = difflib.get_close_matches(
            Path(path).name, [p.name for p in folder.iterdir()] if folder.is_dir() else [], n=1
        )
        wrong.append(
            f"{key}={path}: no such file, folder or glob match" + (f"; nearest: {folder / near[0]}" if near else "")
        )
    elif form == "auto" and matches[0].is_file() and matches[0].suffix.lower() not in FORMATS:
        wrong.append(
            f"{key}={path}: the format of {matches[0].name!r} is not known by its ending; endings: {', '.join(FORMATS)}; or set format: text, jsonl, csv, parquet or datasets"
        )


def _catalogue(ref: str, key: str, kind: str, wrong: list[str], *others: str) -> None:
    """`others`: kinds that do as well."""
    kinds = (kind, *others)
    name, known = ref.removeprefix("catalog:").partition("/")[0], entries()
    if name in known and known[name].kind in kinds:
        return
    names = [entry for entry, what in known.items() if what.kind in kinds]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    wrong.append(
        f"{key}={ref}: not a {' or '.join(kinds)} of the catalogue"
        + (f"; nearest: catalog:{near[0]}" if near else "")
        + f"; allowed: {', '.join('catalog:' + n for n in names)}"
    )


def _url(url: str, key: str, wrong: list[str]) -> None:
    protocol = url.partition(":")[0]
    if protocol == "storage":
        return
    import fsspec

    known = fsspec.available_protocols()
    if protocol not in known:
        near = difflib.get_close_matches(protocol, known, n=1)
        wrong.append(
            f"{key}={url}: unknown protocol {protocol!r}"
            + (f"; nearest: {near[0]}://" if near else "")
            + "; for example s3://, gs://, file://"
        )


def _storage(spec: JobSpec, wrong: list[str]) -> None:
    if "://" in spec.storage:
        _url(spec.storage, "storage", wrong)
        if spec.tracking is None and not spec.storage.startswith(("file://", "local://")):
            wrong.append(
                f"tracking: required where storage={spec.storage} is not a folder; give an MLflow server or database URI"
            )
        return
    path = Path(spec.storage).expanduser()
    if path.exists() and not path.is_dir():
        wrong.append(f"storage={spec.storage}: is a file; give a folder or an fsspec URL")


def _model(spec: JobSpec, wrong: list[str]) -> None:
    config = model_config(spec, wrong)
    if config is None:
        return
    if spec.model.share_layers is not None:
        config = {**config, "share_layers": spec.model.share_layers}
    try:
        groups = depth_names(config, spec.model.task)
    except ModelError as error:
        wrong.append(f"model.{spec.model.folder_key}={spec.model.folder}: {error}")
        return
    if why := unfit(config.get("model_type"), spec.model.task):
        wrong.append(why)
    if why := unpoolable(config.get("model_type"), spec.model.pooling):
        wrong.append(why)
    if spec.model.memory is not None and (why := unmemorable(config.get("model_type"), spec.model.recalls)):
        wrong.append(why)
    adapter = spec.model.adapter
    if adapter is not None and (why := unadaptable(config.get("model_type"), adapter.kind)):
        wrong.append(why)
    if adapter is not None and adapter.kind == "prompt" and spec.train.layers.freeze:
        wrong.append(
            f"train.layers.freeze={spec.train.layers.freeze} freezes the embeddings, and the prompt of model.adapter is one; set freeze to 0"
        )
    freeze, name = spec.train.layers.freeze, spec.model.path or f"model.family={spec.model.family}"
    if groups is not None and freeze >= len(groups):
        shown = f"{groups[0]}, {groups[1]} ... {groups[-1]}"
        what = (
            "nothing would be left to train" if freeze == len(groups) else f"it has {len(groups)} depth groups: {shown}"
        )
        wrong.append(
            f"train.layers.freeze={freeze}, but {name} has {len(groups)} depth groups: {shown}; allowed: 0 to {len(groups) - 1}"
            + (f" ({what})" if freeze == len(groups) else "")
        )
    _positions(spec, config, name, wrong)


def _positions(spec: JobSpec, config: dict[str, Any], name: str, wrong: list[str]) -> None:
    """Texts are no longer than the encoder has places."""
    longest, written = config.get("max_position_embeddings"), spec.data.tokenize.target_length
    if isinstance(longest, int) and written is not None and written > longest:
        wrong.append(
            f"data.tokenize.target_length={written}, but {name} has {longest} positions; allowed: 2 to {longest}"
        )
    if isinstance(longest, int) and spec.data.tokenize.max_length > longest:
        wrong.append(
            f"data.tokenize.max_length={spec.data.tokenize.max_length}, but {name} has {longest} positions; allowed: 2 to {longest}"
        )


def model_config(spec: JobSpec, wrong: list[str]) -> dict[str, Any] | None:
    """The parsed config.json of `model.path`, or that of a model from scratch; None where it lies elsewhere or was not fetched yet."""
    if spec.model.towers is None:
        config = _config_of(spec.model, "model", spec.model.reads, spec.shapes, wrong)
        if config:
            reading.pairs(spec, config, wrong)
        return config
    for name, tower in spec.model.towers.items():
        config = _config_of(tower, f"model.towers.{name}", (name,), spec.shapes, wrong)
        if name == "text" and config and (why := unfit(config.get("model_type"), spec.model.task)):
            wrong.append(f"model.towers.text: {why}")
        if name == "text" and config and tower.path is not None:
            _positions(spec, config, f"model.towers.text.path={tower.path}", wrong)
    _towers(spec, wrong)
    return None


def _towers(spec: JobSpec, wrong: list[str]) -> None:
    """Rates and depths are named by tower."""
    towers = spec.model.towers or {}
    for name in spec.train.layers.towers:
        if name not in towers:
            wrong.append(f"train.layers.towers.{name}: model.towers has {', '.join(towers)}")


def _config_of(
    origin: OriginConfig, key: str, reads: Sequence[str], shapes: Shapes, wrong: list[str]
) -> dict[str, Any] | None:
    """Of one encoder. `key`: the spec's part that it comes from."""
    path, shown = origin.folder, f"{key}.{origin.folder_key}"
    folder: Path | None = Path(path)
    if path.startswith("catalog:"):
        before = len(wrong)
        _catalogue(path, shown, "model", wrong, *(["tokenizer"] if shown.endswith("tokenizer") else []))
        folder = fetched(path) if len(wrong) == before else None
    elif not is_local(path):
        if path:
            _url(path, shown, wrong)
        folder = None
    try:
        if origin.family is not None and FAMILIES[origin.family] != "text":
            return encoder_config(origin.family, origin.numbers, shapes)
        if origin.family is not None:
            if folder is not None:
                tokenizer_files(folder, shown=path)
            return new_config(origin.family, origin.numbers, vocab=1, positions=shapes.positions, special={})
        if folder is None:
            return None
        model_files(folder, shown=path, reads=reads, key=shown)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if layers := getattr(origin, "layers_from", None):
            config = cut_config(config, layers)
        if "text" in reads and (why := vocabulary_fits(folder, encoder_of(config, "text"))):
            wrong.append(f"{shown}={path}: {why}")
    except (UserError, ModelError) as error:
        wrong.append(str(error))
        return None
    except ValueError as error:
        wrong.append(f"{key}.path={path}: config.json is not valid JSON ({error})")
        return None
    return reading.fits(config, key, path, reads, shapes, wrong)


def _metrics(spec: JobSpec, wrong: list[str]) -> None:
    """What decides is something that the task measures."""
    asked = {"train.validation.metric": spec.train.validation.metric, "tune.metric": spec.tune and spec.tune.metric}
    allowed = METRICS[spec.model.task]
    if spec.model.task == "tagging" and entities.types(spec.data.tags):
        allowed = (*allowed, "entity_f1")
    for key, metric in asked.items():
        if metric is not None and metric not in allowed:
            wrong.append(
                f"{key}={metric}: model.task={spec.model.task} has no such metric; allowed: {', '.join(allowed)}"
            )


def _data(spec: JobSpec, wrong: list[str]) -> None:
    """Parts of `data` that go by what is installed, or that other parts of the spec must fit."""
    data, train = spec.data, spec.train
    if "text" not in spec.model.reads:
        for i, source in enumerate(data.sources):
            for part in sorted({key.partition(".")[0] for key in source.targets} & {"pair", "target", "tags", "span"}):
                wrong.append(f"data.sources[{i}].{part}: it goes with the text's tokens, and the model reads no text")
    if data.clean.language is not None:
        from orchestration.data.language import known

        _known("data.clean.language.keep", data.clean.language.keep, known(), wrong)
    if data.clean.code is not None and data.clean.code.languages:
        from orchestration.data.code import known

        _known("data.clean.code.languages", data.clean.code.languages, known(), wrong)
    folds = data.split.folds
    if train.fold and train.fold >= (folds or 1):
        allowed = f"0 to {folds - 1}" if folds else "0, or set data.split.folds"
        wrong.append(f"train.fold={train.fold}, but data.split.folds={folds}; allowed: {allowed}")
    if train.micro_tokens is not None and train.micro_tokens < data.tokenize.max_length:
        wrong.append(
            f"train.micro_tokens={train.micro_tokens} is less than one row of data.tokenize.max_length={data.tokenize.max_length}"
            " tokens; raise it, or lower max_length"
        )
    if data.stream is not None and train.rows is not None:
        wrong.append(
            "train.rows takes a part of the training split, whose size a stream does not know; leave one of the two out"
        )


def _known(key: str, names: list[str], known: list[str], wrong: list[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            nearest = f"; nearest: {near[0]}" if near else ""
            wrong.append(
                f"{key}: {name!r} is no language that can be told{nearest}; allowed: {', '.join(sorted(known))}"
            )


def _combinations(spec: JobSpec, wrong: list[str]) -> None:
    train, workers = spec.train, spec.cluster.most_workers
    if train.batch < workers:
        key = "cluster.workers" if isinstance(spec.cluster.workers, int) else "cluster.workers.max"
        wrong.append(
            f"train.batch={train.batch} rows a step cannot be divided among {key}={workers}; allowed: batch of at least {workers}, or fewer workers"
        )
    if spec.data.split.validation == 0 and not spec.data.split.folds:
        if train.early_stopping:
            wrong.append(
                "train.early_stopping needs validation rows, but data.split.validation=0; set it above 0 or remove early_stopping"
            )
        if spec.tune:
            wrong.append(
                "tune scores its trials on validation rows, but data.split.validation=0; set it above 0 or remove tune"
            )
    if spec.tune and spec.tune.workers > 1 and train.batch < spec.tune.workers:
        wrong.append(f"train.batch={train.batch} rows a step cannot be divided among tune.workers={spec.tune.workers}")


def _sweep(spec: JobSpec, wrong: list[str]) -> None:
    """Each searched or fixed path exists, is searchable, and both ends of its domain make a valid spec."""
    if spec.tune is None:
        return
    for path in (*spec.tune.space, *spec.tune.fixed):
        part = "tune.space" if path in spec.tune.space else "tune.fixed"
        known = all_paths()
        if ".".join(split_path(path)) not in known:
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
            wrong.append(f"{part}: {path} is not a key of the spec" + (f"; nearest: {near[0]}" if near else ""))
        elif not path.startswith(SEARCHABLE):
            wrong.append(
                f"{part}: {path} cannot be changed by a trial, which shares the sweep's token store; allowed: paths under train., and model.dropout"
            )
        if path in spec.tune.space and path in spec.tune.fixed:
            wrong.append(f"tune.fixed: {path} is in tune.space too; keep one")
    if wrong:
        return
    for path, domain in spec.tune.space.items():
        for value in _ends(domain):
            _try(spec, {path: value}, f"tune.space.{path}", wrong)
    _try(spec, spec.tune.fixed, "tune.fixed", wrong)


def _ends(domain: Domain) -> list[Any]:
    if domain.choice is not None:
        return list(domain.choice)
    if domain.randint is not None:
        return [domain.randint[0], domain.randint[1] - 1]
    return list(domain.uniform or domain.loguniform or [])


def _try(spec: JobSpec, values: dict[str, Any], part: str, wrong: list[str]) -> None:
    """Would a trial with these values be a valid spec?"""
    found: list[str] = []
    try:
        changed = spec.override({**values, "tune": None})
        _model(changed, found)
        _combinations(changed, found)
    except SpecError as error:
        found.append(str(error).partition(": ")[2])
    wrong += [f"{part}: {line}" for line in found]

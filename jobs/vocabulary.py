"""A tokenizer of the spec's cleaned texts: `eagleray data tokenizer SPEC` trains one and says how well it fits, and a spec may ask for one
(`model.tokenizer: {train: ...}`), which `named` puts in place before anything else is made. Thin: streams the rows, puts the tokenizer into storage under its content address."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from jobs.context import Job, open_job
from jobs.spec import JobSpec
from models.config import ModelConfig
from models.config.origins import VocabularyConfig
from orchestration.errors import UserError

VERSION = 2  # rises when the same texts give another tokenizer
READ = ("sources", "labels", "heads", "tags", "clean")  # parts of `data` that say which texts there are


def run(spec: JobSpec, *, kind: Any, size: int, lowercase: bool = False, json_lines: bool = False) -> None:
    """Raises UserError for an unknown kind, a size that is too small, and what reading the sources raises."""
    from orchestration.data import vocabulary

    if kind not in vocabulary.SPECIAL:
        raise UserError(f"--kind {kind}: allowed are {', '.join(vocabulary.SPECIAL)}")
    job = open_job(spec, json_lines=json_lines)
    rel, found = trained(job, VocabularyConfig(train=kind, size=size, lowercase=lowercase))
    job.console.close()
    if json_lines:
        print(json.dumps({"type": "tokenizer", "rel": rel, **found}, ensure_ascii=False))
    else:
        _show(found, job.storage.path(rel))


def named(job: Job, *, found_only: bool = False) -> ModelConfig:
    """The spec's model with the tokenizers that it asks for trained, or found in storage, and named. Raises UserError with `found_only`
    where one would have to be trained."""
    model = job.spec.model
    changed = {
        key: {"tokenizer": f"storage:{trained(job, part.tokenizer, found_only=found_only)[0]}"}
        for key, part in model.parts.items()
        if isinstance(part.tokenizer, VocabularyConfig)
    }
    if not changed:
        return model
    if model.towers is None:
        return model.model_copy(update=changed["model"])
    towers = {
        name: part.model_copy(update=changed.get(f"model.towers.{name}", {})) for name, part in model.towers.items()
    }
    return model.model_copy(update={"towers": towers})


def trained(job: Job, asked: VocabularyConfig, *, found_only: bool = False) -> tuple[str, dict[str, Any]]:
    """Its name in storage and its report; trained where the same texts, cleaned alike, were not before."""
    from orchestration.data import vocabulary
    from orchestration.data.prepare import content_spec
    from orchestration.data.scan import scan
    from orchestration.storage import digest

    data = job.spec.data
    files, units = scan(data, job.storage)
    special = list(data.tokenize.fim.tokens) if data.tokenize.fim else []
    made_of = {
        "version": VERSION,
        "asked": [asked.train, asked.size, asked.lowercase, special],
        "read": {key: value for key, value in content_spec(data).items() if key in READ},
        "inputs": [[file.source, file.rel, file.sha256] for file in files],
    }
    rel = f"tokenizers/{digest(made_of)}"
    manifest = job.storage.manifest(rel)
    if manifest is None and found_only:
        raise UserError(
            "model.tokenizer.train: it is not trained yet; `eagleray prepare` with this spec does it, then come back"
        )
    if manifest is None:
        aside = job.storage.staging()
        with job.console.stage("tokenizer"):
            found = vocabulary.train(
                _texts(job, units),
                kind=asked.train,
                size=asked.size,
                lowercase=asked.lowercase,
                special=special,
                folder=aside,
            )
        manifest = job.storage.commit(rel, aside, {"made_of": made_of, "report": dataclasses.asdict(found)})
    return rel, manifest.meta["report"]


def _texts(job: Job, units: list[Any]) -> Iterator[str]:
    """Every cleaned text once, in the order of units."""
    from orchestration.data.sources import read_rows

    data = job.spec.data
    seen: set[bytes] = set()
    for done, unit in enumerate(units, start=1):
        rows = read_rows(unit, data.sources[unit.source], data)
        more = [rows.targets[name] for name in ("pair", "target") if name in rows.targets]
        for content, *texts in zip(rows.text_hashes, rows.texts, *more, strict=True):
            if not (data.clean.drop_duplicates and content in seen):
                seen.add(content)
                yield from filter(None, texts)
        job.console.progress(done, len(units), unit="shards (read)")


def _show(report: dict[str, Any], path: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=f"tokenizer of {report['vocabulary']:,} tokens", title_justify="left")
    rows = {
        "texts": f"{report['texts']:,}, {report['words']:,} words, {report['characters']:,} characters",
        "tokens": f"{report['tokens']:,}",
        "fertility": f"{report['fertility']:.3f} tokens a word, {report['tokens_per_character']:.3f} a character",
        "unknown": f"{100 * report['unknown_share']:.4f}% of tokens",
        "used": f"{100 * report['used_share']:.1f}% of the vocabulary",
        "longest": "  ".join(repr(token) for token in report["longest"]),
    }
    rows |= {f"example {i}": "|".join(tokens) for i, tokens in enumerate(report["examples"], start=1)}
    for key, value in rows.items():
        table.add_row(key, value)
    Console().print(table)
    print(f"tokenizer: {path}")

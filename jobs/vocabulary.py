"""`eagleray data tokenizer SPEC`: train a tokenizer on the spec's cleaned texts and say how well it fits. Thin: streams the rows,
puts the tokenizer into storage under its content address, prints the report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from jobs.context import Job, open_job
from jobs.spec import JobSpec

VERSION = 1  # rises when the same texts give another tokenizer


def run(spec: JobSpec, *, kind: Any, size: int, lowercase: bool = False, json_lines: bool = False) -> None:
    """Raises UserError for an unknown kind, a size that is too small, and what reading the sources raises."""
    from orchestration.data import vocabulary
    from orchestration.data.scan import scan
    from orchestration.errors import UserError
    from orchestration.storage import digest

    if kind not in vocabulary.SPECIAL:
        raise UserError(f"--kind {kind}: allowed are {', '.join(vocabulary.SPECIAL)}")
    job = open_job(spec, json_lines=json_lines)
    files, units = scan(spec.data, job.storage)
    special = list(spec.data.tokenize.fim.tokens) if spec.data.tokenize.fim else []
    made_of = {
        "version": VERSION,
        "asked": [kind, size, lowercase, special],
        "clean": spec.data.clean.model_dump(mode="json"),
        "inputs": [[file.source, file.rel, file.sha256] for file in files],
    }
    rel = f"tokenizers/{digest(made_of)}"
    manifest = job.storage.manifest(rel)
    if manifest is None:
        aside = job.storage.staging()
        with job.console.stage("tokenizer"):
            texts = _texts(job, units)
            found = vocabulary.train(
                texts,
                kind=kind,
                size=size,
                lowercase=lowercase,
                special=special,
                folder=aside,
            )
        manifest = job.storage.commit(rel, aside, {"made_of": made_of, "report": dataclasses.asdict(found)})
    job.console.close()
    if json_lines:
        print(json.dumps({"type": "tokenizer", "rel": rel, **manifest.meta["report"]}, ensure_ascii=False))
    else:
        _show(manifest.meta["report"], job.storage.path(rel))


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

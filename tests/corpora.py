"""What tests of `prepare` start from and compare: real texts in files, a storage with a real tokenizer, stores byte for byte and entry
by entry. Shards are read with Arrow alone, so that an error in the product's reader cannot hide one in its writer."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.data.catalog import local
from orchestration.data.prepare import Prepared
from orchestration.storage import Storage

WEIGHTS = "weights/tokenizer"
RULES = {"negative": "< 0", "positive": "> 0"}
LABELS = ["negative", "positive"]


def tokenizer_storage(url: Path | str, minilm: Path) -> Storage:
    """A storage with a model folder, of which `prepare` reads the tokenizer files alone."""
    storage = Storage(str(url))
    aside = storage.staging()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(minilm / name, aside / name)
    storage.commit(WEIGHTS, aside, {})
    return storage


def scored(count: int, *, step: int = 39, words: int = 0) -> list[dict[str, Any]]:
    """Human-scored English texts {text, score} of at least so many words, spread over news, films, tweets and products."""
    rows = pq.read_table(local("catalog:vader-sentiment"), columns=["text", "score"]).to_pylist()
    return [row for row in rows[::step] if len(row["text"].split()) >= words][:count]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def source(path: Path | str, name: str = "scores", **more: Any) -> dict[str, Any]:
    return {"name": name, "path": str(path), "label": {"column": "score", "rules": RULES}, **more}


def run_here(
    phase: str, function: Any, items: list[dict[str, Any]], *, work: Any, **rest: Any
) -> Iterator[dict[str, Any]]:
    """In place of `prepare.run_pass`: the same passes in this process, results in another order than the units'."""
    for item in items if rest.get("in_order") else reversed(items):
        found = function(item, work)
        assert not found["error"], found["error"]
        yield found


def store_bytes(storage: Storage, made: Prepared) -> dict[str, str]:
    """sha256 of every file of the store, its manifest too."""
    folder = Path(storage.path(made.rel))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def entries(storage: Storage, made: Prepared, split: str) -> list[dict[str, Any]]:
    """All entries of a split, a dict of columns each, in the order of shards."""
    folder = Path(storage.path(made.rel))
    shards = storage.read_json(f"{made.rel}/manifest.json")["meta"]["splits"][split]["shards"]
    return [row for shard in shards for row in pa.ipc.open_file(str(folder / shard)).read_all().to_pylist()]

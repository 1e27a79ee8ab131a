"""The stage's functions on an object store. Its memory lives in one process, so the passes run here, without Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.store import TokenStore
from orchestration.storage import Storage


def _run_here(
    phase: str, function: Any, items: list[dict[str, Any]], *, work: Any, **rest: Any
) -> Iterator[dict[str, Any]]:
    for item in reversed(items):  # results may come in any order
        yield function(item, work)


def _storage(url: str, minilm: Path) -> Storage:
    storage = Storage(url)
    aside = storage.staging()
    shutil.copyfile(minilm / "tokenizer.json", aside / "tokenizer.json")
    storage.commit("weights/w", aside, {})
    return storage


def test_input_and_store_on_an_object_store_are_those_on_a_disk(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stage, "run_pass", _run_here)
    lines = "".join(json.dumps({"text": f"text number {i}", "label": "ab"[i % 2]}) + "\n" for i in range(100))
    fsspec.filesystem("memory").pipe_file("/corpus/part/a.jsonl", lines.encode())
    (tmp_path / "corpus" / "part").mkdir(parents=True)
    (tmp_path / "corpus" / "part" / "a.jsonl").write_text(lines)
    found = []
    for path, url in ((str(tmp_path / "corpus"), str(tmp_path / "storage")), ("memory://corpus", "memory://storage")):
        source = {"name": "s", "path": path, "label": {"column": "label"}}
        config = DataConfig.model_validate({"sources": [source], "labels": ["a", "b"], "shard_rows": 32})
        storage = _storage(url, minilm)
        made = stage.prepare(config, weights_rel="weights/w", seed=1, storage=storage)
        again = stage.prepare(config, weights_rel="weights/w", seed=1, storage=storage)
        assert (made.reused, again.reused) == (False, True)
        train = TokenStore.open(storage, made.rel).split("train")
        files = storage.verify(made.rel).files
        found.append((made.rel, files, train.row_ids, np.concatenate(train.input_ids(range(len(train)))).tolist()))
    assert found[0] == found[1]

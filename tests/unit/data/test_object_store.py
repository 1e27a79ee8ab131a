"""The stage's functions on object stores: fsspec's memory and an S3-compatible server on this machine. The passes run here, without
Ray: the memory store lives in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.files import open_binary
from orchestration.data.store import TokenStore
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage
from tests.corpora import LABELS, WEIGHTS, lines, run_here, scored, source, tokenizer_storage

FILES = ("part/a.jsonl", "part/b.jsonl", "c.jsonl")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rows = tmp_path_factory.mktemp("objects") / "corpus", scored(200)
    for number, name in enumerate(FILES):
        lines(root / name, rows[number * 60 : number * 60 + 70])  # ten rows of a file are in the next, too
    return root


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stage, "run_pass", run_here)


def _config(url: Path | str) -> DataConfig:
    values = {
        "sources": [source(url)],
        "labels": LABELS,
        "clean": {"near_duplicates": {}},
        "tokenize": {"max_length": 24, "long": "windows"},
        "augment": {"ops": [{"op": "swap"}]},
        "shard_rows": 32,
    }
    return DataConfig.model_validate(values)


def _prepared(config: DataConfig, storage: Storage) -> tuple[Any, ...]:
    """What a store holds: its name, the sha256 of each file, and what a reader makes of them."""
    made = stage.prepare(config, weights_rel=WEIGHTS, seed=1, storage=storage)
    again = stage.prepare(config, weights_rel=WEIGHTS, seed=1, storage=storage)
    assert (made.reused, again.reused) == (False, True)
    train = TokenStore.open(storage, made.rel).split("train")
    files = storage.verify(made.rel).files
    names = set(storage.list(made.rel))
    assert names == {*files, "manifest.json"}  # no note of a unit is left
    return made.rel, files, train.row_ids, np.concatenate(train.input_ids(range(len(train)))).tolist()


@pytest.fixture
def local(corpus: Path, minilm: Path, tmp_path: Path) -> tuple[Any, ...]:
    return _prepared(_config(corpus), tokenizer_storage(tmp_path / "local", minilm))


@pytest.mark.parametrize(
    ("kind", "form"), [("memory", "{}"), ("memory", "{}/**/*.jsonl"), ("s3", "{}/"), ("s3", "{}/**/*.jsonl")]
)
def test_input_and_store_on_an_object_store_are_those_on_a_disk(
    kind: str, form: str, local: tuple[Any, ...], corpus: Path, minilm: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue("s3") if kind == "s3" else "memory://bucket"
    mark = f"{kind}-{len(form)}"
    url = f"{root}/{mark}/corpus"
    fs, key = fsspec.core.url_to_fs(url)
    for name in reversed(FILES):
        fs.pipe_file(f"{key}/{name}", (corpus / name).read_bytes())
    found = _prepared(_config(form.format(url)), tokenizer_storage(f"{root}/{mark}/storage", minilm))
    assert found == local


def test_an_interrupted_prepare_on_an_object_store_keeps_whole_units_and_gives_the_same_bytes(
    s3: str, local: tuple[Any, ...], corpus: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tokenizer_storage(f"{s3}/interrupted", minilm)
    written: list[str] = []
    put = Storage.put

    def fails_at_the_fifth(self: Storage, rel: str, local: Path) -> None:
        if len(written) == 4:
            raise ConnectionError("the network is gone")
        written.append(rel)
        put(self, rel, local)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", fails_at_the_fifth)
        with pytest.raises(ConnectionError):
            stage.prepare(_config(corpus), weights_rel=WEIGHTS, seed=1, storage=storage)
    assert storage.manifest(local[0]) is None
    kept = {name for name in storage.list(local[0]) if name.startswith("unit-")}
    assert kept
    assert _prepared(_config(corpus), storage) == local


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("hf://datasets/somebody/something/rows.jsonl", "cannot be listed: ConnectError"),
        ("hf://datasets/somebody/something", "cannot be listed: ConnectError"),
        ("s3://no-such-bucket/rows.jsonl", "cannot be listed: FileNotFoundError"),
        ("nothing://rows.jsonl", "cannot be listed: ValueError: Protocol not known: nothing"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence_with_the_url(
    s3: str, url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    config = DataConfig.model_validate({"sources": [{"name": "s", "path": url}]})
    for action, kind in (
        (lambda: stage.make_plan(config, weights_rel=WEIGHTS, seed=1, storage=Storage(str(tmp_path))), UserError),
        (lambda: open_binary(url), DataError),
    ):
        with pytest.raises(kind) as caught:
            action()
        message = str(caught.value)
        assert message.startswith(f"{url}: cannot be ")
        assert len(message.splitlines()) == 1
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        stage.make_plan(config, weights_rel=WEIGHTS, seed=1, storage=Storage(str(tmp_path)))

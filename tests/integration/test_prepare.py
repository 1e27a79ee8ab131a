"""The stage `prepare` on a live Ray: real texts in, a sealed store out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data import prepare as stage
from orchestration.data.clean import match_text
from orchestration.data.config import DataConfig
from orchestration.data.prepare import STAGE_VERSION, Prepared, prepare
from orchestration.data.store import SPLITS, TokenStore
from orchestration.errors import DataError
from orchestration.storage import Storage
from tests.corpora import LABELS, WEIGHTS, scored, source, tokenizer_storage

GOLDEN = Path(__file__).parent.parent / "golden" / "store.json"
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def new_storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Storage]:
    return lambda: tokenizer_storage(tmp_path_factory.mktemp("storage"), minilm)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 human-scored texts as JSON lines, 20 of them twice (in capitals), one line cut off."""
    table = scored(600)
    rows = [*table, *({**row, "text": row["text"].upper() + " "} for row in table[:20])]
    path = tmp_path_factory.mktemp("corpus") / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": "cut\n', encoding="utf-8")
    return path


def _config(path: Path | str, **more: Any) -> DataConfig:
    values = {
        "sources": [source(path)],
        "labels": LABELS,
        "split": {"validation": 0.2, "test": 0.2},
        "augment": {"copies": 2, "ops": [{"op": "synonyms", "rate": 0.3}]},
        "shard_rows": 100,
    }
    return DataConfig.model_validate({**values, **more})


def _prepare(config: DataConfig, storage: Storage, **more: Any) -> Prepared:
    return prepare(config, **{"weights_rel": WEIGHTS, "seed": 5, "storage": storage, **more})


def _rows(store: TokenStore, name: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    """(row id, copy) -> token ids, label, text."""
    split = store.split(name)
    every = range(len(split))
    values = zip(map(np.ndarray.tolist, split.input_ids(every)), split.labels.tolist(), split.texts(every), strict=True)
    return dict(zip(zip(split.row_ids, split.copies.tolist(), strict=True), values, strict=True))


@pytest.fixture(scope="module")
def first(corpus: Path, new_storage: Callable[[], Storage]) -> tuple[Storage, Prepared]:
    storage = new_storage()
    return storage, _prepare(_config(corpus), storage, workers=2)


def test_every_row_is_in_one_split_or_has_a_reason_why_not(first: tuple[Storage, Prepared]) -> None:
    report = first[1].report
    kept = sum(split["rows"] for split in report["splits"].values())
    assert report["rows_in"] == 621 == kept + sum(left["count"] for left in report["left"].values())
    assert report["left"]["not valid JSON"]["count"] == 1
    assert report["left"]["not valid JSON"]["examples"][0].endswith("scores.jsonl row 621")
    assert report["left"]["duplicate of a row that stays"]["count"] >= 18  # of 20: some may have the score 0
    for name, split in report["splits"].items():
        assert sum(split["classes"].values()) == split["rows"]
        assert (split["copies"] > 0) == (name == "train")  # copies are of training rows alone


def test_store_holds_what_the_report_says_and_no_text_is_in_two_splits(first: tuple[Storage, Prepared]) -> None:
    storage, made = first
    store = TokenStore.open(storage, made.rel)
    texts = {}
    for name in SPLITS:
        split, said = store.split(name), made.report["splits"][name]
        assert len(split) == said["rows"] + said["copies"]
        assert int(split.lengths.sum()) == said["tokens"]["total"]
        assert int(split.lengths.max()) == said["tokens"]["max"]
        originals = np.flatnonzero(split.copies == 0)
        assert np.bincount(split.labels[originals], minlength=2).tolist() == list(said["classes"].values())
        texts[name] = {match_text(text) for text in split.texts(originals)}
        assert len(texts[name]) == said["rows"]
        assert [len(ids) for ids in split.input_ids(range(len(split)))] == split.lengths.tolist()
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    storage.verify(made.rel)


def test_first_rows_of_the_training_split_are_a_mixture_of_the_file(first: tuple[Storage, Prepared]) -> None:
    storage, made = first
    train = TokenStore.open(storage, made.rel).split("train")
    head = train.head(100)
    place = {row_id: i for i, row_id in enumerate(_file_order(storage, made))}
    places = [place[row_id] for row_id in dict.fromkeys(head.row_ids)]
    assert len(places) == 100
    assert abs(np.mean(places) / len(place) - 0.5) < 0.1
    assert places != sorted(places)


def _file_order(storage: Storage, made: Prepared) -> list[str]:
    """Row ids of the training split as the shards hold them: in the order of the file."""
    import pyarrow as pa

    folder = Path(storage.path(made.rel))
    shards = [pa.ipc.open_file(str(path)).read_all() for path in sorted(folder.glob("train-*.arrow"))]
    return list(dict.fromkeys(value.hex() for shard in shards for value in shard["row_id"].to_pylist()))


def test_second_prepare_reads_no_row_and_says_so(
    first: tuple[Storage, Prepared], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, made = first

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("rows are read again")

    monkeypatch.setattr(stage, "run_pass", refuse)
    again = _prepare(_config(corpus), storage)
    assert (made.reused, again.reused) == (False, True)
    assert {**again.report, "seconds": 0} == {**made.report, "seconds": 0}
    for part in ("left", "splits"):
        assert list(again.report[part]) == list(made.report[part])
    assert list(again.report["splits"]["test"]["classes"]) == ["negative", "positive"]
    found = stage.find(_config(corpus), weights_rel=WEIGHTS, seed=5, storage=storage)
    assert found is not None
    assert found.rel == made.rel
    assert stage.find(_config(corpus), weights_rel=WEIGHTS, seed=6, storage=storage) is None
    moved = corpus.parent / "elsewhere" / corpus.name
    moved.parent.mkdir()
    shutil.copyfile(corpus, moved)
    assert _prepare(_config(moved), storage).reused  # the address is of contents, not of places
    with pytest.raises(AssertionError, match="read again"):
        _prepare(_config(corpus), storage, seed=6)
    with pytest.raises(DataError, match="max_bad_rows allows 0"):
        _prepare(_config(corpus, max_bad_rows=0), storage)


def test_an_appended_row_changes_no_other_row(
    first: tuple[Storage, Prepared], corpus: Path, new_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    longer = tmp_path / corpus.name
    longer.write_text(corpus.read_text() + '{"text": "One more, and a good one", "score": 3}\n')
    storage = new_storage()
    before, after = (
        TokenStore.open(first[0], first[1].rel),
        TokenStore.open(storage, _prepare(_config(longer), storage).rel),
    )
    assert before.fingerprint != after.fingerprint
    added = 0
    for name in SPLITS:
        old, new = _rows(before, name), _rows(after, name)
        assert old.items() <= new.items()
        added += len({row_id for row_id, _ in new} - {row_id for row_id, _ in old})
    assert added == 1


def test_too_many_bad_rows_are_refused_with_file_and_row(new_storage: Callable[[], Storage], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine", "score": 1}\n' * 40 + '{"text": "x", "score": "high"}\n{broken\n')
    storage = new_storage()
    with pytest.raises(DataError) as caught:
        _prepare(_config(path, max_bad_rows=1), storage)
    message = str(caught.value)
    assert message.startswith("2 rows cannot be used, data.max_bad_rows allows 1")
    assert f"column 'score' is not a number: 1 (such as {path} row 41: 'high')" in message
    assert f"not valid JSON: 1 (such as {path} row 42)" in message
    assert not storage.list("stores")


def test_the_quickstart_corpus_gives_its_known_counts(new_storage: Callable[[], Storage]) -> None:
    storage = new_storage()
    config = _config("catalog:vader-sentiment", split={"validation": 1000, "test": 2000}, augment=None, shard_rows=8192)
    report = _prepare(config, storage).report
    assert report["rows_in"] == 23_703
    assert report["left"]["no label rule matches"]["count"] == 23_703 - 12_471 - 10_849
    assert {name: split["rows"] for name, split in report["splits"].items()} == {
        "train": 20_182,
        "validation": 1000,
        "test": 2000,
    }
    assert report["left"]["duplicate of a row that stays"]["count"] == 138


def test_golden_store_changes_only_with_the_stage_version(new_storage: Callable[[], Storage], tmp_path: Path) -> None:
    """If this fails, `prepare` gives other content than before for the same input: raise STAGE_VERSION, or old stores would
    be taken for new ones, and put the digest from the message into tests/golden/store.json."""
    path = tmp_path / "tiny.jsonl"
    texts = [
        "The movie was awful!",
        "I want to buy this camera tonight.",
        "Cafe\u0301 \ufb01lm",
        "the MOVIE  was awful!",
        "東京 is huge",
    ]
    rows = [{"text": f"{text} {'again ' * (i // 5)}", "score": 1 - 2 * (i % 2)} for i, text in enumerate(texts * 4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    storage = new_storage()
    made = _prepare(
        _config(path, split={"validation": 3, "test": 3}, shard_rows=16, tokenize={"max_length": 12}), storage
    )
    store = TokenStore.open(storage, made.rel)
    content = {name: [[*key, *value] for key, value in _rows(store, name).items()] for name in SPLITS}
    found = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    assert json.loads(GOLDEN.read_text()) == {"stage_version": STAGE_VERSION, "sha256": found}

"""The bytes of a store, with everything on that could depend on more than one row: two sources, copies of texts across files, near
duplicates, stratified folds, balanced classes, augmented copies, windows. Whatever happens on the way, they are the same."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.clean import match_text
from orchestration.data.config import DataConfig
from orchestration.data.prepare import Prepared, prepare
from orchestration.storage import MANIFEST, Storage
from tests.corpora import LABELS, WEIGHTS, entries, lines, scored, source, store_bytes, tokenizer_storage

NEAR = 12
pytestmark = pytest.mark.usefixtures("ray_session")
Made = tuple[Storage, Prepared]


@pytest.fixture(scope="module")
def new_storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Storage]:
    return lambda: tokenizer_storage(tmp_path_factory.mktemp("storage"), minilm)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four JSONL files in two folders and a CSV file: 450 real texts, twice as many above zero as below, 60 of them twice, and the
    12 longest with one word changed."""
    root = tmp_path_factory.mktemp("corpus")
    rows = [row for i, row in enumerate(scored(800, step=29)) if row["score"] > 0 or i % 2][:450]
    copies = [{**row, "text": row["text"].upper() + "  "} for row in rows[:60]]
    longest = sorted(rows[60:], key=lambda row: -len(row["text"]))[:NEAR]
    near = [{**row, "text": f"{row['text'].rpartition(' ')[0]} indeed"} for row in longest]
    lines(root / "texts" / "b.jsonl", rows[:200])
    lines(root / "texts" / "a.jsonl", copies[:30] + rows[200:300])
    lines(root / "texts" / "more" / "c.jsonl", near)
    lines(root / "texts" / "more" / "a.jsonl", copies[30:])
    with open(root / "table.csv", "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, ["text", "score"])
        table.writeheader()
        table.writerows(rows[300:])
    return root


def _config(root: Path) -> DataConfig:
    values = {
        "sources": [source(root / "texts", "texts"), source(root / "table.csv", "table")],
        "labels": LABELS,
        "clean": {"near_duplicates": {"threshold": 0.7}},
        "split": {"test": 0.2, "folds": 3, "stratify": True},
        "balance": "augment",
        "augment": {
            "ops": [{"op": "synonyms", "rate": 0.3}, {"op": "swap"}, {"op": "delete"}],
            "pick": "one",
            "filter": {},
        },
        "tokenize": {"max_length": 24, "long": "windows", "stride": 6},
        "shard_rows": 40,
    }
    return DataConfig.model_validate(values)


def _prepare(config: DataConfig, storage: Storage, **more: Any) -> Prepared:
    return prepare(config, **{"weights_rel": WEIGHTS, "seed": 5, "storage": storage, **more})


@pytest.fixture(scope="module")
def first(corpus: Path, new_storage: Callable[[], Storage]) -> Made:
    storage = new_storage()
    return storage, _prepare(_config(corpus), storage)


def test_everything_that_is_asked_for_happened(first: Made) -> None:
    """Or equal bytes would prove little."""
    storage, made = first
    report = made.report
    assert report["rows_in"] == 450 + 60 + NEAR
    left = {reason: found["count"] for reason, found in report["left"].items()}
    assert left["duplicate of a row that stays"] >= 50
    assert left["near duplicate of a row that stays"] >= NEAR // 2
    train = report["splits"]["train"]
    assert train["copies"] > 50
    assert train["entries"] > train["rows"] + train["copies"]
    assert {row["fold"] for row in entries(storage, made, "train")} == {0, 1, 2}
    assert {row["source"] for row in entries(storage, made, "test")} == {0, 1}


@pytest.mark.parametrize(("workers", "blocks"), [(1, 1), (2, 3), (4, 16)])
def test_bytes_depend_neither_on_workers_nor_on_blocks(
    first: Made, corpus: Path, new_storage: Callable[[], Storage], workers: int, blocks: int
) -> None:
    storage = new_storage()
    made = _prepare(_config(corpus), storage, workers=workers, blocks=blocks)
    assert not made.reused
    assert made.rel == first[1].rel
    assert store_bytes(storage, made) == store_bytes(*first)
    assert {**made.report, "seconds": 0} == {**first[1].report, "seconds": 0}


def test_bytes_depend_neither_on_the_order_of_files_nor_on_where_they_lie(
    first: Made, corpus: Path, new_storage: Callable[[], Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(file for file in corpus.rglob("*") if file.is_file())
    for file in reversed(files):
        target = tmp_path / "elsewhere" / file.relative_to(corpus)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter(sorted(listed(self, pattern), reverse=True)))
    storage = new_storage()
    made = _prepare(_config(tmp_path / "elsewhere"), storage)
    assert not made.reused
    found, wanted = store_bytes(storage, made), store_bytes(*first)
    assert {**found, MANIFEST: ""} == {**wanted, MANIFEST: ""}
    said = storage.read(f"{made.rel}/{MANIFEST}").decode()  # the examples of what left name files by their path
    assert said.replace(str(tmp_path / "elsewhere"), str(corpus)).encode() == first[0].read(f"{made.rel}/{MANIFEST}")


@pytest.mark.parametrize("phase", ["read", "write"])
def test_an_interrupted_prepare_goes_on_where_it_was_and_gives_the_same_bytes(
    first: Made, corpus: Path, new_storage: Callable[[], Storage], phase: str
) -> None:
    storage = new_storage()
    folder = Path(storage.path(first[1].rel))

    def stop_after_four(now: str, done: int, total: int) -> None:
        if (now, done) == (phase, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _prepare(_config(corpus), storage, workers=1, progress=stop_after_four)
    assert not (folder / MANIFEST).exists()
    before, damaged = {}, None
    if phase == "write":
        written = sorted(note.name[5:11] for note in folder.glob("unit-*.json"))
        assert len(written) >= 3
        kept = folder / f"train-{written[0]}.arrow"
        before, damaged = {kept: kept.stat().st_ino}, folder / f"train-{written[1]}.arrow"
        damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
        (folder / f"unit-{written[2]}.json").write_text('{"left": {}, "train": {"file"')  # a disk that was full
    made = _prepare(_config(corpus), storage)
    assert all(path.stat().st_ino == inode for path, inode in before.items())  # not written again
    assert store_bytes(storage, made) == store_bytes(*first)


def test_no_text_is_in_two_folds_or_splits_though_its_copies_lie_in_several_files(first: Made) -> None:
    storage, made = first
    home: dict[str, set[tuple[str, int]]] = {}
    for split in ("train", "test"):
        for row in entries(storage, made, split):
            if row["copy"] == 0:
                home.setdefault(match_text(row["text"]), set()).add((split, row["fold"]))
    assert set(map(len, home.values())) == {1}
    assert len(Counter(fold for places in home.values() for _, fold in places)) == 4  # three folds, and the test split


TARGETS: dict[str, dict[str, Any]] = {
    "answers": {
        "source": {"text": "question", "pair": "text", "span": {"text": "answer", "start": "start"}, "value": "score"},
        "spec": {"tokenize": {"max_length": 24}},
    },
    "tags": {
        "source": {"tags": "tags", "labels": {"long": {"column": "long"}}},
        "spec": {"tags": ["lower", "other"], "heads": {"long": ["no", "yes"]}},
    },
}


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_with_targets_depend_neither_on_workers_nor_on_blocks(
    name: str, new_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    rows = []
    for row in scored(300, step=31):
        words = row["text"].split()
        answer = words[len(words) // 2]
        more = {"question": f"Where is {answer}?", "answer": answer, "start": row["text"].index(answer)}
        more |= {"tags": ["lower" if word.islower() else "other" for word in words]}
        rows.append({**row, **more, "long": "yes" if len(words) > 12 else "no"})
    source, spec = TARGETS[name]["source"], TARGETS[name]["spec"]
    path = lines(tmp_path / "rows.jsonl", rows)
    values = {"sources": [{"name": "s", "path": str(path), **source}], "shard_rows": 40, **spec}
    made = []
    for workers, blocks in ((1, 1), (2, 3), (4, 16)):
        storage = new_storage()
        prepared = _prepare(DataConfig.model_validate(values), storage, workers=workers, blocks=blocks)
        assert not prepared.reused
        made.append((storage, prepared))
    assert made[0][1].report["splits"]["train"]["targets"]
    assert store_bytes(*made[0]) == store_bytes(*made[1]) == store_bytes(*made[2])

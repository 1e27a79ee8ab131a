"""What `prepare` makes of real rows: windows, packed entries, copies, folds and balanced classes, counted in the finished store. The
passes run in this process; the shards are read with Arrow alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.prepare import Prepared
from orchestration.data.store import SPLITS, TokenStore
from orchestration.data.tokenize import Tokenizer
from orchestration.storage import Storage
from tests.corpora import LABELS, WEIGHTS, entries, lines, run_here, scored, source, tokenizer_storage

Make = Callable[..., Prepared]


@pytest.fixture(scope="module")
def storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return tokenizer_storage(tmp_path_factory.mktemp("storage"), minilm)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 scored texts; each tenth is three of them in a row, so about 60 tokens long."""
    rows = scored(440, step=37)
    for number in range(0, 400, 10):
        rows[number]["text"] = " ".join(rows[(number + more) % 440]["text"] for more in (0, 401, 402))
    return lines(tmp_path_factory.mktemp("corpus") / "rows.jsonl", rows[:400])


@pytest.fixture
def make(storage: Storage, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(stage, "run_pass", run_here)

    def run(**more: Any) -> Prepared:
        values = {"sources": [source(corpus)], "labels": LABELS, "shard_rows": 64, **more}
        config = DataConfig.model_validate(values)
        return stage.prepare(config, weights_rel=WEIGHTS, seed=5, storage=storage)

    return run


def _unlabelled(corpus: Path) -> dict[str, Any]:
    return {"sources": [{"name": "scores", "path": str(corpus)}], "labels": []}


def _whole(storage: Storage, texts: list[str]) -> list[list[int]]:
    return Tokenizer(storage.fetch(WEIGHTS), 10_000).encode(texts)


# ---------------------------------------------------------------------------------------------- windows and packing


@pytest.mark.parametrize("stride", [0, 5])
def test_windows_of_a_long_row_cover_each_of_its_tokens_and_share_what_the_spec_says(
    make: Make, storage: Storage, corpus: Path, stride: int
) -> None:
    made = make(**_unlabelled(corpus), tokenize={"max_length": 16, "long": "windows", "stride": stride})
    longest = 0
    for name in SPLITS:
        rows: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
        for entry in entries(storage, made, name):
            rows[entry["row_id"]].append(entry)
        whole = _whole(storage, [parts[0]["text"] for parts in rows.values()])
        for parts, ids in zip(rows.values(), whole, strict=True):
            assert [part["part"] for part in parts] == list(range(len(parts)))
            assert all(len(part["input_ids"]) <= 16 for part in parts)
            first, last = ids[0], ids[-1]
            joined: list[int] = []
            for part in parts:
                assert (part["input_ids"][0], part["input_ids"][-1]) == (first, last)  # [CLS] and [SEP] of its own
                inside = part["input_ids"][1:-1]
                shared = stride if joined else 0
                assert joined[len(joined) - shared :] == inside[:shared]
                joined += inside[shared:]
            assert joined == ids[1:-1]
            longest = max(longest, len(parts))
        assert made.report["splits"][name]["truncated"] == 0
        assert made.report["splits"][name]["entries"] == sum(map(len, rows.values()))
    assert longest >= 5


def test_a_row_of_too_many_windows_is_named_by_file_and_number(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.data.tokenize.MAX_WINDOWS", 20)
    rows = scored(100)
    rows[77]["text"] = "far too long " * 60
    path = lines(tmp_path / "rows.jsonl", rows)
    copied = {"copies": 1, "ops": [{"op": "swap"}]}  # a text's place in its batch is no row's
    with pytest.raises(AssertionError, match=rf"^{path} row 78 makes \d+ windows, above 20; raise data\.tokenize"):
        make(sources=[source(path)], tokenize={"max_length": 6, "long": "windows"}, augment=copied)


def test_without_windows_long_rows_are_cut_and_counted(make: Make, storage: Storage) -> None:
    made = make(tokenize={"max_length": 16})
    for name in SPLITS:
        found = entries(storage, made, name)
        whole = _whole(storage, [entry["text"] for entry in found])
        assert made.report["splits"][name]["truncated"] == sum(len(ids) > 16 for ids in whole)
        for entry, ids in zip(found, whole, strict=True):
            assert entry["input_ids"] == (ids if len(ids) <= 16 else [*ids[:15], ids[-1]])


@pytest.mark.parametrize("long", ["truncate", "windows"])
def test_a_packed_store_holds_every_row_once_with_the_tokens_of_the_unpacked_one(
    make: Make, storage: Storage, corpus: Path, long: str
) -> None:
    plain = make(**_unlabelled(corpus), tokenize={"max_length": 64, "long": long})
    packed = make(**_unlabelled(corpus), tokenize={"max_length": 64, "long": long, "pack": True})
    for name in SPLITS:
        wanted = Counter((row["row_id"], tuple(row["input_ids"])) for row in entries(storage, plain, name))
        found: Counter[Any] = Counter()
        bins = entries(storage, packed, name)
        for entry in bins:
            assert len(entry["input_ids"]) == sum(entry["segments"]) <= 64
            assert len(entry["segments"]) == len(entry["segment_rows"])
            assert entry["text"] is None
            assert entry["row_id"] == entry["segment_rows"][0]
            ends = np.cumsum([0, *entry["segments"]])
            for row_id, start, end in zip(entry["segment_rows"], ends[:-1], ends[1:], strict=True):
                found[row_id, tuple(entry["input_ids"][start:end])] += 1
        assert found == wanted
        said = packed.report["splits"][name]
        assert said["rows"] == plain.report["splits"][name]["rows"] == len({row_id for row_id, _ in found})
        assert said["tokens"]["total"] == plain.report["splits"][name]["tokens"]["total"]
        assert said["packed_share"] == pytest.approx(said["tokens"]["total"] / (64 * len(bins)), abs=1e-6)
    assert packed.report["splits"]["train"]["entries"] < 0.6 * plain.report["splits"]["train"]["entries"]
    assert packed.report["splits"]["train"]["packed_share"] > 0.9


# ---------------------------------------------------------------------------------------------- amounts


def _classes(storage: Storage, made: Prepared, name: str) -> Counter[int]:
    return Counter(entry["label"] for entry in entries(storage, made, name))


def _rows_of(storage: Storage, made: Prepared, name: str) -> dict[bytes, list[dict[str, Any]]]:
    rows: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries(storage, made, name):
        rows[entry["row_id"]].append(entry)
    return rows


def test_balance_brings_the_classes_of_the_training_split_to_the_same_number(make: Make, storage: Storage) -> None:
    plain = make()
    before = _classes(storage, plain, "train")
    assert before[0] != before[1]
    ops = {"ops": [{"op": "swap"}, {"op": "delete", "rate": 0.3}, {"op": "synonyms", "rate": 0.3}]}
    for balance, more, wanted in (
        ("up", {}, max(before.values())),
        ("down", {}, min(before.values())),
        ("augment", {"augment": ops}, max(before.values())),
    ):
        made = make(balance=balance, **more)
        after = _classes(storage, made, "train")
        missing = made.report["splits"]["train"]["unchanged_copies"]
        assert sum(after.values()) == 2 * wanted - missing
        assert max(after.values()) == wanted
        assert missing <= (2 if balance == "augment" else 0)
        for held_out in ("validation", "test"):
            assert entries(storage, made, held_out) == entries(storage, plain, held_out)
        left = made.report["left"].get("above the smallest class (data.balance: down)", {"count": 0})
        assert left["count"] == (abs(before[0] - before[1]) if balance == "down" else 0)
        if balance == "down":
            assert len(left["examples"]) == min(3, left["count"])
            assert re.search(r"rows.jsonl row \d+: ['\"]", left["examples"][0])
        for parts in _rows_of(storage, made, "train").values():
            texts = [part["text"] for part in parts]
            assert len(set(texts)) == (1 if balance == "up" else len(texts))
            assert parts[0]["copy"] == 0


@pytest.mark.parametrize("until", [10, 500, 1200])
def test_training_rows_with_copies_are_as_many_as_wanted(make: Make, storage: Storage, until: int) -> None:
    ops = [{"op": "swap", "rate": 0.3}, {"op": "insert", "rate": 0.3}, {"op": "delete", "rate": 0.3}]
    made = make(augment={"until": until, "pick": "one", "ops": ops})
    said = made.report["splits"]["train"]
    rows = _rows_of(storage, made, "train")
    assert said["rows"] + said["copies"] + said["unchanged_copies"] == max(until, said["rows"])
    assert said["unchanged_copies"] <= 0.01 * until  # texts of one or two words have few forms
    assert sum(map(len, rows.values())) == said["entries"] == said["rows"] + said["copies"]
    if until > 1000:
        each, over = divmod(until - said["rows"], said["rows"])
        numbers = {max(part["copy"] for part in parts) for parts in rows.values()}
        assert max(numbers) == each + (over > 0)  # spread evenly


def test_copies_that_nothing_changes_are_left_out_and_counted(make: Make, storage: Storage) -> None:
    made = make(augment={"copies": 3, "ops": [{"op": "swap", "skip": {"labels": ["negative"]}}]})
    rows = _rows_of(storage, made, "train")
    said = made.report["splits"]["train"]
    assert 3 * said["rows"] == said["copies"] + said["unchanged_copies"]
    assert said["unchanged_copies"] >= 3 * said["classes"]["negative"]
    for parts in rows.values():
        assert len({part["text"] for part in parts}) == len(parts)
        assert parts[0]["label"] == 1 or len(parts) == 1


# ---------------------------------------------------------------------------------------------- folds


def test_folds_part_all_rows_outside_the_test_split_and_no_fold_sees_copies_of_its_own(
    make: Make, storage: Storage
) -> None:
    made = make(split={"test": 0.2, "folds": 4, "stratify": True}, augment={"copies": 2, "ops": [{"op": "swap"}]})
    store = TokenStore.open(storage, made.rel)
    assert store.folds == 4
    every = {row_id.hex() for row_id in _rows_of(storage, made, "train")}
    held: list[set[str]] = []
    for fold in range(4):
        train, validation = store.split("train", fold), store.split("validation", fold)
        assert (validation.copies == 0).all()
        assert (train.copies > 0).any()
        held.append(set(validation.row_ids))
        assert len(held[-1]) == len(validation)
        assert not held[-1] & set(train.row_ids)
        assert held[-1] | set(train.row_ids) == every
        share = np.bincount(validation.labels, minlength=2) / len(validation)
        whole = np.array(list(made.report["splits"]["train"]["classes"].values())) / len(every)
        assert abs(share - whole).max() < 1.5 / len(validation)  # stratified: to a row
    assert sum(map(len, held)) == len(every) == len(set().union(*held))
    assert max(map(len, held)) - min(map(len, held)) <= 2
    assert made.report["splits"]["validation"]["rows"] == 0


# ---------------------------------------------------------------------------------------------- near duplicates


def test_planted_near_duplicates_leave_with_a_count_and_three_examples(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    rows = scored(200, words=20)
    planted = [{**row, "text": f"{row['text']} Indeed."} for row in rows[:25]]
    unlike = [{**row, "text": " ".join(row["text"].split()[::-1])} for row in rows[25:50]]
    path = lines(tmp_path / "near.jsonl", rows + planted + unlike)
    more = {"sources": [source(path)], "clean": {"near_duplicates": {"threshold": 0.8, "unit": "words", "shingle": 2}}}
    made = make(**more)
    left = made.report["left"]["near duplicate of a row that stays"]
    kept = [entry["text"] for name in SPLITS for entry in entries(storage, made, name)]
    labelled = [row for row in rows[:25] if row["score"] != 0]
    pairs = [(row["text"] in kept, f"{row['text']} Indeed." in kept) for row in labelled]
    assert all(one != other for one, other in pairs), "one of each pair stays"
    assert left["count"] == len(labelled)
    assert len(left["examples"]) == 3
    assert all(re.search(r"near.jsonl row \d+: ['\"]", example) for example in left["examples"])
    assert sum(row["score"] != 0 for row in unlike) == sum(row["text"] in kept for row in unlike)

"""From records to a store and back: every target in its column, the same bytes for any size of units, and what a store without it says.
The passes run in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.preview import run as show
from jobs.spec import JobSpec
from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.growing import open_store
from orchestration.data.prepare import Prepared
from orchestration.data.preview import preview
from orchestration.data.rng import mix
from orchestration.data.sample import row_lengths
from orchestration.data.store import SPLITS, TokenStore
from orchestration.data.stream import PLAN, Sequential
from orchestration.data.tokenize import Tokenizer
from orchestration.errors import UserError
from orchestration.storage import Storage
from tests.corpora import WEIGHTS, entries, lines, run_here
from tests.tiny import make_tokenizer

Make = Callable[..., Prepared]
NAMES = ("Ada", "Zoë", "北京", "Émile", "Noor")
VERBS = ("weaves", "paints", "sings", "cooks")
TAGS = ["O", "B-PER"]


def _records(count: int) -> list[dict[str, Any]]:
    """Sentences `NAME VERB number`; a question of each; a number, a class or none, the name as answer, a tag a word."""
    records = []
    for i in range(count):
        name, verb = NAMES[mix(i, 1) % len(NAMES)], VERBS[mix(i, 2) % len(VERBS)]
        text = f"{'Perhaps ' * (mix(i, 4) % 3)}{name} {verb} {i}"
        records.append(
            {
                "text": text,
                "words": text.split(),
                "tags": ["B-PER" if word == name else "O" for word in text.split()],
                "question": f"Who {verb} {i}?",
                "score": i / 7,
                "verb": verb if mix(i, 3) % 4 else None,
                "first": "yes" if i % 2 else "no",
                "answer": name if i % 5 else "",
                "start": text.index(name),
            }
        )
    return records


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lines(tmp_path_factory.mktemp("corpus") / "rows.jsonl", _records(90))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return _storage(tmp_path_factory.mktemp("storage"))


def _storage(path: Path, like: Storage | None = None) -> Storage:
    """With a tokenizer of its own, or (training one twice may give other merges) with that of another storage."""
    storage = Storage(str(path))
    aside = storage.staging()
    if like is None:
        make_tokenizer(aside, "bert")
    else:
        shutil.copyfile(Path(like.fetch(WEIGHTS)) / "tokenizer.json", aside / "tokenizer.json")
    storage.commit(WEIGHTS, aside, {})
    return storage


LABELS = {"verb": {"column": "verb"}, "first": {"column": "first"}}
ALL: dict[str, Any] = {"value": "score", "labels": LABELS}
HEADS = {"verb": list(VERBS), "first": ["no", "yes"]}
QA: dict[str, Any] = {"text": "question", "pair": "text", "span": {"text": "answer", "start": "start"}}
SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "numbers": (ALL, {"heads": HEADS}),
    "answers": (ALL | QA, {"heads": HEADS, "tokenize": {"max_length": 18}}),
    "tags": ({"text": "words", "tags": "tags", "pair": "question"}, {"tags": TAGS, "tokenize": {"max_length": 20}}),
    "texts": ({"target": "question"}, {"tokenize": {"max_length": 20, "target_length": 9}}),
}


@pytest.fixture
def make(storage: Storage, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(stage, "run_pass", run_here)

    def run(name: str, into: Storage = storage, **more: Any) -> Prepared:
        source, rest = SPECS[name]
        values = {"sources": [{"name": "s", "path": str(corpus), **source}], "shard_rows": 16, **rest, **more}
        return stage.prepare(DataConfig.model_validate(values), weights_rel=WEIGHTS, seed=3, storage=into)

    return run


def _by_text(storage: Storage, made: Prepared) -> dict[str, dict[str, Any]]:
    """The entries of all splits by their record's number, which ends every text."""
    store = TokenStore.open(storage, made.rel)
    found = {}
    for name in SPLITS:
        split = store.split(name)
        every = np.arange(len(split))
        columns = {"ids": split.input_ids(every), "text": split.texts(every)}
        if "target_ids" in store.meta["targets"]:
            columns["targets"] = split.targets(every)
        if "pair_at" in store.meta["targets"]:
            columns["pair_at"] = split.pair_at(every).tolist()
        if "value" in store.meta["targets"]:
            assert split.values.dtype == np.float32
            columns["value"] = split.values.tolist()
        if store.heads:
            columns |= {head: values.tolist() for head, values in split.heads.items()}
        for row in every:
            number = columns["text"][row].rstrip("?").rpartition(" ")[2]
            found[number] = {key: values[row] for key, values in columns.items()}
    return found


def test_values_and_heads_come_back_with_their_row(storage: Storage, make: Make) -> None:
    made = make("numbers")
    found = _by_text(storage, made)
    assert len(found) == 90
    for i, record in enumerate(_records(90)):
        assert found[str(i)]["value"] == np.float32(record["score"])
        assert found[str(i)]["verb"] == (VERBS.index(record["verb"]) if record["verb"] else -1)
        assert found[str(i)]["first"] == i % 2
    assert TokenStore.open(storage, made.rel).heads == HEADS
    counts = [split["targets"] for split in made.report["splits"].values()]
    assert sum(count["first=yes"] for count in counts) == 45


def test_answers_come_back_as_tokens_of_the_context(storage: Storage, make: Make) -> None:
    made = make("answers")
    tokenizer = Tokenizer(storage.fetch(WEIGHTS), 18)
    found, lost = _by_text(storage, made), 0
    for i, record in enumerate(_records(90)):
        row = found[str(i)]
        first, last = row["targets"]
        framed = tokenizer.framed([record["question"]], [record["text"]])[0]
        assert row["ids"].tolist() == framed.ids.tolist()
        assert row["pair_at"] == framed.parts[1].start
        name = tokenizer.encode([record["answer"]])[0][1:-1]
        lost += bool(record["answer"]) and last == 0
        if record["answer"] and last:
            assert row["ids"][first : last + 1].tolist() == name
        else:
            assert (first, last) == (0, 0)
    counts = [split["targets"] for split in made.report["splits"].values()]
    assert sum(count["without an answer"] for count in counts) == 18
    assert sum(count["answers cut away"] for count in counts) == lost > 0


def test_tags_come_back_in_step_with_the_ids(storage: Storage, make: Make) -> None:
    made = make("tags")
    found = _by_text(storage, made)
    for i, record in enumerate(_records(90)):
        row = found[str(i)]
        assert len(row["targets"]) == len(row["ids"])
        kept = row["targets"][row["targets"] >= 0].tolist()
        assert kept == [TAGS.index(tag) for tag in record["tags"]][: len(kept)]
        assert (row["targets"][row["pair_at"] :] == -100).all()
    assert sum(split["targets"]["tag=B-PER"] for split in made.report["splits"].values()) == 90


def test_texts_to_write_come_back_with_their_own_length(storage: Storage, make: Make) -> None:
    made = make("texts")
    wanted = Tokenizer(storage.fetch(WEIGHTS), 9).encode([record["question"] for record in _records(90)])
    found = _by_text(storage, made)
    assert [found[str(i)]["targets"].tolist() for i in range(90)] == wanted


@pytest.mark.parametrize("name", SPECS)
def test_entries_do_not_depend_on_the_size_of_units_nor_bytes_on_a_second_run(
    name: str, storage: Storage, make: Make, tmp_path: Path
) -> None:
    first, other = make(name), make(name, shard_rows=50)
    assert first.address != other.address
    for split in SPLITS:
        assert entries(storage, first, split) == entries(storage, other, split)
    elsewhere = _storage(tmp_path / "elsewhere", like=storage)
    again = make(name, into=elsewhere)
    assert again.rel == first.rel
    for path in Path(storage.path(first.rel)).iterdir():
        assert path.read_bytes() == (Path(elsewhere.path(again.rel)) / path.name).read_bytes()


def test_a_store_says_which_targets_it_has_where_another_is_asked_for(storage: Storage, make: Make) -> None:
    tags = TokenStore.open(storage, make("tags").rel).split("train")
    with pytest.raises(UserError, match="the store has no value; it has: pair_at, target_ids"):
        _ = tags.values
    with pytest.raises(UserError, match="the store has no labels of heads"):
        _ = tags.head(3).heads
    numbers = TokenStore.open(storage, make("numbers").rel).split("test")
    with pytest.raises(UserError, match="the store has no pair_at"):
        numbers.pair_at([0])
    with pytest.raises(UserError, match="the store has no target_ids"):
        numbers.only(np.zeros(len(numbers), bool)).targets([])


def test_equal_pairs_are_one_row_and_texts_of_other_pairs_are_not(storage: Storage, make: Make, tmp_path: Path) -> None:
    records = _records(30)
    same = [record | {"text": record["text"].upper()} for record in records[:7]]
    other = [record | {"question": f"And {record['question']}"} for record in records[:5]]
    long = " ".join(records[i]["text"] for i in range(12))
    near = [
        {"text": long, "question": question} for question in ("who sang this?", "who sang this??", "what is it " * 30)
    ]
    path = lines(tmp_path / "rows.jsonl", [*records, *same, *other, *near])
    source = {"name": "s", "path": str(path), "pair": "question"}
    made = make("texts", sources=[source], clean={"near_duplicates": {"threshold": 0.9}}, tokenize={})
    left = {reason: found["count"] for reason, found in made.report["left"].items()}
    assert left == {"duplicate of a row that stays": 7, "near duplicate of a row that stays": 1}


def test_a_streamed_store_shows_targets_as_it_grows(corpus: Path, tmp_path: Path) -> None:
    storage = _storage(tmp_path / "storage")
    source, rest = SPECS["answers"]
    values = {"sources": [{"name": "s", "path": str(corpus), **source}], "shard_rows": 16, "stream": {"window": 2}}
    config = DataConfig.model_validate(values | rest)
    plan = stage.make_plan(config, weights_rel=WEIGHTS, seed=3, storage=storage)
    meta = {**stage.store_meta(plan, storage), "units": len(plan.units)}
    storage.write_json(f"{plan.work.store_rel}/{PLAN}", meta)
    decider = Sequential(plan)
    items = [{"unit": unit.dump()} for unit in plan.units]
    from orchestration.data import passes
    from orchestration.data.keys import DTYPE

    for item, row in zip(items, run_here("read", passes.read_keys, items, work=plan.work, in_order=True), strict=True):
        decided = decider.decide(np.frombuffer(row["keys"], DTYPE)).unit(slice(None))
        passes.write_unit({**item, "mark": row["mark"], **decided}, plan.work)
    store = open_store(storage, plan.work.store_rel)
    assert store.heads == HEADS
    train = store.split("train")
    store.stream(len(plan.units) - 1)
    every = np.arange(len(train))
    by_number = {str(i): record for i, record in enumerate(_records(90))}
    texts = [by_number[text.rstrip("?").rpartition(" ")[2]] for text in train.texts(every)]
    assert train.values[every].tolist() == [np.float32(record["score"]) for record in texts]
    assert train.heads["first"][every].tolist() == [["no", "yes"].index(record["first"]) for record in texts]
    tokenizer = Tokenizer(storage.fetch(WEIGHTS), 18)
    framed = tokenizer.framed([r["question"] for r in texts], [r["text"] for r in texts])
    assert train.pair_at(every).tolist() == [row.parts[1].start for row in framed]
    assert all(len(span) == 2 for span in train.targets(every))
    assert len(store.split("validation").values) > 0


# ------------------------------------------------------------------------------------------------ looking at rows


def test_preview_shows_what_each_row_teaches(
    storage: Storage, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, rest = SPECS["answers"]
    values = {"sources": [{"name": "s", "path": str(corpus), **source}], **rest}
    first, *_, last = preview(DataConfig.model_validate(values), storage=storage, seed=1, rows=90)
    records = _records(90)
    assert first.targets["span"] == "no answer"
    assert first.targets["pair"] == records[0]["text"]
    assert last.targets["span"] == repr(records[-1]["answer"])
    assert (last.targets["value"], last.targets["first"]) == (str(89 / 7), "yes")
    source, rest = SPECS["tags"]
    values = {"sources": [{"name": "s", "path": str(corpus), **source}], **rest}
    spec = {"name": "shown", "storage": storage.url, "data": values, "model": {"path": "catalog:minilm"}}
    show(JobSpec.model_validate(spec), rows=1, json_lines=True)
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    words = zip(records[0]["words"], records[0]["tags"], strict=True)
    assert row["targets"]["tags"] == " ".join(f"{word}/{tag}" for word, tag in words)
    show(JobSpec.model_validate(spec), rows=1)
    assert "/B-PER" in capsys.readouterr().out


def test_the_plan_counts_both_texts(storage: Storage, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(storage.fetch(WEIGHTS), folder)
    source, _ = SPECS["answers"]
    pairs = DataConfig.model_validate(
        {"sources": [{"name": "s", "path": str(corpus), "text": "question", "pair": "text"}]}
    )
    single = DataConfig.model_validate({"sources": [{"name": "s", "path": str(corpus), "text": "question"}]})
    both, one = (row_lengths(config, tokenizer=folder, storage=storage) for config in (pairs, single))
    assert both.mean_tokens > 1.5 * one.mean_tokens
    assert source["pair"] == "text"

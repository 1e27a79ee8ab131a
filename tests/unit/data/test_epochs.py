"""Rows in another form each epoch, on a store of real texts and pictures: the same form whoever asks, another one each epoch, and a run
that stops and goes on has the losses of one that does not."""

from __future__ import annotations

import io
import re
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.config import ModelConfig
from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.epochs import EpochForms, forms
from orchestration.data.store import Split, TokenStore
from orchestration.data.tokenize import Tokenizer
from orchestration.storage import Storage
from orchestration.training import loop
from orchestration.training.config import TrainConfig
from orchestration.training.feed import Feed, Step
from orchestration.training.job import LoopResult, TrainJob
from tests.corpora import LABELS, RULES, lines, run_here, scored, source
from tests.tiny import BERT, make_weights, row_task

WEIGHTS, LENGTH = "weights/wordpiece", 24


@pytest.fixture(scope="module")
def storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A two-layer BERT of width 32 with the tokenizer of a real one."""
    storage = Storage(str(tmp_path_factory.mktemp("epochs")))
    make_weights(storage, "weights/plain", {**BERT, "vocab_size": 30_522})
    aside = storage.staging()
    shutil.copytree(storage.path("weights/plain"), aside, dirs_exist_ok=True, ignore=lambda *_: ["manifest.json"])
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(minilm / name, aside / name)
    storage.commit(WEIGHTS, aside, {})
    return storage


def _store(storage: Storage, values: dict[str, Any]) -> TokenStore:
    config = DataConfig.model_validate(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "run_pass", run_here)
        made = stage.prepare(config, weights_rel=WEIGHTS, seed=5, storage=storage)
    return TokenStore.open(storage, made.rel)


OPS = [
    {"op": "swap", "rate": 0.2, "skip": {"labels": ["negative"]}},
    {"op": "synonyms", "rate": 0.4, "skip": {"words": ["not", "movie"], "labels": ["negative"]}},
]


def _texts_spec(path: Path, **augment: Any) -> dict[str, Any]:
    return {
        "sources": [source(path)],
        "labels": LABELS,
        "tokenize": {"max_length": LENGTH},
        "augment": {"when": "epoch", "ops": OPS, **augment},
        "shard_rows": 64,
    }


@pytest.fixture(scope="module")
def store(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return _store(storage, _texts_spec(lines(tmp_path_factory.mktemp("corpus") / "rows.jsonl", scored(220, words=6))))


@pytest.fixture(scope="module")
def train(store: TokenStore) -> Split:
    return store.split("train")


@pytest.fixture(scope="module")
def made(store: TokenStore, train: Split, storage: Storage) -> EpochForms:
    found = forms(store, train, storage=storage, weights_rel=WEIGHTS)
    assert found is not None
    return found


def _ids(found: list[np.ndarray]) -> list[list[int]]:
    return [ids.tolist() for ids in found]


def test_nothing_is_stored_and_each_epoch_has_forms_of_its_own(
    store: TokenStore, train: Split, made: EpochForms
) -> None:
    assert store.report["splits"]["train"]["copies"] == 0
    every = np.arange(len(train))
    stored, *epochs = _ids(train.input_ids(every)), *(_ids(made.ids(every, epoch)) for epoch in range(3))
    positive = np.flatnonzero(train.labels == 1)
    for one, other in ((stored, epochs[0]), (epochs[0], epochs[1]), (epochs[1], epochs[2])):
        assert sum(one[row] != other[row] for row in positive) > 0.7 * len(positive)
    assert all(len(ids) <= LENGTH for ids in epochs[0])


def test_rows_that_every_op_skips_keep_their_stored_tokens(train: Split, made: EpochForms) -> None:
    negative = np.flatnonzero(train.labels == 0)
    assert len(negative) > 20
    for epoch in range(3):
        assert _ids(made.ids(negative, epoch)) == _ids(train.input_ids(negative))


def test_a_rows_form_is_the_same_in_any_batch_and_for_any_reader(
    store: TokenStore, train: Split, made: EpochForms, storage: Storage
) -> None:
    every = np.arange(len(train))
    whole = _ids(made.ids(every, 4))
    other = forms(TokenStore.open(storage, f"stores/{store.fingerprint}"), train, storage=storage, weights_rel=WEIGHTS)
    assert other is not None
    backwards = every[::-1]
    assert [whole[row] for row in backwards] == [
        ids for start in range(0, len(every), 7) for ids in _ids(other.ids(backwards[start : start + 7], 4))
    ]


def _through_texts(found: EpochForms, storage: Storage, epoch: int) -> list[list[int]]:
    """Each row's text, changed and encoded."""
    split, every = found.split, np.arange(len(found.split))
    texts = split.texts(every)
    changed = found.by_text.texts(texts, split.ids_of(every), split.labels.tolist(), [epoch + 1] * len(texts))
    tokenizer = Tokenizer(storage.fetch(WEIGHTS), LENGTH)
    return tokenizer.encode([new or old for new, old in zip(changed, texts, strict=True)])


def _made(storage: Storage, spec: dict[str, Any]) -> EpochForms:
    store = _store(storage, spec)
    found = forms(store, store.split("train"), storage=storage, weights_rel=WEIGHTS)
    assert found is not None
    return found


def test_ids_become_the_ids_of_the_changed_text_where_they_show_all_of_it(storage: Storage, tmp_path: Path) -> None:
    rows = [{**row, "text": " ".join(re.findall("[a-z]+", row["text"].lower()))} for row in scored(220, words=6)]
    spec = _texts_spec(lines(tmp_path / "rows.jsonl", [row for row in rows if len(row["text"].split()) < 15]))
    found = _made(storage, spec)
    assert len(found.split) > 30
    ids = _ids(found.ids(np.arange(len(found.split)), 2))
    assert "by_text" not in vars(found)  # no text was changed
    assert ids == _through_texts(found, storage, 2)


def test_texts_are_not_even_read_where_no_op_asks_for_them(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines(tmp_path / "rows.jsonl", scored(60, words=6))
    found = _made(
        storage, _texts_spec(path, ops=[{"op": "swap"}, {"op": "synonyms", "skip": {"labels": ["negative"]}}])
    )
    monkeypatch.setattr(Split, "texts", None)
    every = np.arange(len(found.split))
    assert _ids(found.ids(every, 0)) != _ids(found.split.input_ids(every))


def test_chinese_rows_and_voice_go_through_their_texts(storage: Storage, tmp_path: Path) -> None:
    rows = [{"text": f"中国的大山{i}不小，水的人日本的大学生都不喜欢", "score": 1 - 2 * (i % 2)} for i in range(60)]
    spec = _texts_spec(lines(tmp_path / "zh.jsonl", rows), ops=[{"op": "swap", "rate": 0.3}])
    passive = [
        {"text": f"The {who} praised the film in {2000 + i}.", "score": 1}
        for i in range(20)
        for who in ("critic", "boy")
    ]
    voiced = _texts_spec(lines(tmp_path / "voice.jsonl", passive), ops=[{"op": "voice"}, {"op": "swap", "rate": 0.1}])
    for found, on_ids in ((_made(storage, spec), True), (_made(storage, voiced), False)):
        every = np.arange(len(found.split))
        assert (found.by_ids is not None) == on_ids
        ids = _ids(found.ids(every, 1))
        assert ids == _through_texts(found, storage, 1)
        assert sum(a != b for a, b in zip(ids, _ids(found.split.input_ids(every)), strict=True)) > 0.7 * len(every)


def _feed(train: Split, made: EpochForms, rank: int = 0, world: int = 1) -> Feed:
    common: dict[str, Any] = {"batch": 16, "micro_batch": 4, "seed": 7, "pad_id": 0, "rank": rank, "world": world}
    return Feed(train, task=row_task(), fingerprint="f", augment=made.ids, **common)


def _seen(steps: list[Step]) -> list[list[tuple[int, ...]]]:
    """By step: token ids of each row that counts, sorted."""
    return [
        sorted(
            tuple(ids_L[mask_L.bool()].tolist())
            for micro in step.micros
            for ids_L, mask_L, weight in zip(
                micro.inputs["input_ids"], micro.inputs["attention_mask"], micro.weight_B, strict=True
            )
            if weight
        )
        for step in steps
    ]


def test_ranks_and_a_resume_see_the_forms_of_one_unbroken_rank(train: Split, made: EpochForms) -> None:
    whole = _seen(list(_feed(train, made).steps(1)))
    for world in (2, 3):
        ranks = [_seen(list(_feed(train, made, rank, world).steps(1))) for rank in range(world)]
        assert [sorted(chain(*rows)) for rows in zip(*ranks, strict=True)] == whole
    assert _seen(list(_feed(train, made).steps(1, 3))) == whole[3:]
    assert whole != _seen(list(_feed(train, made).steps(0)))


def _run(storage: Storage, store: TokenStore, run: str, stop_after: int | None = None) -> LoopResult:
    values = {"epochs": 2, "batch": 16, "report_every": 1, "optimizer": {"lr": 2e-3}, "checkpoint": {"every_steps": 3}}
    job = TrainJob(
        train=TrainConfig.model_validate(values),
        model=ModelConfig(path="tiny", dropout=0.0),
        labels=tuple(LABELS),
        seed=7,
        storage_url=storage.url,
        weights_rel=WEIGHTS,
        store_rel=f"stores/{store.fingerprint}",
        run_rel=f"runs/{run}",
        threads=1,
    )
    steps: list[int] = []
    return loop.run(
        job,
        report=lambda event: steps.append(event["step"]) if event["type"] == "step" else None,
        stop=lambda: stop_after is not None and steps[-1:] >= [stop_after],
    )


def test_a_run_that_stopped_in_the_second_epoch_goes_on_with_the_losses_of_the_unbroken_one(
    storage: Storage, store: TokenStore, train: Split
) -> None:
    whole = _run(storage, store, "whole")
    per_epoch = -(-len(train) // 16)
    first = _run(storage, store, "cut", stop_after=per_epoch + 4)
    assert first.ended == "stopped"
    rest = _run(storage, store, "cut")
    assert rest.resumed_from is not None
    assert whole.steps == 2 * per_epoch == rest.steps
    assert rest.losses[-3:] == whole.losses[-3:]


# ---------------------------------------------------------------------------------------------- pictures


def _png(level: int) -> bytes:
    held = io.BytesIO()
    pixels = np.random.Generator(np.random.PCG64(level)).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def test_pictures_of_an_epoch_are_turned_unless_their_label_or_words_forbid_it(
    storage: Storage, tmp_path: Path
) -> None:
    rows = [
        {"text": f"arrow {'left' if i % 4 == 0 else 'up'} {i}", "score": 1 - 2 * (i % 2), "picture": _png(i)}
        for i in range(60)
    ]
    path = tmp_path / "pictures.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    skip = {"labels": ["negative"], "words": ["left"]}
    values = {
        "sources": [{"name": "p", "path": str(path), "image": "picture", "label": {"column": "score", "rules": RULES}}],
        "labels": LABELS,
        "image": {"size": 16},
        "augment": {"when": "epoch", "ops": [{"op": "flip", "skip": skip}, {"op": "colour", "skip": skip}]},
    }
    store = _store(storage, values)
    train = store.split("train")
    found = forms(store, train, storage=storage, weights_rel=WEIGHTS)
    assert found is not None
    assert not found.changes_text
    every = np.arange(len(train))
    assert _ids(found.ids(every, 0)) == _ids(train.input_ids(every))
    stored = train.media("image", every)
    epochs = [found.media("image", every, epoch) for epoch in (0, 1, 1)]
    kept = [label == 0 or "left" in text for label, text in zip(train.labels.tolist(), train.texts(every), strict=True)]
    assert 5 < sum(kept) < len(kept) - 5
    for row in every.tolist():
        same = [np.array_equal(stored[row], epoch[row]) for epoch in epochs]
        assert same == [kept[row]] * 3
        assert np.array_equal(epochs[1][row], epochs[2][row])
        assert np.array_equal(epochs[0][row], epochs[1][row]) == kept[row]
    alone = found.media("image", every[::-1][:5], 1)
    assert all(np.array_equal(a, b) for a, b in zip(alone, epochs[1][::-1][:5], strict=True))


def test_a_store_whose_copies_are_stored_has_no_forms(storage: Storage, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", scored(30))
    spec = _texts_spec(path)
    for augment in (None, {"copies": 1, "ops": [{"op": "swap"}]}):
        store = _store(storage, {**spec, "augment": augment})
        assert forms(store, store.split("train"), storage=storage, weights_rel=WEIGHTS) is None


@pytest.mark.parametrize(
    "tokenize", [{"pack": True}, {"long": "windows"}, {"fim": {}}], ids=["packed", "in windows", "filled in"]
)
def test_rows_that_are_no_longer_whole_are_refused(tokenize: dict[str, Any]) -> None:
    spec = {
        "sources": [{"name": "a", "path": "a.jsonl"}],
        "labels": [],
        "augment": {"when": "epoch", "ops": [{"op": "swap"}]},
    }
    with pytest.raises(ValueError, match="epoch cannot change rows"):
        DataConfig.model_validate({**spec, "tokenize": {"max_length": LENGTH, **tokenize}})

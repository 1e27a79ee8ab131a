"""`prepare` with `data.stream`: a store that is read while it is being written gives what the finished one gives, and whoever waits
for it learns why nothing comes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.context import open_job
from jobs.prepare import prepared
from jobs.spec import load_spec
from jobs.train import train_job
from orchestration.data.config import DataConfig
from orchestration.data.growing import StreamedStore
from orchestration.data.prepare import Prepared, make_plan, prepare
from orchestration.errors import DamagedError, DataError
from orchestration.storage import MANIFEST, Storage
from orchestration.training import loop
from orchestration.training.feed import Feed
from tests.corpora import LABELS, WEIGHTS, lines, scored, source, store_bytes, tokenizer_storage
from tests.packages import cut_encoder
from tests.tiny import row_task

ROWS, WINDOW, TIMEOUT_S = 600, 3, 400
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def new_storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Storage]:
    return lambda: tokenizer_storage(tmp_path_factory.mktemp("storage"), minilm)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 scored texts in two files; 40 of the second are also in the first, as they are or in capitals."""
    root, rows = tmp_path_factory.mktemp("corpus"), scored(ROWS)
    lines(root / "a.jsonl", rows[:320])
    again = [{**row, "text": row["text"].upper()} if i % 2 else row for i, row in enumerate(rows[:40])]
    lines(root / "b.jsonl", again + rows[320:])
    return root


def _config(path: Path, **more: Any) -> DataConfig:
    values = {
        "sources": [source(path)],
        "labels": LABELS,
        "split": {"validation": 0.1, "test": 0.1},
        "augment": {"copies": 1, "ops": [{"op": "synonyms", "rate": 0.3}]},
        "stream": {"window": WINDOW},
        "shard_rows": 40,
    }
    return DataConfig.model_validate({**values, **more})


def _prepare(config: DataConfig, storage: Storage, **more: Any) -> Prepared:
    return prepare(config, **{"weights_rel": WEIGHTS, "seed": 5, "storage": storage, **more})


Seen = list[list[tuple[str, list[int], int]]]  # by step: row id, token ids and label of each row


def _seen(store: StreamedStore, *, epochs: int = 2) -> Seen:
    """What a fit sees, and its validation rows first."""
    held_out, train = store.split("validation"), store.split("train")
    every = range(len(held_out))
    found = [_rows(held_out, every)]
    feed = Feed(
        train,
        task=row_task(),
        fingerprint=store.fingerprint,
        batch=16,
        micro_batch=16,
        seed=5,
        pad_id=0,
        rank=0,
        world=1,
        stream=store.stream,
    )
    for epoch in range(epochs):
        order, number = feed.order_of(epoch), 0
        while number < len(order) or not order.complete:
            if number >= len(order):
                order = feed.order_of(epoch, order.shards_needed(number))
                continue
            found.append(_rows(train, order.batch(number)))
            number += 1
    return found


def _rows(split: Any, indices: Any) -> list[tuple[str, list[int], int]]:
    ids = [row_id.hex() for row_id in split.ids_of(indices)]
    return list(zip(ids, [ids.tolist() for ids in split.input_ids(indices)], split.labels[indices], strict=True))


@pytest.fixture(scope="module")
def first(corpus: Path, new_storage: Callable[[], Storage]) -> tuple[Storage, Prepared]:
    storage = new_storage()
    return storage, _prepare(_config(corpus), storage)


def test_of_equal_texts_in_the_whole_input_one_is_kept_and_the_report_adds_up(
    first: tuple[Storage, Prepared],
) -> None:
    report = first[1].report
    kept = sum(split["rows"] for split in report["splits"].values())
    assert report["rows_in"] == ROWS + 40 == kept + sum(left["count"] for left in report["left"].values())
    assert report["left"]["duplicate of a row that stays"]["count"] >= 36  # some have the score 0
    assert report["splits"]["train"]["copies"] > 200


def test_a_store_read_while_it_is_written_gives_the_batches_of_the_finished_one(
    first: tuple[Storage, Prepared], corpus: Path, new_storage: Callable[[], Storage]
) -> None:
    storage = new_storage()
    rel, growing = first[1].rel, []
    writer = threading.Thread(target=lambda: growing.append(_prepare(_config(corpus), storage, workers=1, blocks=16)))
    writer.start()
    store = StreamedStore(storage, rel, quiet_s=60)
    early = not storage.exists(f"{rel}/{MANIFEST}")
    seen = _seen(store)
    writer.join()
    assert early, "the store was finished before it was read"
    assert seen == _seen(StreamedStore(*(first[0], rel)))
    assert store_bytes(storage, growing[0]) == store_bytes(*first)
    steps = seen[1:]
    ids = [row_id for step in steps[: len(steps) // 2] for row_id, *_ in step]
    assert len(ids) == sum(first[1].report["splits"]["train"][part] for part in ("rows", "copies"))


@pytest.mark.parametrize(("workers", "blocks"), [(1, 2), (4, 5)])
def test_bytes_depend_neither_on_workers_nor_on_blocks(
    first: tuple[Storage, Prepared], corpus: Path, new_storage: Callable[[], Storage], workers: int, blocks: int
) -> None:
    storage = new_storage()
    assert store_bytes(storage, _prepare(_config(corpus), storage, workers=workers, blocks=blocks)) == store_bytes(
        *first
    )


def test_an_interrupted_stream_goes_on_and_gives_the_same_bytes(
    first: tuple[Storage, Prepared], corpus: Path, new_storage: Callable[[], Storage]
) -> None:
    storage = new_storage()

    def stop(phase: str, done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _prepare(_config(corpus), storage, workers=1, progress=stop)
    folder = Path(storage.path(first[1].rel))
    assert not (folder / MANIFEST).exists()
    assert store_bytes(storage, _prepare(_config(corpus), storage)) == store_bytes(*first)


def test_readers_learn_why_no_more_rows_come(new_storage: Callable[[], Storage], tmp_path: Path) -> None:
    """The seventh unit holds three broken rows; two are forgiven."""
    path = lines(tmp_path / "bad.jsonl", scored(400))
    broken = path.read_text().splitlines()
    broken[250:253] = ["{", "{", "{"]
    path.write_text("\n".join(broken) + "\n")
    config, storage = _config(path, max_bad_rows=2), new_storage()
    with pytest.raises(DataError, match=r"3 rows cannot be used, data.max_bad_rows allows 2: .*bad.jsonl row 251"):
        _prepare(config, storage)
    rel = make_plan(config, weights_rel=WEIGHTS, seed=5, storage=storage).work.store_rel
    with pytest.raises(DataError, match=r"will not come: 3 rows cannot be used.*bad.jsonl row 251"):
        _seen(StreamedStore(storage, rel, quiet_s=20))
    forgiven = _config(path, max_bad_rows=3)
    assert len(_seen(StreamedStore(storage, _prepare(forgiven, storage).rel, quiet_s=20))) > 2  # and now they come


def test_a_writer_that_is_gone_ends_the_wait_with_a_word(
    first: tuple[Storage, Prepared], new_storage: Callable[[], Storage]
) -> None:
    storage = new_storage()
    with pytest.raises(DamagedError, match=r"no new shard for 0 s \(0 units are there\)"):
        StreamedStore(storage, first[1].rel, quiet_s=0.2)
    shutil.copytree(first[0].path(first[1].rel), storage.path(first[1].rel))
    Path(storage.path(first[1].rel), MANIFEST).unlink()  # killed before the first unit was written
    with pytest.raises(DamagedError, match=r"is `eagleray prepare` still running"):
        _seen(StreamedStore(storage, first[1].rel, quiet_s=0.2))


# --------------------------------------------------------------------------------------- a whole fit


@pytest.fixture(scope="module")
def spec(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("fits")
    weights, path = Storage(str(root / "models")), lines(root / "rows.jsonl", scored(400))
    return {
        "name": "streamed",
        "seed": 5,
        "storage": str(root / "ahead"),
        "data": {
            "sources": [source(path)],
            "labels": LABELS,
            "split": {"validation": 0.1, "test": 0.1},
            "tokenize": {"max_length": 24},
            "stream": {"window": WINDOW},
            "shard_rows": 32,
        },
        "model": {"path": weights.path(cut_encoder(minilm, weights)), "dropout": 0.0},
        "train": {"batch": 32, "report_every": 1, "validation": {"every_steps": 100}, "optimizer": {"lr": 1e-4}},
        "cluster": {"workers": 1},
    }


def _trained(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Events of `eagleray train`, in a process and on a Ray of its own."""
    path = Path(spec["storage"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(spec))
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "train", str(path), "--json"],
        env={key: text for key, text in os.environ.items() if key != "EAGLERAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _prepared_first(spec: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    """Events of the same fit in this process, behind a store that was finished before."""
    path = root / "before.yaml"
    path.write_text(yaml.safe_dump({**spec, "storage": str(root / "before")}))
    job = open_job(load_spec(path))
    inputs = prepared(job)
    assert job.storage.exists(f"{inputs.store.rel}/{MANIFEST}")
    events: list[dict[str, Any]] = []
    loop.run(replace(train_job(job, inputs, run_rel="runs/before", world=1), threads=1), report=events.append)
    return events


def test_a_fit_behind_a_growing_store_has_the_losses_of_one_on_a_prepared_store(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    ahead, before = _trained(spec), _prepared_first(spec, tmp_path)
    losses = [[event["loss"] for event in events if event["type"] == "step"] for events in (ahead, before)]
    assert len(losses[0]) >= 8
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    scores = [[event["loss"] for event in events if event["type"] == "validation"] for events in (ahead, before)]
    assert len(scores[0]) >= 1
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)

"""A store that is still being written, unit by unit, by the passes themselves in this process: what a reader sees at each moment."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from orchestration.data import passes
from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig
from orchestration.data.growing import StreamedStore, open_store
from orchestration.data.keys import DTYPE, merge_left
from orchestration.data.report import build_report
from orchestration.data.store import TokenStore
from orchestration.data.stream import FAILED, PLAN, Sequential
from orchestration.errors import DamagedError, DataError
from orchestration.storage import Storage
from tests.corpora import LABELS, WEIGHTS, lines, run_here, scored, source, tokenizer_storage

WINDOW, UNITS = 2, 7


class Writer:
    """What `stream.write_in_order` does, one step at a time."""

    def __init__(self, path: Path, storage: Storage) -> None:
        values = {
            "sources": [source(path)],
            "labels": LABELS,
            "split": {"validation": 0.2, "test": 0.1},
            "stream": {"window": WINDOW},
            "shard_rows": 16,
        }
        config = DataConfig.model_validate(values)
        self.storage = storage
        self.plan = stage.make_plan(config, weights_rel=WEIGHTS, seed=5, storage=storage)
        self.rel = self.plan.work.store_rel
        self._decider, self._done, self._lefts = Sequential(self.plan), [], []
        self._waiting = self._units()

    def begin(self) -> None:
        meta = {**stage.store_meta(self.plan, self.storage), "units": len(self.plan.units)}
        self.storage.write_json(f"{self.rel}/{PLAN}", meta)

    def _units(self) -> Iterator[dict[str, Any]]:
        work = self.plan.work
        items = [{"unit": unit.dump()} for unit in self.plan.units]
        for item, row in zip(items, run_here("read", passes.read_keys, items, work=work, in_order=True), strict=True):
            self._lefts.append(json.loads(row["left"]))
            decision = self._decider.decide(np.frombuffer(row["keys"], DTYPE))
            yield passes.write_unit({**item, "mark": row["mark"], **decision.unit(slice(None))}, work)

    def unit(self, count: int = 1) -> None:
        for _ in range(count):
            self._done.append(json.loads(next(self._waiting)["done"]))

    def seal(self) -> None:
        decider = self._decider
        read = {"left": merge_left(self._lefts), "conflicts": decider.conflicts, "codes": decider.counts}
        report = build_report(self.plan.work.config, self.plan.files, read, self._done)
        stage._seal(self.plan, self._done, report, self.storage)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """112 texts; those of the third unit have no score, so it gives no row."""
    rows = scored(16 * UNITS)
    for row in rows[32:48]:
        row["score"] = 0.0
    return lines(tmp_path_factory.mktemp("corpus") / "rows.jsonl", rows)


@pytest.fixture
def writer(corpus: Path, tmp_path: Path, minilm: Path) -> Writer:
    return Writer(corpus, tokenizer_storage(tmp_path / "storage", minilm))


def _open(writer: Writer, quiet_s: float = 0.2) -> StreamedStore:
    return StreamedStore(writer.storage, writer.rel, quiet_s=quiet_s)


def _content(split: Any, rows: int) -> list[tuple[bytes, list[int], int, str]]:
    every = np.arange(rows)
    ids = [values.tolist() for values in split.input_ids(every)]
    return list(zip(split.ids_of(every), ids, split.labels[every].tolist(), split.texts(every), strict=True))


def test_rows_of_a_growing_store_are_those_of_the_finished_one_and_never_move(writer: Writer) -> None:
    writer.begin()
    writer.unit(2)
    store = _open(writer)
    store.wait_units(2)
    seen = [_content(store.split("train"), len(store.split("train")))]
    for count in range(3, UNITS + 1):
        writer.unit()
        store.wait_units(count)
        assert not store.complete
        train = store.split("train")
        assert train.lengths[np.arange(len(train))].tolist() == [len(ids) for _, ids, *_ in _content(train, len(train))]
        seen.append(_content(train, len(train)))
    writer.seal()
    store.wait_units(UNITS + 1)
    assert store.complete
    finished = TokenStore.open(writer.storage, writer.rel).split("train")
    whole = _content(finished, len(finished))
    assert _content(store.split("train"), len(store.split("train"))) == whole
    for content in seen:
        assert content == whole[: len(content)]
    sizes = [len(content) for content in seen]
    assert sizes[0] == sizes[1]  # the third unit brought nothing
    assert sizes[1:] == sorted(set(sizes))
    assert not any(name.startswith("unit-") for name in writer.storage.list(writer.rel))


def test_validation_rows_are_those_of_the_first_window_whenever_they_are_asked_for(writer: Writer) -> None:
    writer.begin()
    writer.unit(WINDOW)
    early = _open(writer).split("validation")
    content = _content(early, len(early))
    assert 1 <= len(content) < 16
    writer.unit(UNITS - WINDOW)
    store = _open(writer)
    assert _content(store.split("validation"), len(store.split("validation"))) == content
    writer.seal()
    store = _open(writer)
    assert _content(store.split("validation"), len(store.split("validation"))) == content
    whole = TokenStore.open(writer.storage, writer.rel).split("validation")
    assert len(whole) > len(content)


def test_a_reader_waits_for_the_shards_that_it_asks_for_and_no_longer(writer: Writer) -> None:
    writer.begin()
    writer.unit(2)
    store = _open(writer, quiet_s=30)
    stream = store.stream(2)
    assert (len(stream.shard_rows), stream.window, stream.complete) == (2, WINDOW, False)

    def write() -> None:
        for _ in range(UNITS - 2):
            time.sleep(0.1)
            writer.unit()
        writer.seal()

    thread = threading.Thread(target=write)
    thread.start()
    third = store.stream(3)  # the third unit has no training rows, so it is the fourth's shard
    assert 3 <= len(third.shard_rows) < 6
    last = store.stream(100)
    thread.join()
    assert (len(last.shard_rows), last.complete) == (UNITS - 1, True)
    assert last.shard_rows[:3] == third.shard_rows[:3]


def test_each_unit_starts_the_clock_anew(writer: Writer) -> None:
    writer.begin()

    def write() -> None:
        for _ in range(UNITS):
            time.sleep(0.25)
            writer.unit()

    thread = threading.Thread(target=write)
    thread.start()
    store = _open(writer, quiet_s=1.5)
    store.wait_units(UNITS)  # longer than 1.5 s in all
    thread.join()
    with pytest.raises(DamagedError, match=rf"no new shard for 2 s \({UNITS} units are there\)"):
        store.wait_units(UNITS + 1)


def test_a_reason_that_a_writer_left_is_told_at_once(writer: Writer) -> None:
    writer.begin()
    writer.unit(2)
    store = _open(writer, quiet_s=60)
    writer.storage.write_json(f"{writer.rel}/{FAILED}", {"error": "the disk is full"})
    assert len(store.stream(2).shard_rows) == 2  # what is there can be used
    started = time.monotonic()
    with pytest.raises(DataError, match="the rows that this run was waiting for will not come: the disk is full"):
        store.stream(3)
    assert time.monotonic() - started < 10


def test_a_store_that_nobody_began_is_told_by_its_place(writer: Writer) -> None:
    with pytest.raises(DamagedError, match=r"no new shard for 0 s \(0 units are there\).*Run it to its end"):
        _open(writer)


def test_the_kind_of_reader_goes_by_how_a_store_was_made(writer: Writer) -> None:
    writer.begin()
    writer.unit(UNITS)
    writer.seal()
    assert isinstance(open_store(writer.storage, writer.rel), StreamedStore)
    writer.storage.remove(f"{writer.rel}/{PLAN}")
    assert isinstance(open_store(writer.storage, writer.rel), TokenStore)


def test_shards_of_an_object_store_are_copied_to_this_machine_once(
    corpus: Path, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer
) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    far = Writer(corpus, tokenizer_storage(f"memory://growing/{tmp_path.name}", minilm))
    for each in (far, writer):
        each.begin()
        each.unit(3)
    store = _open(far)
    store.wait_units(3)
    near = _open(writer)
    near.wait_units(3)
    content = _content(store.split("train"), len(store.split("train")))
    assert content == _content(near.split("train"), len(near.split("train")))
    fs, key = fsspec.core.url_to_fs(far.storage.path(far.rel))
    for name in store.split("train").files:
        fs.rm(f"{key}/{name}")
    again = _open(far)
    again.wait_units(3)
    assert _content(again.split("train"), len(again.split("train"))) == content

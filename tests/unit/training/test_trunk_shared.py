"""Who shares stored outputs of the frozen bottom, at once or later, and what a kill or a damaged file costs."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from orchestration.data.store import mapped
from orchestration.storage import Storage
from orchestration.training.job import TrainJob
from orchestration.training.trunk import blocks, fill
from tests.tiny import make_store
from tests.trunk_case import Case, stored_files, trunk_job


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 rows in 6 blocks of 16."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 16)
    monkeypatch.setattr(fill, "FILL_TOKENS", 100)
    monkeypatch.setattr(fill, "POLL_S", 0.02)


def test_a_second_run_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Case(trunk_job(tmp_path, freeze=2)).prepare()
    monkeypatch.setattr(fill, "trunk_output", _never)
    for run in ("two", "three"):
        found = Case(trunk_job(tmp_path, freeze=2, run=run, dropout=0.3, batch=9, epochs=3)).prepare()
        assert found is not None
        assert found.computed == 0


@pytest.mark.parametrize("change", [{"freeze": 3}, {"dtype": "bf16"}, {"precision": "bf16"}])
def test_another_depth_type_or_precision_is_stored_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    Case(trunk_job(tmp_path, freeze=2)).prepare()
    found = Case(trunk_job(tmp_path, **{"freeze": 2, **change})).prepare()
    assert found is not None
    assert found.computed == 114


def test_only_rows_that_are_used_are_computed_and_more_rows_later_use_those_that_are_there(tmp_path: Path) -> None:
    small = Case(trunk_job(tmp_path, freeze=2, rows=20, validation={"rows": 5}))
    found = small.prepare()
    assert found is not None
    assert found.computed == 25
    more = Case(trunk_job(tmp_path, freeze=2, rows=40)).prepare()
    assert more is not None
    assert more.computed == 24 + 24  # a block of 16 was there, and none of the validation rows' (5 of 16)
    less = Case(trunk_job(tmp_path, freeze=2, rows=30)).prepare()
    assert less is not None
    assert less.computed == 0


def test_two_processes_at_once_share_the_work(tmp_path: Path) -> None:
    trunk_job(tmp_path, freeze=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    trials = [context.Process(target=_trial, args=(tmp_path, f"trial-{i}", queue)) for i in range(2)]
    for trial in trials:
        trial.start()
    found = [queue.get(timeout=120) for _ in trials]
    for trial in trials:
        trial.join(30)
    assert sum(computed for computed, _ in found) == 114
    assert all(computed > 0 for computed, _ in found)
    assert found[0][1] == found[1][1]
    assert not stored_files(Case(trunk_job(tmp_path, freeze=2)), "*.claim")


def test_after_a_kill_the_rest_is_computed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    wanted = Case(trunk_job(tmp_path, freeze=2, use="off")).fit()[0]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_trial, args=(tmp_path, "killed", context.Queue(), 0.05))
    process.start()
    case = Case(trunk_job(tmp_path, freeze=2))
    end = time.monotonic() + 60
    while not (stored_files(case, "*.bin") and stored_files(case, "*.claim")):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = len(stored_files(case, "*.bin"))
    assert 0 < there < 8
    found = case.prepare()
    assert found is not None
    assert 0 < found.computed < 114
    assert len(stored_files(case, "*.bin")) == 8
    assert not stored_files(case, "*.claim")
    assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path: Path, harm: str) -> None:
    Case(trunk_job(tmp_path, freeze=2)).prepare()
    case = Case(trunk_job(tmp_path, freeze=2))
    victim = stored_files(case, "*.bin")[2]
    data = bytearray(victim.read_bytes())
    data = data[:-8] if harm == "cut" else data[:100] + bytes([data[100] ^ 1]) + data[101:]
    victim.write_bytes(data)
    found = case.prepare()
    assert found is not None
    assert 0 < found.computed <= 16
    assert [victim.name in event["text"] for event in case.events if event["type"] == "warning"] == [True]
    again = Case(trunk_job(tmp_path, freeze=2)).prepare()
    assert again is not None
    assert again.computed == 0


def test_folds_of_a_store_share_one_trunk(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    trunk_job(tmp_path, freeze=2)
    _folded(storage)
    computed = []
    for fold in (0, 1):
        job = trunk_job(tmp_path, freeze=2, fold=fold)
        wanted = Case(_at(job, "off")).fit()[0]
        case = Case(_at(job, "on"))
        found = case.prepare()
        assert found is not None
        computed.append(found.computed)
        assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)
    assert computed == [60, 0]


def test_object_stores_hold_it_too_and_a_rank_reads_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    wanted = Case(trunk_job(tmp_path / "local", freeze=2, use="off")).fit()[0]
    job = trunk_job(tmp_path / "local", freeze=2)
    case = Case(job)
    remote = Storage("memory://trunk-test")
    monkeypatch.setattr(fill, "Storage", lambda _: remote)
    for wanted_computed in (114, 0):
        case = Case(job)
        found = case.prepare()
        assert found is not None
        assert found.computed == wanted_computed
        assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)
    assert not stored_files(case)


# ------------------------------------------------------------------------------------------------------------- claims


def test_a_claim_of_a_living_process_is_kept_and_those_of_dead_or_silent_ones_are_not(tmp_path: Path) -> None:
    made = blocks.Blocks(Storage(str(tmp_path)), "trunks/a", tokens_N=np.ones(40, np.int64), width=4, dtype="fp32")
    file = tmp_path / "trunks/a/000000.claim"
    with made.claim(0) as mine:
        assert mine is not None
        with made.claim(0) as other:
            assert other is None
        assert file.exists()
        stamp = json.loads(file.read_text())
    assert not file.exists()
    for change in ({"pid": 2**22 + 1}, {"at": time.time() - 1e4}, {"at": 0.0, "host": "elsewhere"}):
        file.write_text(json.dumps({**stamp, **change}))
        with made.claim(0) as taken:
            assert taken is not None
    file.write_text(json.dumps({**stamp, "at": time.time(), "host": "elsewhere"}))
    with made.claim(0) as theirs:
        assert theirs is None


def test_millions_of_rows_make_larger_blocks_not_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 256)
    made = blocks.Blocks(
        Storage(str(tmp_path)), "trunks/a", tokens_N=np.ones(5_000_000, np.int64), width=4, dtype="fp32"
    )
    needs = made.needed(np.arange(5_000_000))
    assert len(needs) <= blocks.MOST_BLOCKS
    assert sum(need.rows for need in needs) == 5_000_000


def _never(*_: Any) -> None:
    raise AssertionError("the bottom ran")


def _at(job: TrainJob, use: str) -> TrainJob:
    train = job.train.model_copy(update={"trunk": job.train.trunk.model_copy(update={"use": use})})
    return dataclasses.replace(job, train=train, store_rel="stores/folds")


def _folded(storage: Storage) -> None:
    """60 rows in three folds."""
    make_store(storage, train=60, validation=1, rel="stores/plain")
    aside = storage.staging()
    folder = Path(storage.path("stores/plain"))
    meta = {**(storage.manifest("stores/plain") or _never()).meta, "spec": {"split": {"folds": 3}}}
    for file in folder.iterdir():
        if file.name == "train.arrow":
            (batch,) = mapped(file)
            at = batch.schema.get_field_index("fold")
            columns = list(batch.columns)
            columns[at] = pa.array(np.arange(60) % 3, pa.int8())
            with pa.OSFile(str(aside / file.name), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
        elif file.name != "manifest.json":
            (aside / file.name).write_bytes(file.read_bytes())
    np.save(aside / "train.order.npy", np.random.Generator(np.random.PCG64(1)).permutation(60))
    storage.commit("stores/folds", aside, meta)


def _trial(root: Path, run: str, queue: Any, slow_s: float = 0.01) -> None:
    """In a process of its own: each forward pass takes a while longer."""
    torch.set_num_threads(1)
    real = fill.trunk_output

    def slow(*args: Any) -> torch.Tensor:
        time.sleep(slow_s)
        return real(*args)

    fill.trunk_output = slow
    case = Case(trunk_job(root, freeze=2, run=run))
    found = case.prepare()
    assert found is not None
    queue.put((found.computed, float(next(case.feed.steps(0)).micros[0].inputs["hidden"].sum())))

"""The store of the frozen bottom's outputs, from `prepare` down."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import loss, optim, text
from models.trunk import trunk_output
from orchestration.data import rng
from orchestration.data.draw import Mix
from orchestration.data.store import TokenStore
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import engine
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob
from orchestration.training.trunk import blocks, fill
from orchestration.training.trunk.prepare import Trunk, prepare
from tests.tiny import make_job, make_store

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 rows in 6 blocks of 16."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 16)
    monkeypatch.setattr(fill, "FILL_TOKENS", 100)
    monkeypatch.setattr(fill, "POLL_S", 0.02)


class Case:
    """What `setup` has when it asks for a trunk."""

    def __init__(self, job: TrainJob, **feed: Any) -> None:
        self.job, self.storage, self.events = job, Storage(job.storage_url), list[dict[str, Any]]()
        self.store = TokenStore.open(self.storage, job.store_rel)
        train = job.train
        self.model = text.build(job.model, Path(self.storage.path(job.weights_rel)), list(job.labels), seed=job.seed)
        self.plan = optim.plan_groups(self.model, lr=2e-3, weight_decay=0.01, freeze=train.layers.freeze)
        common: dict[str, Any] = {"fingerprint": self.store.fingerprint, "batch": train.batch, "micro_batch": 5}
        common |= {"seed": job.seed, "pad_id": 0, "rank": 0, "world": 1, **feed}
        fold = None if self.store.folds is None else train.fold
        self.feed = Feed(self.store.split("train", fold).head(train.rows), **common)
        common = {name: value for name, value in common.items() if name not in ("mix", "augment", "stream")}
        self.held_out = Feed(self.store.split("validation", fold), **common, rows=train.validation.rows)
        self.forwards = 0

    def prepare(self, epochs: float = 2.0) -> Trunk | None:
        return prepare(
            self.model,
            self.plan,
            self.job,
            store=self.store,
            feeds=[self.feed, self.held_out],
            epochs=epochs,
            rank=0,
            world=1,
            device=CPU,
            report=self.events.append,
        )

    def fit(self) -> tuple[list[float], list[torch.Tensor]]:
        """Loss of each step of two epochs, then logits of the validation rows."""
        made = engine.build(self.model, self.plan, self.job.train, world=1, device=CPU)
        made.check(1.0)
        losses, logits = [], []
        for epoch in range(2):
            for step in self.feed.steps(epoch):
                total = torch.zeros(())
                for number, micro in enumerate(step.micros):
                    torch.manual_seed(rng.key("dropout", 7, epoch, step.batch, number) >> 1)
                    summed, _ = loss.classification(made.forward(**micro.inputs), micro.labels_B, micro.weight_B)
                    made.backward(summed / step.rows, last=number == len(step.micros) - 1)
                    total += summed.detach()
                made.update(1.0)
                losses.append(float(total) / step.rows)
        made.check(1.0)
        made.train(False)
        with torch.no_grad():
            for step in self.held_out.in_length_order():
                logits += [made.forward(**micro.inputs) for micro in step.micros]
        return losses, logits


def _job(root: Path, *, freeze: int, use: str = "on", dtype: str = "fp32", **more: Any) -> TrainJob:
    layers = {"freeze": freeze, **more.pop("layers", {})}
    return make_job(root, dropout=more.pop("dropout", 0.1), layers=layers, trunk={"use": use, "dtype": dtype}, **more)


def _files(case: Case, pattern: str = "*") -> list[Path]:
    return sorted(Path(case.storage.path("trunks")).glob(f"*/{pattern}"))


# ------------------------------------------------------------------------------------------------------ what it gives


@pytest.mark.parametrize("freeze", [1, 2, 3])
def test_losses_and_logits_are_those_of_computing_everything_with_dropout_above_the_cut(
    tmp_path: Path, freeze: int
) -> None:
    wanted_losses, wanted = Case(_job(tmp_path, freeze=freeze, use="off")).fit()
    case = Case(_job(tmp_path, freeze=freeze))
    found = case.prepare()
    assert found is not None
    assert (found.depth, found.rows, found.computed) == (freeze, 114, 114)
    losses, logits = case.fit()
    assert losses == pytest.approx(wanted_losses, abs=1e-5)
    assert torch.allclose(torch.cat(logits), torch.cat(wanted), atol=1e-5)
    assert torch.cat(wanted).std() > 1e-3


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.02), ("int8", 0.05)])
def test_smaller_types_stay_near(tmp_path: Path, dtype: str, most: float) -> None:
    wanted_losses, _ = Case(_job(tmp_path, freeze=2, use="off")).fit()
    case = Case(_job(tmp_path, freeze=2, dtype=dtype))
    whole = Case(_job(tmp_path, freeze=2))
    found, fp32 = case.prepare(), whole.prepare()
    assert found is not None
    assert fp32 is not None
    assert found.bytes == pytest.approx(fp32.bytes / {"bf16": 2, "int8": 4 * 32 / 36}[dtype])
    assert sum(path.stat().st_size for path in _files(case)) == found.bytes + fp32.bytes
    losses, _ = case.fit()
    assert losses == pytest.approx(wanted_losses, abs=most)
    assert losses != pytest.approx(wanted_losses, abs=1e-7)


def test_a_batch_has_the_bottoms_own_output_at_each_token_and_zeros_on_padding(tmp_path: Path) -> None:
    case = Case(_job(tmp_path, freeze=2))
    plain = [micro for step in case.feed.steps(3) for micro in step.micros]
    wanted = [trunk_output(case.model, 2, **_named(micro.inputs)) for micro in plain]
    case.prepare()
    found = [micro for step in case.feed.steps(3) for micro in step.micros]
    for one, other, hidden_BLD in zip(plain, found, wanted, strict=True):
        mask_BL = one.inputs["attention_mask"]
        assert torch.equal(other.inputs["attention_mask"], mask_BL)
        assert torch.equal(one.labels_B, other.labels_B)
        assert torch.allclose(other.inputs["hidden"], hidden_BLD * mask_BL[..., None], atol=1e-6)


def test_a_rank_without_rows_gets_a_row_that_fills_the_place(tmp_path: Path) -> None:
    case = Case(_job(tmp_path, freeze=2, batch=1), rank=1, world=2)
    case.prepare()
    micro = next(case.feed.steps(0)).micros[0]
    assert micro.inputs["hidden"].shape == (1, 1, 32)
    assert micro.weight_B.tolist() == [0.0]
    assert torch.isfinite(case.model(**micro.inputs).logits).all()


def test_under_the_head_alone_one_token_a_row_is_stored(tmp_path: Path) -> None:
    case = Case(_job(tmp_path, freeze=3))
    found = case.prepare()
    assert found is not None
    assert found.bytes == 114 * 32 * 4
    assert next(case.feed.steps(0)).micros[0].inputs["hidden"].shape == (4, 1, 32)


def test_what_is_frozen_is_not_held_and_what_trains_keeps_its_name(tmp_path: Path) -> None:
    case = Case(_job(tmp_path, freeze=2))
    trainable = {name for row in case.plan if row.trainable for name in row.param_names}
    case.prepare()
    assert {name for name, _ in case.model.named_parameters()} == trainable


# ------------------------------------------------------------------------------------------------------ who shares it


def test_a_second_run_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Case(_job(tmp_path, freeze=2)).prepare()
    monkeypatch.setattr(fill, "trunk_output", _never)
    for run in ("two", "three"):
        found = Case(_job(tmp_path, freeze=2, run=run, dropout=0.3, batch=9, epochs=3)).prepare()
        assert found is not None
        assert found.computed == 0


@pytest.mark.parametrize("change", [{"freeze": 3}, {"dtype": "bf16"}, {"precision": "bf16"}])
def test_another_depth_type_or_precision_is_stored_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    Case(_job(tmp_path, freeze=2)).prepare()
    found = Case(_job(tmp_path, **{"freeze": 2, **change})).prepare()
    assert found is not None
    assert found.computed == 114


def test_only_rows_that_are_used_are_computed_and_more_rows_later_use_those_that_are_there(tmp_path: Path) -> None:
    small = Case(_job(tmp_path, freeze=2, rows=20, validation={"rows": 5}))
    found = small.prepare()
    assert found is not None
    assert found.computed == 25
    more = Case(_job(tmp_path, freeze=2, rows=40)).prepare()
    assert more is not None
    assert more.computed == 24 + 24  # a block of 16 was there, and none of the validation rows' (5 of 16)
    less = Case(_job(tmp_path, freeze=2, rows=30)).prepare()
    assert less is not None
    assert less.computed == 0


def test_two_processes_at_once_share_the_work(tmp_path: Path) -> None:
    _job(tmp_path, freeze=2)
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
    assert not _files(Case(_job(tmp_path, freeze=2)), "*.claim")


def test_after_a_kill_the_rest_is_computed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    wanted = Case(_job(tmp_path, freeze=2, use="off")).fit()[0]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_trial, args=(tmp_path, "killed", context.Queue(), 0.05))
    process.start()
    case = Case(_job(tmp_path, freeze=2))
    end = time.monotonic() + 60
    while not (_files(case, "*.bin") and _files(case, "*.claim")):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = len(_files(case, "*.bin"))
    assert 0 < there < 8
    found = case.prepare()
    assert found is not None
    assert 0 < found.computed < 114
    assert len(_files(case, "*.bin")) == 8
    assert not _files(case, "*.claim")
    assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path: Path, harm: str) -> None:
    Case(_job(tmp_path, freeze=2)).prepare()
    case = Case(_job(tmp_path, freeze=2))
    victim = _files(case, "*.bin")[2]
    data = bytearray(victim.read_bytes())
    data = data[:-8] if harm == "cut" else data[:100] + bytes([data[100] ^ 1]) + data[101:]
    victim.write_bytes(data)
    found = case.prepare()
    assert found is not None
    assert 0 < found.computed <= 16
    assert [victim.name in event["text"] for event in case.events if event["type"] == "warning"] == [True]
    again = Case(_job(tmp_path, freeze=2)).prepare()
    assert again is not None
    assert again.computed == 0


def test_folds_of_a_store_share_one_trunk(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    _job(tmp_path, freeze=2)
    _folded(storage)
    computed = []
    for fold in (0, 1):
        job = _job(tmp_path, freeze=2, fold=fold)
        wanted = Case(_at(job, "off")).fit()[0]
        case = Case(_at(job, "on"))
        found = case.prepare()
        assert found is not None
        computed.append(found.computed)
        assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)
    assert computed == [60, 0]


def test_object_stores_hold_it_too_and_a_rank_reads_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    wanted = Case(_job(tmp_path / "local", freeze=2, use="off")).fit()[0]
    job = _job(tmp_path / "local", freeze=2)
    case = Case(job)
    remote = Storage("memory://trunk-test")
    monkeypatch.setattr(fill, "Storage", lambda _: remote)
    for wanted_computed in (114, 0):
        case = Case(job)
        found = case.prepare()
        assert found is not None
        assert found.computed == wanted_computed
        assert case.fit()[0] == pytest.approx(wanted, abs=1e-5)
    assert not _files(case)


# ----------------------------------------------------------------------------------------------- when it is not used


def test_auto_leaves_small_runs_alone_and_uses_what_is_there(tmp_path: Path) -> None:
    case = Case(_job(tmp_path, freeze=2, use="auto"))
    assert case.prepare(epochs=3) is None
    assert case.events[-1]["used"] is False
    assert next(case.feed.steps(0)).micros[0].inputs.keys() == {"input_ids", "attention_mask"}
    Case(_job(tmp_path, freeze=2)).prepare()
    used = Case(_job(tmp_path, freeze=2, use="auto"))
    found = used.prepare(epochs=1)
    assert found is not None
    assert found.computed == 0
    assert "all of it is there" in used.events[-1]["text"]


def test_off_is_silent_and_nothing_frozen_is_nothing_to_store(tmp_path: Path) -> None:
    for job in (_job(tmp_path, freeze=2, use="off"), _job(tmp_path, freeze=0, use="auto")):
        case = Case(job)
        assert case.prepare() is None
        assert case.events == []


@pytest.mark.parametrize(
    ("job", "feed", "why"),
    [
        ({"freeze": 0}, {}, "nothing is frozen"),
        ({"freeze": 2, "layers": {"unfreeze": {"until": 0}}}, {}, "train.layers.unfreeze"),
        ({"freeze": 2}, {"augment": lambda rows, epoch: []}, "data.augment.when"),
        ({"freeze": 2}, {"stream": lambda shards: None}, "data.stream"),
    ],
)
def test_where_outputs_cannot_be_stored_on_is_refused_and_auto_does_without(
    tmp_path: Path, job: dict[str, Any], feed: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        Case(_job(tmp_path, **job), **feed).prepare()
    assert Case(_job(tmp_path, use="auto", **job), **feed).prepare(epochs=1000) is None


def test_weighted_sources_are_stored_only_when_asked_for(tmp_path: Path) -> None:
    _job(tmp_path, freeze=2)
    mix = Mix.by_row(np.repeat([0, 1], [80, 10]), [1.0, 1.0])
    assert Case(_job(tmp_path, freeze=2, use="auto"), mix=mix).prepare(epochs=1000) is None
    case = Case(_job(tmp_path, freeze=2), mix=mix)
    assert case.prepare() is not None
    assert len(list(case.feed.steps(0))) > 90 / 12


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    case = Case(_job(tmp_path, freeze=2))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"need 0 MiB in .*trunks: No space left on device; make room"):
        case.prepare()
    assert not _files(case, "*.claim")


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


# -------------------------------------------------------------------------------------------------------------- parts


def _named(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids_BL": inputs["input_ids"], "attention_mask_BL": inputs["attention_mask"]}


def _never(*_: Any) -> None:
    raise AssertionError("the bottom ran")


def _at(job: TrainJob, use: str) -> TrainJob:
    import dataclasses

    train = job.train.model_copy(update={"trunk": job.train.trunk.model_copy(update={"use": use})})
    return dataclasses.replace(job, train=train, store_rel="stores/folds")


def _folded(storage: Storage) -> None:
    """60 rows in three folds."""
    import pyarrow as pa

    from orchestration.data.store import mapped

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
    case = Case(_job(root, freeze=2, run=run))
    found = case.prepare()
    assert found is not None
    queue.put((found.computed, float(next(case.feed.steps(0)).micros[0].inputs["hidden"].sum())))

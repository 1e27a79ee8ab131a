"""What a fit makes of the store's spec: folds, weights of sources, a store that is still being written."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.passes import note_name
from orchestration.data.shards import write_shard
from orchestration.data.stream import PLAN
from orchestration.errors import UserError
from orchestration.storage import Storage, describe
from orchestration.training import loop
from orchestration.training.config import TrainConfig
from orchestration.training.job import LoopResult, TrainJob
from tests.tiny import LABELS, _row, columns, make_job

ROWS = [_row(number) for number in range(114)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("setup")


def _meta(**spec: Any) -> dict[str, Any]:
    whole = {"split": {"folds": None}, "mix": None, "stream": None, **spec}
    return {"address": "made", "labels": list(LABELS), "report": {}, "preprocessing": {}, "shapes": {}, "spec": whole}


def _shard(path: Path, numbers: range, **more: Any) -> None:
    rows = [ROWS[number] for number in numbers]
    texts = [" ".join(map(str, ids)) for ids, _ in rows]
    made = columns([ids for ids, _ in rows], [label for _, label in rows], texts, first=numbers.start)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, dataclasses.replace(made, **more))


def _store(root: Path, rel: str, meta: dict[str, Any], **more: Any) -> str:
    """90 training rows (the first), 24 validation rows."""
    storage, aside = Storage(str(root)), Storage(str(root)).staging()
    for name, numbers in {"train": range(90), "validation": range(90, 114), "test": range(0)}.items():
        _shard(aside / f"{name}.arrow", numbers, **{key: values[numbers] for key, values in more.items()})
        np.save(aside / f"{name}.order.npy", np.arange(len(numbers)))
    splits = {name: {"shards": [f"{name}.arrow"]} for name in ("train", "validation", "test")}
    storage.commit(rel, aside, {**meta, "splits": splits})
    return rel


class Recorded(loop.Fit):
    """A fit that writes down the rows of each step."""

    def __init__(self, job: TrainJob, report: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        super().__init__(job, rank=0, world=1, report=report, stop=None)
        self.rows: list[list[int]] = []

    def _train(self, step: Any, factor: float) -> None:
        numbers = {tuple(ids): number for number, (ids, _) in enumerate(ROWS)}
        self.rows.append(
            sorted(
                numbers[tuple(ids_L[mask_L.bool()].tolist())]
                for micro in step.micros
                for ids_L, mask_L in zip(micro.inputs["input_ids"], micro.inputs["attention_mask"], strict=True)
            )
        )
        super()._train(step, factor)


def _flat(steps: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(steps))


def _job(root: Path, rel: str, run: str, **train: Any) -> TrainJob:
    return dataclasses.replace(make_job(root, run=run, **train), store_rel=rel)


def test_one_fold_validates_and_the_others_train(root: Path) -> None:
    folds = np.arange(114) % 3
    rel = _store(root, "stores/folds", _meta(split={"folds": 3}), folds=folds)
    for fold in (0, 2):
        fit = Recorded(_job(root, rel, f"fold{fold}", fold=fold))
        result = fit.run()
        assert sorted(_flat(fit.rows)) == [row for row in range(90) if row % 3 != fold]
        assert result.validations[0]["rows"] == 30
    with pytest.raises(UserError, match=r"fold 3: the store has the folds 0 to 2; set train\.fold"):
        Recorded(_job(root, rel, "fold3", fold=3))


@pytest.mark.parametrize(("stop", "steps"), [("first", 2), ("all", 13)])
def test_sources_are_mixed_by_their_weights(root: Path, stop: str, steps: int) -> None:
    """12 rows of one source and 78 of the other, of equal weight: epochs of 24 or of 156 rows."""
    weights = [{"weight": 2.0}, {"weight": 2.0}]
    sources = np.repeat([0, 1, 0], [12, 78, 24])
    rel = _store(root, f"stores/mixed-{stop}", _meta(mix={"stop": stop}, sources=weights), sources=sources)
    fit = Recorded(_job(root, rel, f"mixed-{stop}", epochs=2))
    assert fit.run().steps == fit.total_steps == len(fit.rows) == 2 * steps
    epochs = [_flat(fit.rows[:steps]), _flat(fit.rows[steps:])]
    for rows in epochs:
        assert sum(row < 12 for row in rows) == len(rows) / 2
        assert len(set(rows)) == (len(rows) if stop == "first" else 90)
    assert epochs[0] != epochs[1]


def test_micro_batches_by_tokens_give_the_losses_of_micro_batches_by_rows(root: Path) -> None:
    by_rows = loop.run(make_job(root, run="rows", micro_batch=5, epochs=2), report=lambda event: None)
    by_tokens = loop.run(make_job(root, run="tokens", micro_tokens=60, epochs=2), report=lambda event: None)
    assert by_tokens.losses == pytest.approx(by_rows.losses, abs=1e-6)
    assert by_tokens.validations[-1]["loss"] == pytest.approx(by_rows.validations[-1]["loss"], abs=1e-6)


def test_rows_and_tokens_a_micro_batch_are_not_given_together() -> None:
    with pytest.raises(ValueError, match="micro_batch=4 and micro_tokens=100 say the same; leave one of the two out"):
        TrainConfig(micro_batch=4, micro_tokens=100)


# ---------------------------------------------------------------------------------------------------- streaming

UNITS = 6  # of 15 training and 4 validation rows each


class Writer:
    """Writes a streamed store, unit by unit as `prepare` does."""

    def __init__(self, root: Path, rel: str) -> None:
        self.storage, self.rel = Storage(str(root)), rel
        self.meta = {**_meta(stream={"window": 2}), "units": UNITS}
        self.storage.write_json(f"{rel}/{PLAN}", self.meta)

    def unit(self, number: int) -> None:
        files = {name: f"{name}-{number:06d}.arrow" for name in ("train", "validation")}
        _shard(Path(self.storage.path(f"{self.rel}/{files['train']}")), range(number * 15, number * 15 + 15))
        _shard(Path(self.storage.path(f"{self.rel}/{files['validation']}")), range(90 + number * 4, 94 + number * 4))
        note = {name: {"file": file} for name, file in files.items()}
        self.storage.write_json(f"{self.rel}/{note_name(number)}", {**note, "left": {}})

    def seal(self) -> None:
        parts = {
            name: [f"{name}-{number:06d}.arrow" for number in range(UNITS)] for name in ("train", "validation")
        } | {"test": []}
        folder = Path(self.storage.path(self.rel))
        files = {file: describe(folder / file) for names in parts.values() for file in names}
        splits = {name: {"shards": found} for name, found in parts.items()}
        self.storage.seal(self.rel, files, {**self.meta, "splits": splits})
        for number in range(UNITS):
            self.storage.remove(f"{self.rel}/{note_name(number)}")


@pytest.fixture(scope="module")
def prepared_first(root: Path) -> tuple[LoopResult, list[list[int]], list[dict[str, Any]]]:
    writer = Writer(root, "stores/first")
    for number in range(UNITS):
        writer.unit(number)
    writer.seal()
    events: list[dict[str, Any]] = []
    fit = Recorded(_job(root, "stores/first", "first", epochs=2), events.append)
    return fit.run(), fit.rows, events


def test_a_run_that_trains_while_rows_are_prepared_sees_the_batches_of_one_that_prepared_first(
    root: Path, prepared_first: tuple[LoopResult, list[list[int]], list[dict[str, Any]]]
) -> None:
    writer, stepped = Writer(root, "stores/behind"), threading.Event()
    for number in (0, 1):
        writer.unit(number)

    def rest() -> None:
        assert stepped.wait(60)  # the first step is made before the other units are
        for number in range(2, UNITS):
            writer.unit(number)
        writer.seal()

    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "step":
            stepped.set()

    thread = threading.Thread(target=rest)
    thread.start()
    try:
        fit = Recorded(_job(root, "stores/behind", "behind", epochs=2), report)
        result = fit.run()
    finally:
        stepped.set()
        thread.join()
    first, rows, wanted = prepared_first
    assert fit.rows == rows
    assert sorted(_flat(rows[:8])) == sorted(_flat(rows[8:])) == list(range(90))
    assert result.losses == first.losses
    assert result.validations == first.validations
    assert [event["lr"] for event in events if "lr" in event] == [event["lr"] for event in wanted if "lr" in event]


def test_rows_of_the_first_steps_are_those_of_the_first_window_of_shards(prepared_first: Any) -> None:
    rows = prepared_first[1]
    assert max(rows[0] + rows[1]) < 30
    assert max(rows[3]) < 60


def test_a_run_on_a_streamed_store_resumes_in_mid_window(root: Path, prepared_first: Any) -> None:
    job = _job(root, "stores/first", "resumed", epochs=2, checkpoint={"every_steps": 3, "keep": 9})
    asked = iter([False] * 3 + [True] * 99)
    halted = loop.run(job, report=lambda event: None, stop=lambda: next(asked))
    fit = Recorded(job)
    result = fit.run()
    assert (halted.ended, halted.steps, result.resumed_from is not None) == ("stopped", 5, True)
    assert fit.rows == prepared_first[1][5:]
    assert result.losses == prepared_first[0].losses

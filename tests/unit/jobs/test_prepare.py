"""What a fit is given before its rows are there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import prepare
from jobs.context import Job, open_job
from jobs.spec import load_spec
from orchestration.data.prepare import Prepared, make_plan
from orchestration.data.stream import FAILED
from orchestration.errors import DataError
from orchestration.weights import stage
from tests.corpora import LABELS, lines, scored, source


@pytest.fixture
def job(tmp_path: Path, minilm: Path) -> Job:
    values = {
        "name": "streamed",
        "storage": str(tmp_path / "storage"),
        "data": {
            "labels": LABELS,
            "sources": [source(lines(tmp_path / "rows.jsonl", scored(40)))],
            "split": {"validation": 0.1, "test": 0.1},
            "stream": {},
        },
        "model": {"path": str(minilm)},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
    return open_job(load_spec(tmp_path / "spec.yaml"))


def _rel(job: Job) -> str:
    weights = stage(job.spec.model.path, job.storage)
    known: dict[str, Any] = {"weights_rel": weights.rel, "seed": job.spec.seed, "storage": job.storage}
    return make_plan(job.spec.data, **known).work.store_rel


def test_the_failure_of_an_earlier_try_is_gone_before_anybody_reads(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    rel, go_on = _rel(job), threading.Event()
    job.storage.write_json(f"{rel}/{FAILED}", {"error": "the disk is full"})

    def slow(*args: Any, **known: Any) -> Prepared:
        assert go_on.wait(30)
        return Prepared(rel, "", False, {})

    monkeypatch.setattr(prepare, "prepare", slow)
    with prepare.preparing(job) as inputs:
        assert inputs.store.rel == rel
        assert not job.storage.exists(f"{rel}/{FAILED}")
        go_on.set()


def _fit(job: Job, *, fails: bool) -> None:
    with prepare.preparing(job):
        if fails:
            time.sleep(0.3)
            raise RuntimeError("a worker died")


@pytest.mark.parametrize("fit_fails", [True, False])
def test_why_rows_did_not_come_is_the_word_that_the_user_gets(
    job: Job, fit_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **known: Any) -> Prepared:
        raise DataError("3 rows cannot be used")

    monkeypatch.setattr(prepare, "prepare", fails)
    with pytest.raises(DataError, match="3 rows cannot be used"):
        _fit(job, fails=fit_fails)


def test_a_fit_that_fails_by_itself_keeps_its_own_word(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "prepare", lambda *args, **known: Prepared(_rel(job), "", False, {}))
    with pytest.raises(RuntimeError, match="a worker died"):
        _fit(job, fails=True)

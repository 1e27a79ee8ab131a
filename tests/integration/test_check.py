"""`eagleray check` over real Ray Train workers: two give the numbers of one; two that scale their loss wrongly are found out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import check
from jobs.context import Job
from jobs.prepare import Inputs
from jobs.spec import load_spec
from orchestration.data.prepare import Prepared
from orchestration.registry import Registry
from orchestration.storage import Storage
from orchestration.telemetry import Console
from orchestration.training import worker
from orchestration.weights import Weights
from tests.architecture.tree import ROOT
from tests.tiny import BERT, make_store, make_weights


@pytest.fixture(scope="module")
def job(ray_session: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("check")
    sizes = ["data.tokenize.max_length=32", "train.batch=12", "train.optimizer.lr=2e-3", "train.layers.freeze=1"]
    changed = [f"storage={root}", "tune=null", "train.zero.stage=2", *sizes]
    found = load_spec(ROOT / "jobs" / "recipes" / "quickstart.yaml", changed)
    storage = Storage(found.storage)
    make_weights(storage)
    make_store(storage)
    return Job(found, storage, Console(quiet=True), Registry(storage, None), cluster=ray_session)


@pytest.fixture(scope="module")
def inputs(job: Job) -> Inputs:
    return Inputs(Weights("weights/tiny", "tiny", BERT), Prepared("stores/tiny", "tiny", True, {}))


@pytest.fixture
def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers of a group of several forget that the loss is a mean over all of them. The worker's function is sent by value: tests are not
    on the workers' path."""
    from ray import cloudpickle

    def run(config: dict[str, Any]) -> Any:
        from models import loss
        from orchestration.training import worker

        whole, world = loss.classification, config["job"].world
        loss.classification = lambda *args: (whole(*args)[0] / world, whole(*args)[1])  # type: ignore[assignment]
        return worker.run(config)

    module = importlib.import_module(__name__)
    cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(worker, "run", run)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def test_two_workers_give_the_numbers_of_one_and_leave_nothing_behind(job: Job, inputs: Inputs) -> None:
    found = check.checked(job, inputs, check_id="equal", steps=3)
    assert found.ok, found.worst()
    assert (found.many_world, found.many_stage, found.one_stage, found.steps) == (2, 2, None, 3)
    assert Path(job.storage.path("runs")).exists()
    assert not job.storage.list("runs")


def test_two_workers_that_scale_their_loss_wrongly_are_found_out(job: Job, inputs: Inputs, wrong_scale: None) -> None:
    found = check.checked(job, inputs, check_id="wrong", steps=2)
    assert not found.ok
    assert {row.part for row in found.rows if not row.ok} >= {"loss", "gradient norm", "gradients"}
    assert check.refusal(found).startswith("2 workers do not give the numbers of one: ")
    assert not job.storage.list("runs")

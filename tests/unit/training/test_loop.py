"""The loop in this process, on one rank: events, early stopping, what is kept and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.data.order import Epoch
from orchestration.data.store import TokenStore
from orchestration.errors import PlanMismatchError, UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.bare import LiveGroup, compare, load_weights, total_norm
from orchestration.training.faults import NotFinite
from orchestration.training.job import LoopResult
from tests.tiny import make_job, make_store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


def _run(root: Path, run: str, **train: Any) -> tuple[LoopResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return loop.run(make_job(root, run=run, **train), report=events.append), events


def test_a_run_tells_start_steps_validations_and_checkpoints_in_order(root: Path) -> None:
    result, events = _run(root, "told", epochs=2, report_every=3)
    assert [(event["type"], event["step"]) for event in events if event["type"] != "checkpoint"] == [
        ("start", 0),
        ("step", 3),
        ("step", 6),
        ("validation", 8),
        ("step", 9),
        ("step", 12),
        ("step", 15),
        ("step", 16),
        ("validation", 16),
    ]
    assert [event["step"] for event in events if event["type"] == "checkpoint"] == [8, 16]  # told when they are written
    assert events[0]["rows"] == 90
    assert (events[0]["steps"], events[0]["zero_stage"], events[0]["resumed_from"]) == (16, None, None)
    best = max(result.validations, key=lambda event: event["macro_f1"])  # the earlier of two that are equal
    assert (result.ended, result.steps, result.best_step) == ("finished", 16, best["step"])
    assert set(result.seconds) >= {"imports", "build", "data", "train", "validate", "save"}


def test_a_reported_loss_is_the_mean_over_the_rows_since_the_report_before(root: Path) -> None:
    """Not the mean of the batches' means: the last of the eight has 6 rows, the others 12."""
    each, _ = _run(root, "each", checkpoints=False)
    some, _ = _run(root, "some", report_every=3, checkpoints=False)
    rows = _batch_rows(root)
    assert sorted(rows) == [6] + [12] * 7
    sums = [loss * count for loss, count in zip(each.losses, rows, strict=True)]
    wanted = [sum(sums[i : i + 3]) / sum(rows[i : i + 3]) for i in (0, 3, 6)]
    assert some.losses == pytest.approx(wanted, abs=1e-6)


def _batch_rows(root: Path) -> list[int]:
    store = TokenStore.open(Storage(str(root)), "stores/tiny")
    lengths_N = store.split("train").lengths
    order = Epoch(store.fingerprint, lengths_N, batch=12, seed=7, epoch=0)
    return [len(order.batch(number)) for number in range(len(order))]


def test_training_ends_after_so_many_validations_without_improvement(root: Path) -> None:
    """No validation improves by 10: the first counts as the best, two more end the run; the best checkpoint is the best by value."""
    result, _ = _run(
        root, "stale", epochs=9, validation={"metric": "loss"}, early_stopping={"patience": 2, "min_delta": 10.0}
    )
    assert (result.ended, result.steps, len(result.validations)) == ("early_stopping", 24, 3)
    best = min(result.validations, key=lambda event: event["loss"])
    assert (result.best_step, result.best_value) == (best["step"], best["loss"])
    assert result.best_checkpoint == checkpoint.name("runs/stale", best["step"], 1)
    Storage(str(root)).verify(result.best_checkpoint)


def test_without_checkpoints_nothing_is_written(root: Path) -> None:
    result, events = _run(root, "trial", checkpoints=False)
    assert (result.best_checkpoint, result.last_checkpoint) == (None, None)
    assert Storage(str(root)).list("runs/trial") == []
    assert not [event for event in events if event["type"] == "checkpoint"]


def test_only_the_chosen_number_of_checkpoints_and_the_best_stay(root: Path) -> None:
    result, _ = _run(root, "kept", epochs=2, checkpoint={"every_steps": 2, "keep": 2})
    names = {checkpoint.name("", step, 1).rpartition("/")[2] for step in (14, 16, result.best_step)}
    assert set(Storage(str(root)).list("runs/kept/checkpoints")) == names


def test_a_loss_that_is_not_finite_ends_the_run_and_says_what_to_lower(root: Path) -> None:
    huge: dict[str, Any] = {
        "optimizer": {"lr": 1.0, "eps": 1e-20},
        "layers": {},
        "clip_norm": None,
        "schedule": {"name": "constant", "warmup": 0},
    }
    job = make_job(root, run="nan", checkpoints=False, **huge)
    fit = loop.Fit(job, rank=0, world=1, report=lambda event: None, stop=None)
    with torch.no_grad():
        fit.engine.parameters["classifier.weight"].fill_(float("inf"))
    with pytest.raises(
        NotFinite,
        match=r"step 1: the loss is (nan|inf); lower train\.optimizer\.lr \(now 1\), lengthen train\.schedule\.warmup",
    ):
        fit.run()


def test_labels_other_than_the_stores_are_refused(root: Path) -> None:
    job = dataclasses.replace(make_job(root, run="labels"), labels=("a", "b"))
    with pytest.raises(
        UserError,
        match=r"data\.labels is \['a', 'b'\], but the store stores/tiny has \['negative', 'positive'\]; prepare again",
    ):
        loop.run(job, report=lambda event: None)


def test_an_empty_training_split_is_refused_and_an_empty_validation_split_is_told(root: Path) -> None:
    storage = Storage(str(root))
    events: list[dict[str, Any]] = []
    make_store(storage, train=0, rel="stores/none")
    make_store(storage, validation=0, rel="stores/blind")
    with pytest.raises(UserError, match=r"the training split of store stores/none is empty"):
        loop.run(dataclasses.replace(make_job(root, run="none"), store_rel="stores/none"), report=events.append)
    result = loop.run(dataclasses.replace(make_job(root, run="blind"), store_rel="stores/blind"), report=events.append)
    assert [event["text"][:29] for event in events if event["type"] == "warning"] == ["the validation split is empty"]
    assert (result.best_value, result.best_step, result.validations) == (None, 8, [])
    assert result.best_checkpoint == result.last_checkpoint


def test_frozen_modules_run_without_dropout_and_the_others_with_it(root: Path) -> None:
    job = make_job(root, run="frozen", dropout=0.5, checkpoints=False, layers={"freeze": 2})
    engine = loop.Fit(job, rank=0, world=1, report=lambda event: None, stop=None).engine
    engine.train(True)
    modes = {
        name: module.training for name, module in engine.model.named_modules() if isinstance(module, torch.nn.Dropout)
    }
    assert {mode for name, mode in modes.items() if ".layer.1." in name or name == "dropout"} == {True}
    assert {name: modes[name] for name in modes if ".layer.0." in name and modes[name]} == {}


def test_weights_of_another_model_are_refused_by_the_first_tensor(root: Path) -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(
        UserError, match=r"step-1: its weights are of another model; the first tensor that differs is bias"
    ):
        load_weights(model, {"weight": torch.zeros(3, 2)}, shown="step-1")
    with pytest.raises(UserError, match="differs is weight"):
        load_weights(model, {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)}, shown="step-1")


def test_another_number_of_groups_and_a_moved_parameter_are_named(root: Path) -> None:
    fit = loop.Fit(
        make_job(root, run="groups", checkpoints=False), rank=0, world=1, report=lambda event: None, stop=None
    )
    live = fit.engine.live_table()
    with pytest.raises(
        PlanMismatchError, match=rf"planned {len(live)} trainable groups, the optimizer has {len(live) - 1}"
    ):
        compare(fit.plan, live[:-1], factor=1.0, frozen=set())
    other = LiveGroup(live[0].lr, live[0].weight_decay, live[0].param_names[1:], live[0].numel)
    with pytest.raises(PlanMismatchError, match=rf"other parameters than planned, e\.g\. {live[0].param_names[0]}"):
        compare(fit.plan, [other, *live[1:]], factor=1.0, frozen=set())
    compare(fit.plan, live, factor=1.0, frozen=set())


def test_the_gradient_norm_of_many_elements_is_right_to_six_digits() -> None:
    """torch's own norm of one tensor of this size, in fp32 on a CPU, is 4e-4 too small."""
    tensor = torch.randn(12_000_000, generator=torch.Generator().manual_seed(0))
    wanted = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
    assert float(total_norm([tensor])) == pytest.approx(wanted, rel=1e-6)


def test_a_profile_of_some_steps_is_written_and_told(root: Path) -> None:
    events: list[dict[str, Any]] = []
    loop.run(dataclasses.replace(make_job(root, run="profiled"), profile=2), report=events.append)
    [told] = [event for event in events if event["type"] == "info"]
    assert told["profile"] == "runs/profiled/profile/steps-3-to-4.json"
    assert Storage(str(root)).exists(told["profile"])

"""Whether N workers give the numbers of one, and whether that is noticed where they do not. The part of the ranks is taken by
micro-batches in this process: the same sums in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import loss
from orchestration.errors import PlanMismatchError
from orchestration.storage import Storage
from orchestration.training import equality, loop
from orchestration.training.bare import Engine
from orchestration.training.config import TrainConfig
from orchestration.training.equality import Arm, Equality
from orchestration.training.job import TrainJob
from tests.tiny import make_job

STEPS, ROWS, MAX_LENGTH = 4, 90, 25


class World:
    """One storage, and what the undisturbed run on one worker left there. `disturbed` counts the other runs."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(str(root))
        whole = make_job(root, run="check", world=2, layers={"decay": 0.9, "freeze": 1}, zero={"stage": 2})
        self.many_job, self.one_job = equality.arms(whole, steps=STEPS, rows=ROWS)
        parts = self.many_job.train.model_copy(update={"micro_batch": 5, "zero": self.one_job.train.zero})
        self.parts_job = dataclasses.replace(self.many_job, train=parts, world=1)
        self.one = self.run(self.one_job)
        self.number = 0

    def run(self, job: TrainJob) -> Arm:
        return equality.read(self.storage, loop.run(job, report=lambda event: None))

    def against(self, **changes: Any) -> Equality:
        """The run in parts, with fields of its job changed, against the one."""
        self.number += 1
        job = dataclasses.replace(self.parts_job, run_rel=f"runs/other-{self.number}", **changes)
        return equality.compare(self.run(job), self.one, job=self.one_job, max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("equality"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Equality:
    return world.against()


def _wrong(found: Equality) -> set[str]:
    return {row.part for row in found.rows if not row.ok}


def test_one_worker_takes_the_same_batches_through_bare_torch_without_dropout(world: World) -> None:
    many, one = world.many_job, world.one_job
    assert (many.world, one.world) == (2, 1)
    assert (many.train.zero.stage, one.train.zero.stage) == (2, "auto")
    assert many.model.dropout == one.model.dropout == 0.0
    same = ("epochs", "rows", "batch", "optimizer", "layers", "schedule", "precision", "clip_norm")
    assert all(getattr(many.train, key) == getattr(one.train, key) for key in same)
    assert one.train.micro_batch == 12  # the shares of both


def test_the_last_batch_is_short_and_ranks_have_unequal_shares_of_it(world: World) -> None:
    assert (world.one_job.train.rows, world.one.result.steps) == (3 * 12 + 9, STEPS)


def test_fewer_rows_than_the_steps_need_come_again(world: World) -> None:
    many, _ = equality.arms(world.many_job, steps=5, rows=20)
    assert (many.train.rows, many.train.epochs) == (20, 3)


def test_equal_runs_differ_by_a_small_part_of_what_rounding_can_do(undisturbed: Equality) -> None:
    assert undisturbed.ok, undisturbed.worst()
    assert 0.0 < undisturbed.worst().used < 0.2
    parts = [row.part for row in undisturbed.rows]
    assert {part: parts.count(part) for part in parts} == {
        "loss": STEPS,
        "validation loss": 1,
        "gradient norm": STEPS,
        "rate": STEPS,
        "gradients": 3,  # two layers and the head; embeddings are frozen
        "weights": 4,
    }
    assert max(row.allowed for row in undisturbed.rows if row.part == "loss") < 2e-5


def test_frozen_weights_must_be_equal_to_the_last_bit(undisturbed: Equality) -> None:
    [frozen] = [row for row in undisturbed.rows if (row.part, row.at) == ("weights", "embeddings")]
    assert (frozen.difference, frozen.allowed) == (0.0, 0.0)
    assert not dataclasses.replace(frozen, difference=1e-12).ok


def test_a_loss_scaled_by_the_number_of_workers_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loss.classification

    def doubled(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        summed, count = whole(*args)
        return summed * 2, count

    monkeypatch.setattr(loss, "classification", doubled)
    assert {"loss", "validation loss", "gradient norm", "gradients"} <= _wrong(world.against())


def test_a_gradient_scaled_by_the_number_of_workers_is_noticed_though_adamw_forgives_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _patch(monkeypatch, "backward", lambda was: lambda self, loss, *, last: was(self, loss * 2, last=last))
    found = world.against()
    assert {"gradient norm", "gradients"} <= _wrong(found)
    assert next(row for row in found.rows if row.part == "loss").ok


def test_a_part_of_the_batch_that_is_not_added_up_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _patch(monkeypatch, "backward", lambda was: lambda self, loss, *, last: was(self, loss * (not last), last=last))
    assert {"gradient norm", "gradients", "weights"} <= _wrong(world.against())


def test_a_tensor_that_the_optimizer_leaves_out_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(was: Any) -> Any:
        def update(self: Engine, factor: float) -> None:
            tensor = self.parameters["classifier.weight"]
            before = tensor.detach().clone()
            was(self, factor)
            tensor.data.copy_(before)

        return update

    _patch(monkeypatch, "update", forgets)
    found = world.against()
    assert [row.tensor for row in found.rows if row.part == "weights" and not row.ok][-1] == "classifier.weight"


def test_another_order_of_the_rows_is_noticed(world: World) -> None:
    assert {"loss", "gradients", "weights"} <= _wrong(world.against(seed=8))


def test_dropout_in_one_of_the_runs_is_noticed(world: World) -> None:
    model = world.parts_job.model.model_copy(update={"dropout": 0.1})
    assert {"loss", "gradients", "weights"} <= _wrong(world.against(model=model))


def test_another_rate_is_noticed_in_the_table_and_in_the_weights(world: World) -> None:
    train = world.parts_job.train
    optimizer = train.optimizer.model_copy(update={"lr": train.optimizer.lr * 1.01})
    assert {"rate", "weights"} <= _wrong(world.against(train=train.model_copy(update={"optimizer": optimizer})))


def test_a_live_rate_other_than_the_planned_one_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(was: Any) -> Any:
        def update(self: Engine, factor: float) -> None:
            was(self, factor)
            self.param_groups()[0]["lr"] *= 1.01

        return update

    _patch(monkeypatch, "update", off)
    with pytest.raises(PlanMismatchError, match="planned learning rate"):
        world.against()


def test_a_loss_that_is_missing_or_no_number_is_not_equal(world: World) -> None:
    history = [event for event in world.one.result.history if event.get("step") != 2]
    lacking = dataclasses.replace(world.one, result=dataclasses.replace(world.one.result, history=history))
    found = equality.compare(lacking, world.one, job=world.one_job, max_length=MAX_LENGTH)
    assert [(row.part, row.at) for row in found.rows if not row.ok] == [("loss", "step 2"), ("gradient norm", "step 2")]


@pytest.mark.parametrize("precision", ["bf16"])
def test_lower_precision_is_allowed_more_and_still_not_everything(
    world: World, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    one_job = dataclasses.replace(
        world.one_job, run_rel="runs/bf16", train=world.one_job.train.model_copy(update={"precision": precision})
    )
    train = world.parts_job.train.model_copy(update={"precision": precision})
    one = world.run(one_job)
    parts = world.run(dataclasses.replace(world.parts_job, run_rel="runs/bf16-parts", train=train))
    found = equality.compare(parts, one, job=one_job, max_length=MAX_LENGTH)
    assert found.ok, found.worst()
    assert found.worst().used > 1e-3
    _patch(monkeypatch, "backward", lambda was: lambda self, loss, *, last: was(self, loss * 2, last=last))
    double = world.run(dataclasses.replace(world.parts_job, run_rel="runs/bf16-double", train=train))
    assert "gradient norm" in _wrong(equality.compare(double, one, job=one_job, max_length=MAX_LENGTH))


# ---------------------------------------------------------------------------------------------------- other optimizers

OTHERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "lr": 2e-3},
    "momentum": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "sgd": {"name": "sgd", "lr": 0.1},
    "lamb": {"name": "lamb", "lr": 2e-2},
}


@pytest.mark.parametrize("name", OTHERS)
def test_each_optimizer_has_its_bounds_which_rounding_keeps_and_a_lost_part_of_the_batch_does_not(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clipping is off: norms are told all the same."""
    whole = make_job(
        Path(world.storage.url), run=f"check-{name}", layers={"decay": 0.9}, optimizer=OTHERS[name], clip_norm=None
    )
    _, one_job = equality.arms(whole, steps=STEPS, rows=ROWS)
    one, parts = world.run(one_job), one_job.train.model_copy(update={"micro_batch": 5})

    def against(run: str, train: TrainConfig) -> Equality:
        arm = world.run(dataclasses.replace(one_job, run_rel=f"runs/{name}-{run}", train=train))
        return equality.compare(arm, one, job=one_job, max_length=MAX_LENGTH)

    found = against("parts", parts)
    assert found.ok, found.worst()
    assert 0.0 < found.worst().used < 0.2
    kept = {"gradients"} if parts.optimizer.moments else set()
    assert {"loss", "gradient norm", "weights"} | kept <= {row.part for row in found.rows}
    optimizer = parts.optimizer.model_copy(update={"lr": parts.optimizer.lr * 1.01})
    assert {"rate", "weights"} <= _wrong(against("faster", parts.model_copy(update={"optimizer": optimizer})))
    _patch(monkeypatch, "backward", lambda was: lambda self, loss, *, last: was(self, loss * (not last), last=last))
    assert {"gradient norm", "weights"} | kept <= _wrong(against("lost", parts))


def _patch(monkeypatch: pytest.MonkeyPatch, method: str, made: Callable[[Any], Any]) -> None:
    monkeypatch.setattr(Engine, method, made(getattr(Engine, method)))

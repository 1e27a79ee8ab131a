"""Gradual unfreezing: which phase a fit is in, by epoch and by plateau; and the fit itself over the boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.config import LayersConfig
from orchestration.training.job import LoopResult
from orchestration.training.phases import freeze_depth, releases
from orchestration.training.state import TrainState
from tests.tiny import make_job

UNFREEZE: dict[str, Any] = {
    "epochs": 4,
    "layers": {"decay": 0.9, "freeze": 3, "unfreeze": {"every": 1, "groups": 1, "until": 1}},
}


def _layers(**unfreeze: Any) -> LayersConfig:
    return LayersConfig.model_validate({"freeze": 5, "unfreeze": unfreeze}, strict=True)


@pytest.mark.parametrize(("epoch", "wanted"), [(0, 5), (1, 5), (2, 3), (3, 3), (4, 1), (5, 1), (6, 1), (60, 1)])
def test_every_so_many_epochs_so_many_groups_are_released_down_to_the_last_ones(epoch: int, wanted: int) -> None:
    layers = _layers(every=2, groups=2, until=1)
    released = releases(layers, TrainState(epoch=epoch))
    assert freeze_depth(layers, TrainState(epoch=epoch, released=released)) == wanted


def test_a_plateau_of_so_many_validations_releases_once() -> None:
    layers = _layers(when="plateau", every=2, groups=3)
    assert releases(layers, TrainState(flat=1)) == 0
    assert releases(layers, TrainState(flat=2)) == 1
    assert releases(layers, TrainState(released=1, flat=0)) == 1
    assert freeze_depth(layers, TrainState(released=1)) == 2
    assert freeze_depth(layers, TrainState(released=2)) == 0
    assert releases(layers, TrainState(released=2, flat=9)) == 2  # nothing is left to release


def test_without_unfreezing_nothing_is_released() -> None:
    layers = LayersConfig(freeze=4)
    assert (releases(layers, TrainState(epoch=9, flat=9)), freeze_depth(layers, TrainState(epoch=9))) == (0, 4)


class Interrupted(Exception):
    """What a caller's `report` raises here."""


def _run(root: Path, run: str, *, die_at: int | None = None, **more: Any) -> tuple[LoopResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "step" and event["step"] == die_at:
            raise Interrupted

    return loop.run(make_job(root, run=run, **{"dropout": 0.1, **UNFREEZE, **more}), report=report), events


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phases")


@pytest.fixture(scope="module")
def unbroken(root: Path) -> tuple[LoopResult, list[dict[str, Any]]]:
    return _run(root, "unbroken")


def test_frozen_groups_come_free_at_the_ends_of_epochs_and_move_only_then(
    root: Path, unbroken: tuple[LoopResult, list[dict[str, Any]]]
) -> None:
    result, events = unbroken
    assert [(event["step"], event["frozen"]) for event in events if event["type"] == "release"] == [
        (8, ["embeddings", "layer.0"]),
        (16, ["embeddings"]),
    ]
    storage = Storage(str(root))
    kept = {event["step"]: event["rel"] for event in events if event["type"] == "checkpoint"}
    assert [row["name"] for row in result.plan if not row["trainable"]] == ["embeddings"]
    last = checkpoint.open(storage, kept[32])
    steps = last.steps
    assert steps["classifier.weight"] == 32
    assert steps["bert.encoder.layer.1.output.dense.weight"] == 24  # its own count: bias correction begins when it does
    assert steps["bert.encoder.layer.0.output.dense.weight"] == 16


@pytest.mark.parametrize("die_at", [5, 11, 19, 30])
def test_a_run_killed_in_any_phase_goes_on_to_the_same_bits(
    die_at: int, root: Path, unbroken: tuple[LoopResult, list[dict[str, Any]]]
) -> None:
    saves = {"every_steps": 3, "keep": 2}
    with pytest.raises(Interrupted):
        _run(root, f"killed-{die_at}", die_at=die_at, checkpoint=saves)
    again, _ = _run(root, f"killed-{die_at}", checkpoint=saves)
    assert again.resumed_from is not None or die_at == 5  # the write of step 3 may be on its way when step 5 fails
    assert again.losses == unbroken[0].losses
    one, other = (
        checkpoint.open(Storage(str(root)), str(result.last_checkpoint)).weights() for result in (again, unbroken[0])
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_plateau_releases_a_group_and_a_trial_leaves_nothing_behind(root: Path) -> None:
    layers = {"freeze": 2, "unfreeze": {"when": "plateau", "every": 1}}
    _, events = _run(root, "flat", epochs=6, layers=layers, optimizer={"lr": 1e-9}, checkpoints=False)
    assert [event["frozen"] for event in events if event["type"] == "release"] == [["embeddings"], []]
    assert Storage(str(root)).list("runs/flat/checkpoints") == []

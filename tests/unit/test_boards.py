from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.boards import boards
from orchestration.errors import UserError
from orchestration.storage import Storage
from tests.wandb_files import records, told


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()  # it reads the environment once
    yield
    wandb.teardown()


def test_wandb_gets_every_number_of_a_run_and_of_its_resumed_half(tmp_path: Path, offline: None) -> None:
    storage, config = Storage(str(tmp_path)), {"spec": {"name": "reviews", "train": {"epochs": 2}}}
    for steps, failed in (((1, 2, 3), True), ((2, 3, 4), False)):  # the second half goes on from a checkpoint at 1
        (board,) = boards(storage, "runs/a1", tensorboard=False, wandb="eagles", config=config)
        for step in steps:
            board.log({"train/loss": 1.0 / step, "train/lr": 0.5}, step=step)
        board.close(failed=failed)
    folder = tmp_path / "runs" / "a1"
    assert told(folder) == [{"train/loss": 1.0 / step, "train/lr": 0.5, "step": step} for step in (1, 2, 3, 2, 3, 4)]
    every = [record for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")) for record in records(file)]
    runs = [record.run for record in every if record.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.display_name, run.project) for run in runs} == {("a1", "a1", "eagles")}
    said = {item.key: item.value_json for run in runs for item in run.config.update}
    assert json.loads(said["spec"]) == config["spec"]
    assert [record.exit.exit_code for record in every if record.WhichOneof("record_type") == "exit"] == [1, 0]
    axes = {
        record.metric.glob_name or record.metric.name: record.metric.step_metric
        for record in every
        if record.HasField("metric")
    }
    assert axes["*"] == "step"


def test_wandb_keeps_no_files_behind_an_object_store(offline: None) -> None:
    storage = Storage("memory://boards")
    (board,) = boards(storage, "runs/a1", tensorboard=False, wandb="eagles", config={})
    board.log({"loss": 1.0}, step=1)
    folder = Path(board._run.dir)  # type: ignore[attr-defined]
    assert folder.exists()
    board.close(failed=False)
    assert not folder.exists()


def test_without_a_key_or_the_package_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    def made() -> None:
        boards(Storage(str(tmp_path)), "runs/a1", tensorboard=False, wandb="eagles", config={})

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key in ~/.netrc either
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match=r"(?s)wandb: project 'eagles' was not opened: .*WANDB_API_KEY, or WANDB_MODE"):
        made()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"needs the package wandb; install it \(pip install 'eagleray\[wandb\]'\)"):
        made()


def test_several_at_once_or_none(tmp_path: Path, offline: None) -> None:
    storage = Storage(str(tmp_path))
    assert boards(storage, "runs/a1", tensorboard=False, wandb=None, config={}) == []
    found = boards(storage, "runs/a1", tensorboard=True, wandb="eagles", config={})
    assert [type(board).__name__ for board in found] == ["TensorBoard", "WandB"]
    for board in found:
        board.log({"loss": 2.0}, step=1)
        board.close(failed=False)
    assert any((tmp_path / "runs" / "a1" / "tensorboard").iterdir())
    assert told(tmp_path / "runs" / "a1") == [{"loss": 2.0, "step": 1}]

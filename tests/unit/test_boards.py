from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.boards import Board, Boards, opened
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


def made(storage: Storage, said: list[str] | None = None, **shown: Any) -> Boards:
    shown = {"tensorboard": False, "wandb": None, "config": {}, **shown}
    return opened(storage, "runs/a1", say=[].append if said is None else said.append, **shown)


def test_wandb_gets_every_number_of_a_run_and_of_its_resumed_half(tmp_path: Path, offline: None) -> None:
    storage, config = Storage(str(tmp_path)), {"spec": {"name": "reviews", "train": {"epochs": 2}}}

    def run(*steps: int, broken: bool = False) -> None:
        with made(storage, wandb="eagles", config=config) as boards:
            for step in steps:
                boards.log({"train/loss": 1.0 / step, "train/lr": 0.5}, step=step)
            if broken:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(1, 2, 3, broken=True)
    run(2, 3, 4)  # goes on from a checkpoint at 1
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
    with made(Storage("memory://boards"), wandb="eagles") as boards:
        boards.log({"loss": 1.0}, step=1)
        folder = Path(boards._boards[0]._run.dir)  # type: ignore[attr-defined]
        assert folder.exists()
    assert not folder.exists()


def test_without_a_key_or_the_package_it_says_what_to_do_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    storage = Storage(str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key in ~/.netrc either
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match=r"(?s)wandb: project 'eagles' was not opened: .*WANDB_API_KEY, or WANDB_MODE"):
        made(storage, tensorboard=True, wandb="eagles")
    assert [one.name for one in threading.enumerate() if "tensorboard" in type(one).__module__.lower()] == []
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"needs the package wandb; install it \(pip install 'eagleray\[wandb\]'\)"):
        made(storage, wandb="eagles")


def test_several_at_once_or_none(tmp_path: Path, offline: None) -> None:
    storage = Storage(str(tmp_path))
    assert made(storage)._boards == []
    with made(storage, tensorboard=True, wandb="eagles") as both:
        assert [board.name for board in both._boards] == ["tensorboard", "wandb"]
        both.log({"loss": 2.0}, step=1)
    assert any((tmp_path / "runs" / "a1" / "tensorboard").iterdir())
    assert told(tmp_path / "runs" / "a1") == [{"loss": 2.0, "step": 1}]


class Listed(Board):
    name = "listed"

    def __init__(self, broken: int | None = None) -> None:
        self.broken, self.seen = broken, list[Any]()

    def log(self, values: dict[str, float], *, step: int) -> None:
        if step == self.broken:
            raise ConnectionResetError("gone")
        self.seen.append((step, values))

    def close(self, *, failed: bool) -> None:
        self.seen.append(failed)
        if self.broken is not None:
            raise ConnectionResetError("gone")


def test_a_board_that_fails_is_told_of_once_and_neither_the_run_nor_another_board_ends_with_it() -> None:
    first, second, last, said = Listed(broken=2), Listed(broken=9), Listed(), list[str]()
    with Boards([first, second, last], said.append) as boards:
        for step in (1, 2, 3):
            boards.log({"loss": 0.5}, step=step)
    assert last.seen == second.seen == [(1, {"loss": 0.5}), (2, {"loss": 0.5}), (3, {"loss": 0.5}), False]
    assert first.seen == [(1, {"loss": 0.5}), True]
    assert said == [
        "listed: ConnectionResetError: gone; the run goes on without it from step 2",
        "listed: not ended: ConnectionResetError: gone",
    ]
    with pytest.raises(ValueError, match="the fit's own"), Boards([Listed(broken=1)], said.append):
        raise ValueError("the fit's own")

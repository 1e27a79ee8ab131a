"""A fit over stored outputs of the frozen bottom: its scores, its checkpoints, its memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.job import LoopResult
from orchestration.training.trunk import blocks, fill
from tests.tiny import make_job, make_store

FIT: dict[str, Any] = {"epochs": 2, "layers": {"freeze": 2, "decay": 0.9}, "dropout": 0.1}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 16)


def _fit(root: Path, run: str, use: str, *, stop_at: int | None = None, **job: Any) -> LoopResult:
    events: list[dict[str, Any]] = []

    def stop() -> bool:
        return any(event["type"] == "step" and event["step"] == stop_at for event in events)

    return loop.run(make_job(root, run=run, trunk={"use": use}, **{**FIT, **job}), report=events.append, stop=stop)


def test_two_epochs_with_dropout_give_the_scores_of_computing_everything(tmp_path: Path) -> None:
    plain, stored = _fit(tmp_path, "plain", "off"), _fit(tmp_path, "stored", "on")
    assert stored.losses == pytest.approx(plain.losses, abs=1e-5)
    for wanted, found in zip(plain.validations, stored.validations, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
        assert (found["accuracy"], found["macro_f1"]) == (wanted["accuracy"], wanted["macro_f1"])
    assert stored.plan == plain.plan
    assert stored.steps == plain.steps == 16


def test_the_frozen_part_is_told_which_of_two_texts_a_token_belongs_to(tmp_path: Path) -> None:
    alone = _fit(tmp_path, "alone", "off", dropout=0.0)
    (tmp_path / "pairs").mkdir()
    make_store(Storage(str(tmp_path / "pairs")), pairs=True)
    plain, stored = (_fit(tmp_path / "pairs", use, use, dropout=0.0) for use in ("off", "on"))
    assert stored.losses == pytest.approx(plain.losses, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(alone.losses, plain.losses, strict=True)) > 1e-4


def test_checkpoints_hold_the_whole_model_all_the_same(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    plain, stored = _fit(tmp_path, "plain", "off"), _fit(tmp_path, "stored", "on")
    weights = [checkpoint.open(storage, str(result.last_checkpoint)).weights() for result in (plain, stored)]
    assert weights[0].keys() == weights[1].keys()
    for name, wanted in weights[0].items():
        assert torch.allclose(weights[1][name], wanted, atol=1e-5), name


@pytest.mark.parametrize("uses", [("on", "on"), ("on", "off"), ("off", "on")])
def test_a_run_that_was_stopped_goes_on_with_or_without(
    tmp_path: Path, uses: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _fit(tmp_path, "whole", "on")
    monkeypatch.setattr(fill, "trunk_output", _never)  # the run before has stored everything
    assert _fit(tmp_path, "cut", uses[0], stop_at=5).ended == "stopped"
    rest = _fit(tmp_path, "cut", uses[1])
    assert rest.resumed_from is not None
    assert rest.losses == pytest.approx(whole.losses, abs=1e-5)
    assert rest.best_value == pytest.approx(whole.best_value, abs=1e-5)


def test_frozen_weights_are_let_go_before_the_first_step(tmp_path: Path) -> None:
    others = _parameters()  # of tests before this one
    fit = loop.Fit(
        make_job(tmp_path, trunk={"use": "on"}, **FIT), rank=0, world=1, report=lambda event: None, stop=None
    )
    trainable = sum(row.numel for row in fit.plan if row.trainable)
    frozen_shapes = {tuple(p.shape) for p in _whole(tmp_path) if p.shape[0] == 64}  # word embeddings and the like
    assert sum(p.numel() for p in fit.engine.model.parameters()) == trainable
    kept = [*others, *fit.engine.model.parameters()]
    alive = [p for p in _parameters() if tuple(p.shape) in frozen_shapes and not any(p is one for one in kept)]
    assert not alive
    fit.run()
    fit.engine.close()


def _parameters() -> list[torch.nn.Parameter]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, torch.nn.Parameter)]


def test_a_trial_without_checkpoints_uses_what_another_trial_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _fit(tmp_path, "trial-1", "on", checkpoints=False)
    monkeypatch.setattr(fill, "trunk_output", _never)
    second = _fit(tmp_path, "trial-2", "auto", checkpoints=False)
    assert second.losses == first.losses


def _whole(root: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(root / "weights/tiny/model.safetensors").values())


def _never(*_: Any) -> None:
    raise AssertionError("the bottom ran")

"""Stored outputs of the frozen bottom: what feeds give, and when they are not used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.trunk import trunk_output
from orchestration.data.draw import Mix
from orchestration.errors import UserError
from orchestration.training.trunk import blocks, fill
from tests.trunk_case import Case, stored_files, trunk_job


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 rows in 6 blocks of 16."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 16)
    monkeypatch.setattr(fill, "FILL_TOKENS", 100)
    monkeypatch.setattr(fill, "POLL_S", 0.02)


@pytest.mark.parametrize("freeze", [1, 2, 3])
def test_losses_and_logits_are_those_of_computing_everything_with_dropout_above_the_cut(
    tmp_path: Path, freeze: int
) -> None:
    wanted_losses, wanted = Case(trunk_job(tmp_path, freeze=freeze, use="off")).fit()
    case = Case(trunk_job(tmp_path, freeze=freeze))
    found = case.prepare()
    assert found is not None
    assert (found.depth, found.rows, found.computed) == (freeze, 114, 114)
    losses, logits = case.fit()
    assert losses == pytest.approx(wanted_losses, abs=1e-5)
    assert torch.allclose(torch.cat(logits), torch.cat(wanted), atol=1e-5)
    assert torch.cat(wanted).std() > 1e-3


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.02), ("int8", 0.05)])
def test_smaller_types_stay_near(tmp_path: Path, dtype: str, most: float) -> None:
    wanted_losses, _ = Case(trunk_job(tmp_path, freeze=2, use="off")).fit()
    case = Case(trunk_job(tmp_path, freeze=2, dtype=dtype))
    whole = Case(trunk_job(tmp_path, freeze=2))
    found, fp32 = case.prepare(), whole.prepare()
    assert found is not None
    assert fp32 is not None
    assert found.bytes == pytest.approx(fp32.bytes / {"bf16": 2, "int8": 4 * 32 / 36}[dtype])
    assert sum(path.stat().st_size for path in stored_files(case)) == found.bytes + fp32.bytes
    losses, _ = case.fit()
    assert losses == pytest.approx(wanted_losses, abs=most)
    assert losses != pytest.approx(wanted_losses, abs=1e-7)


def test_a_batch_has_the_bottoms_own_output_at_each_token_and_zeros_on_padding(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=2))
    plain = [micro for step in case.feed.steps(3) for micro in step.micros]
    wanted = [trunk_output(case.model, 2, **_named(micro.inputs)) for micro in plain]
    case.prepare()
    found = [micro for step in case.feed.steps(3) for micro in step.micros]
    for one, other, hidden_BLD in zip(plain, found, wanted, strict=True):
        mask_BL = one.inputs["attention_mask"]
        assert torch.equal(other.inputs["attention_mask"], mask_BL)
        assert torch.equal(one.targets["labels"], other.targets["labels"])
        assert torch.allclose(other.inputs["hidden"], hidden_BLD * mask_BL[..., None], atol=1e-6)


def test_a_rank_without_rows_gets_a_row_that_fills_the_place(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=2, batch=1), rank=1, world=2)
    case.prepare()
    micro = next(case.feed.steps(0)).micros[0]
    assert micro.inputs["hidden"].shape[0] == 1
    assert micro.weight_B.tolist() == [0.0]
    assert torch.isfinite(case.model(**micro.inputs).logits).all()


def test_under_the_head_alone_one_token_a_row_is_stored(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=3))
    found = case.prepare()
    assert found is not None
    assert found.bytes == 114 * 32 * 4
    assert next(case.feed.steps(0)).micros[0].inputs["hidden"].shape == (4, 1, 32)


def test_what_is_frozen_is_not_held_and_what_trains_keeps_its_name(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=2))
    trainable = {name for row in case.plan if row.trainable for name in row.param_names}
    case.prepare()
    assert {name for name, _ in case.model.named_parameters()} == trainable


# ----------------------------------------------------------------------------------------------- when it is not used


def test_auto_leaves_small_runs_alone_and_uses_what_is_there(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=2, use="auto"))
    assert case.prepare(epochs=3) is None
    assert case.events[-1]["used"] is False
    assert next(case.feed.steps(0)).micros[0].inputs.keys() == {"input_ids", "attention_mask"}
    Case(trunk_job(tmp_path, freeze=2)).prepare()
    used = Case(trunk_job(tmp_path, freeze=2, use="auto"))
    found = used.prepare(epochs=1)
    assert found is not None
    assert found.computed == 0
    assert "all of it is there" in used.events[-1]["text"]


def test_off_is_silent_and_nothing_frozen_is_nothing_to_store(tmp_path: Path) -> None:
    for job in (trunk_job(tmp_path, freeze=2, use="off"), trunk_job(tmp_path, freeze=0, use="auto")):
        case = Case(job)
        assert case.prepare() is None
        assert case.events == []


@pytest.mark.parametrize(
    ("job", "feed", "why"),
    [
        ({"freeze": 0}, {}, "nothing is frozen"),
        ({"freeze": 2}, {"augment": lambda rows, epoch: []}, "data.augment.when"),
        ({"freeze": 2}, {"stream": lambda shards: None}, "data.stream"),
    ],
)
def test_where_outputs_cannot_be_stored_on_is_refused_and_auto_does_without(
    tmp_path: Path, job: dict[str, Any], feed: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        Case(trunk_job(tmp_path, **job), **feed).prepare()
    assert Case(trunk_job(tmp_path, use="auto", **job), **feed).prepare(epochs=1000) is None


def test_gradual_unfreezing_does_without(tmp_path: Path) -> None:
    case = Case(trunk_job(tmp_path, freeze=2, use="auto", layers={"unfreeze": {"until": 0}}))
    assert case.prepare(epochs=1000) is None
    assert "train.layers.unfreeze" in case.events[-1]["text"]


def test_weighted_sources_are_stored_only_when_asked_for(tmp_path: Path) -> None:
    trunk_job(tmp_path, freeze=2)
    mix = Mix.by_row(np.repeat([0, 1], [80, 10]), [1.0, 1.0])
    assert Case(trunk_job(tmp_path, freeze=2, use="auto"), mix=mix).prepare(epochs=1000) is None
    case = Case(trunk_job(tmp_path, freeze=2), mix=mix)
    assert case.prepare() is not None
    assert len(list(case.feed.steps(0))) > 90 / 12


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    case = Case(trunk_job(tmp_path, freeze=2))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"need 0 MiB in .*trunks: No space left on device; make room"):
        case.prepare()
    assert not stored_files(case, "*.claim")


def _named(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids_BL": inputs["input_ids"], "attention_mask_BL": inputs["attention_mask"]}

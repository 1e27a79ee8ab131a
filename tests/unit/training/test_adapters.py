"""Fits that train an adapter: what checkpoints hold, rates, resuming, accumulation. One process, bare torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import ADAPTERS
from models.depth import is_part
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.job import TrainJob
from tests.tiny import make_job


def _run(job: TrainJob, **more: Any) -> Any:
    return loop.run(job, report=lambda event: None, **more)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_checkpoints_hold_adapter_and_head_alone_and_a_stopped_run_goes_on_to_the_same_bits(
    kind: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path, adapter=kind, run="whole", epochs=2)
    unbroken = _run(job)
    broken = dataclasses.replace(job, run_rel="runs/broken")
    asked = iter(range(10**6))
    assert _run(broken, stop=lambda: next(asked) == 5).ended == "stopped"
    resumed = _run(broken)
    assert resumed.losses == unbroken.losses
    one, other = (checkpoint.open(Storage(str(tmp_path)), r.last_checkpoint) for r in (unbroken, resumed))
    assert one.frozen_rel == other.frozen_rel  # stored once, for both runs
    written = {name for name in one.shapes if not name.endswith((".exp_avg", ".exp_avg_sq"))}
    trained = {name for row in unbroken.plan if row["trainable"] for name in row["param_names"]}
    assert written == trained
    assert all(is_part(name) or name.startswith(("classifier", "bert.pooler")) for name in trained)
    a, b = one.weights(), other.weights()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_accumulation_does_not_change_the_losses(kind: str, tmp_path: Path) -> None:
    whole, parts = (
        _run(make_job(tmp_path, adapter=kind, run=f"m{micro}", micro_batch=micro, checkpoints=False))
        for micro in (12, 5)
    )
    assert parts.losses == pytest.approx(whole.losses, rel=2e-5)


def test_a_stored_trunk_below_the_lowest_adapter_gives_the_same_losses_and_a_prompt_has_none(tmp_path: Path) -> None:
    for kind in ("lora", "bottleneck", "prefix"):
        found = [
            _run(make_job(tmp_path, adapter=kind, run=f"{kind}-{use}", layers={"freeze": 2}, trunk={"use": use}))
            for use in ("on", "off")
        ]
        assert found[0].losses == pytest.approx(found[1].losses, rel=1e-5)
    with pytest.raises(UserError, match=r"trunk\.use=on: .* a prompt: nothing is frozen below"):
        _run(make_job(tmp_path, adapter="prompt", run="prompt", trunk={"use": "on"}))

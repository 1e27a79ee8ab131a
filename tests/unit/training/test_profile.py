"""A profile of some steps: a trace that browsers open, and the operations that took most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from orchestration.storage import Storage
from orchestration.training.profile import WARMUP, Profile


def _run(root: Path, *, wanted: int, done: int) -> list[dict[str, Any]]:
    """`done` steps of a run that goes on after its tenth."""
    told: list[dict[str, Any]] = []
    profile = Profile(Storage(str(root)), "runs/one", steps=wanted, first=10, report=told.append)
    layer, rows = torch.nn.Linear(256, 256), torch.ones(64, 256)
    for _ in range(done):
        profile.step()
        layer(rows).sum().backward()
    profile.close()
    return told


def test_the_steps_after_the_warm_up_are_traced(tmp_path: Path) -> None:
    [event] = _run(tmp_path, wanted=3, done=9)
    assert event["profile"] == f"runs/one/profile/steps-{10 + WARMUP + 1}-to-{10 + WARMUP + 3}.json"
    trace = json.loads(Storage(str(tmp_path)).read(event["profile"]))
    assert any(one.get("name") == "aten::addmm" for one in trace["traceEvents"])


def test_the_table_counts_by_step_and_names_the_largest_first(tmp_path: Path) -> None:
    [event] = _run(tmp_path, wanted=3, done=9)
    rows = event["operations"]
    [addmm] = [row for row in rows if row["name"] == "aten::addmm"]
    assert addmm["calls"] == 1.0
    assert [row["share"] for row in rows] == sorted((row["share"] for row in rows), reverse=True)
    assert "profile of 3 steps" in event["text"]
    assert "aten::addmm" in event["text"]


def test_a_run_that_ends_early_keeps_the_steps_there_were(tmp_path: Path) -> None:
    [event] = _run(tmp_path, wanted=50, done=WARMUP + 2)
    assert event["profile"].endswith(f"-to-{10 + WARMUP + 2}.json")


def test_no_profile_is_made_unless_asked_for(tmp_path: Path) -> None:
    assert _run(tmp_path, wanted=0, done=5) == []
    assert _run(tmp_path, wanted=3, done=WARMUP) == []  # the run was over before
    assert not (tmp_path / "runs").exists()

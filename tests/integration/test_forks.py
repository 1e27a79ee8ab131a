"""Workers of an embedded Ray are forks of one process that has imported what they need, in a second fit as in the first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.template import can_fork
from orchestration.training.trainer import fit
from tests.tiny import make_job

CLUSTER = {"workers": 2, "cpus_per_worker": 1.0, "gpus_per_worker": None, "embedded": True}
IMPORTS_S = 0.5  # of what is imported already; 5 s otherwise, on an idle machine
pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.skipif(not can_fork(), reason="workers are not forked here"),
]


def test_workers_find_their_imports_done_in_every_fit_of_a_command(tmp_path: Path) -> None:
    starts: list[dict[str, Any]] = []
    losses: list[list[float]] = []

    def note(event: dict[str, Any]) -> None:
        if event["type"] == "start":
            starts.append({**event, "parent": _command(_parent(event["pid"]))})

    for run in ("first", "second"):
        result = fit(make_job(tmp_path, run=run, world=2, epochs=1), cluster=CLUSTER, on_event=note)
        losses.append(result.losses)
    assert [start["seconds"]["imports"] < IMPORTS_S for start in starts] == [True, True], starts
    assert all("forks.py" in start["parent"] for start in starts), starts
    assert starts[0]["pid"] != starts[1]["pid"]
    assert losses[0] == losses[1]


def _parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[1])


def _command(pid: int) -> str:
    return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")

"""What `eagleray check` prints, writes and ends with; the comparison itself is tests/unit/training/test_equality.py, real workers are
tests/integration/test_check.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import check
from jobs.context import Job
from jobs.spec import JobSpec, load_spec
from orchestration.errors import SpecError, UserError
from orchestration.storage import Storage
from orchestration.training.equality import Equality, Row
from orchestration.training.rounding import Rounding
from tests.architecture.tree import ROOT

ROUNDING = Rounding(precision="fp32", width=64, depth=17, tokens=300, rows=12)
EQUAL = [
    Row("loss", "step 1", 0.69314718, 0.69314716, 2e-8, 2e-6),
    Row("gradient norm", "step 1", 0.5, 0.5, 0.0, 6e-6),
    Row("rate", "step 1", 2e-3, 2e-3, 0.0, 2e-12),
    Row("gradients", "layer.0", 1e-3, 1.0001e-3, 1e-7, 4e-7, "bert.encoder.layer.0.output.dense.weight"),
    Row("weights", "layer.0", 0.02, 0.02, 1e-9, 5e-6, "bert.encoder.layer.0.output.dense.weight"),
]
TWICE = Row("gradient norm", "step 1", 1.0, 0.5, 0.5, 5e-6)


def _found(*rows: Row) -> Equality:
    return Equality(list(rows), ROUNDING, steps=1, many_world=2, many_stage=3, one_stage=None, groups=16)


def _spec(root: Path) -> JobSpec:
    return load_spec(ROOT / "jobs" / "recipes" / "quickstart.yaml", [f"storage={root}"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`run` without Ray and without runs: gives what `found` holds, keeps what it was asked."""
    asked: dict[str, Any] = {"found": _found(*EQUAL)}

    @contextlib.contextmanager
    def computing(job: Job) -> Iterator[Job]:
        yield job

    def checked(job: Job, inputs: Any, *, check_id: str, steps: int) -> Equality:
        asked.update(workers=job.spec.cluster.workers, steps=steps, id=check_id)
        return asked["found"]

    monkeypatch.setattr(check, "computing", computing)
    monkeypatch.setattr(check, "prepared", lambda job: None)
    monkeypatch.setattr(check, "checked", checked)
    monkeypatch.setattr(check, "open_job", _open)
    return asked


def _open(spec: JobSpec, *, json_lines: bool) -> Job:
    from orchestration.registry import Registry
    from orchestration.telemetry import Console

    storage = Storage(spec.storage)
    return Job(spec=spec, storage=storage, console=Console(json_lines=json_lines), registry=Registry(storage, None))


def test_equal_numbers_are_shown_beside_what_is_allowed(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check.run(_spec(tmp_path), steps=7)
    shown = capsys.readouterr().out
    assert (asked["workers"], asked["steps"]) == (2, 7)
    assert "2 workers (ZeRO 3) against 1 worker (bare torch)" in shown
    line = next(line for line in shown.splitlines() if line.strip().startswith("loss"))
    assert line.split() == ["loss", "step", "1", "0.69314718", "0.69314716", "2.0e-08", "2.0e-06", "░" * 12, "1.0%"]
    assert "layer.0: output.dense.weight" in shown
    assert "equal: the largest difference is 25.0% of what rounding can do (gradients, layer.0)" in shown
    report = f"reports/check-{asked['id']}.json"
    assert Storage(str(tmp_path)).read_json(report)["ok"] is True
    assert report in shown


def test_numbers_that_differ_end_in_an_error_that_names_the_worst(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked["found"] = _found(*EQUAL, TWICE)
    with pytest.raises(UserError) as caught:
        check.run(_spec(tmp_path), workers=3)
    assert asked["workers"] == 3
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        "2 workers do not give the numbers of one: 1 of 6 differ by more than rounding can do; the worst is the gradient norm of step 1:"
        " 1 and 0.5, 100,000 times what is allowed"
    )
    shown = capsys.readouterr().out
    assert "NOT EQUAL" in shown
    assert "x 100,000" in shown


def test_for_machines_the_last_line_has_every_number(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check.run(_spec(tmp_path), json_lines=True)
    [event] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (event["type"], event["ok"], event["many_world"], event["one_stage"]) == ("check", True, 2, None)
    assert event["rows"][0] == {
        "part": "loss",
        "at": "step 1",
        "many": 0.69314718,
        "one": 0.69314716,
        "difference": 2e-8,
        "allowed": 2e-6,
        "tensor": None,
        "ok": True,
        "used": pytest.approx(0.01),
    }
    assert event["rounding"]["headroom"] == 4.0


def test_a_stream_is_refused_with_what_to_do(asked: dict[str, Any], tmp_path: Path) -> None:
    streamed = {"data.stream": {"window": 8}, "data.split": {"validation": 0.1, "test": 0.1}, "train.rows": None}
    with pytest.raises(SpecError, match=r"data\.stream: .* --set data\.stream=null"):
        check.run(_spec(tmp_path).override({**streamed, "tune": None}))
    assert "steps" not in asked


def test_of_many_steps_the_table_shows_the_first_the_worst_and_the_last() -> None:
    steps = [Row("loss", f"step {i}", 1.0, 1.0, 1e-8 * (i == 5), 1e-6) for i in range(1, 31)]
    weights = [Row("weights", f"layer.{i}", 1.0, 1.0, 0.0, 1e-6, "x") for i in range(30)]
    shown = check._shown([*steps, *weights])
    assert [row.at for row in shown if row.part == "loss"] == ["step 1", "step 5", "step 30"]
    assert len([row for row in shown if row.part == "weights"]) == 30

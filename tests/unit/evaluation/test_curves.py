from __future__ import annotations

import json
from pathlib import Path

from orchestration.evaluation import curves
from orchestration.storage import Storage


def _event(kind: str, step: int, loss: float | None) -> dict[str, object]:
    return {"type": kind, "step": step, "loss": loss, "lr": 1e-4, "accuracy": 0.5, "macro_f1": 0.4}


def test_a_resumed_run_is_drawn_with_the_last_telling_of_each_step() -> None:
    told = [_event("step", 10, 0.7), _event("step", 20, 0.6), _event("step", 10, 0.65), _event("validation", 20, 0.5)]
    steps, validations = curves.points([{"type": "start", "step": 0}, *told, _event("step", 30, None)])
    assert [(event["step"], event["loss"]) for event in steps] == [(10, 0.65), (20, 0.6)]
    assert [event["step"] for event in validations] == [20]


def test_the_picture_is_a_png_beside_the_report(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    events = [_event("step", 10, 0.7), _event("step", 20, 0.6), _event("validation", 20, 0.5)]
    storage.write("runs/r/events.jsonl", "".join(json.dumps(event) + "\n" for event in events).encode())
    assert curves.draw(storage, run_rel="runs/r", report_rel="reports/r") == "reports/r/loss.png"
    assert storage.read("reports/r/loss.png").startswith(b"\x89PNG")


def test_a_run_without_events_has_no_picture(tmp_path: Path) -> None:
    assert curves.draw(Storage(str(tmp_path)), run_rel="runs/none", report_rel="reports/none") is None
    assert not (tmp_path / "reports").exists()

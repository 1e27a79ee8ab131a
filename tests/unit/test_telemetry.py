from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.storage import Storage
from orchestration.telemetry import Console, clean, read_events
from orchestration.terminal import duration, line

STEP = {
    "type": "step",
    "step": 10,
    "steps": 125,
    "epoch": 0.08,
    "loss": 0.69312,
    "lr": 5e-5,
    "rows_per_s": 31.25,
    "grad_norm": 1.5,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_numpy_scalars_arrays_and_nan_become_plain_json() -> None:
    dirty = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": float("nan"),
        "d": np.array([1.0, np.inf]),
        5: (np.bool_(True), None),
        "p": Path("x"),
    }
    assert clean(dirty) == {"a": 0.5, "b": 3, "c": None, "d": [1.0, None], "5": [True, None], "p": "x"}
    json.dumps(clean(dirty), allow_nan=False)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        ({**STEP, "tokens_per_s": 1250.4}, "grad 1.5  rows/s 31.25  tokens/s 1250"),
        (
            {"type": "checkpoint", "step": 7, "rel": "c", "reason": "preemption"},
            "checkpoint at step 7  c  (preemption)",
        ),
        ({"type": "release", "step": 40, "frozen": ["embeddings"]}, "step 40: layers released; frozen now: embeddings"),
        ({"type": "trunk", "done": 1000, "of": 4000}, "outputs of the frozen part, 1,000 of 4,000 rows"),
        ({"type": "decision", "text": "half the rate", "changes": {"lr_scale": 0.5}}, "train: half the rate"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_what_happens_in_training_is_told_in_words(event: dict[str, Any], shown: str) -> None:
    assert str(line({"stage": "train", **event})).endswith(shown)


def test_without_a_terminal_each_event_is_one_plain_line() -> None:
    out = io.StringIO()
    console = Console(out=out)
    with console.stage("train"):
        console(STEP)
        console({"type": "validation", "step": 10, "loss": 0.5, "accuracy": 0.8, "macro_f1": 0.79})
        console({"type": "checkpoint", "step": 10, "rel": "runs/r/checkpoints/step-00000010"})
        console({"type": "warning", "text": "a damaged checkpoint was skipped"})
    lines = out.getvalue().splitlines()
    assert lines[0] == "train: step 10/125  epoch 0.08  loss 0.6931  lr 5.0e-05  grad 1.5  rows/s 31.25"
    assert lines[1] == "train: validation at step 10  loss 0.5  accuracy 0.8  macro F1 0.79"
    assert lines[2] == "train: checkpoint at step 10  runs/r/checkpoints/step-00000010"
    assert lines[3] == "warning: a damaged checkpoint was skipped"
    assert lines[4].startswith("train: finished after ")
    assert "\x1b" not in out.getvalue()


def test_json_mode_prints_one_object_a_line_and_nothing_else() -> None:
    out = io.StringIO()
    console = Console(json_lines=True, out=out)
    with console.stage("prepare"):
        console.progress(50, 100)
        console({**STEP, "loss": np.float32("nan")})
    events = [json.loads(text) for text in out.getvalue().splitlines()]
    assert [event["type"] for event in events] == ["stage", "progress", "step", "stage"]
    assert events[2]["loss"] is None
    assert {event["stage"] for event in events} == {"prepare"}
    assert events[3]["status"] == "finished"


def test_on_a_terminal_bars_show_rate_and_loss_and_warnings_scroll_above() -> None:
    out = Terminal()
    console = Console(out=out)
    with console.stage("train"):
        console(STEP)
        console({"type": "warning", "text": "watch [this]"})
        console({**STEP, "step": 125})
    console.close()
    text = out.getvalue()
    assert "125/125" in text
    assert "rows/s 31.25" in text
    assert "watch [this]" in text  # square brackets are not markup


def test_time_left_follows_from_the_steps_seen_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr("orchestration.telemetry.time.time", lambda: next(now))
    out = io.StringIO()
    console = Console(json_lines=True, out=out)
    for step in (10, 20, 30):
        console({"type": "step", "step": step, "steps": 50})
    assert [json.loads(text)["eta_s"] for text in out.getvalue().splitlines()] == [None, 30.0, 20.0]


@pytest.mark.parametrize("root", ["local", "memory://telemetry"])
def test_every_event_of_a_run_is_kept_in_storage_and_a_resumed_run_goes_on_in_the_same_file(
    root: str, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path) if root == "local" else root)
    for start in (1, 3):
        console = Console(quiet=True)
        with console.record(storage, "runs/r1"):
            for step in (start, start + 1):
                console({**STEP, "step": step})
        console({"type": "step", "step": 99})  # after the run: not its event
    assert [event["step"] for event in read_events(storage, "runs/r1")] == [1, 2, 3, 4]


def test_events_survive_an_error_in_the_run(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    console = Console(quiet=True)
    with contextlib.suppress(RuntimeError), console.record(storage, "runs/r1"), console.stage("train"):
        console(STEP)
        raise RuntimeError("worker lost")
    assert [(event["type"], event.get("status")) for event in read_events(storage, "runs/r1")] == [
        ("stage", "started"),
        ("step", None),
        ("stage", "failed"),
    ]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"type": "step", "step": 1}\n{"type": "st')
    assert read_events(Storage(str(tmp_path)), ".") == [{"type": "step", "step": 1}]


def test_seconds_are_added_up_by_stage() -> None:
    console = Console(quiet=True)
    with console.stage("pipeline"):
        for _ in range(2):
            with console.stage("train"):
                pass
    assert set(console.seconds) == {"pipeline", "train"}
    assert console.seconds["pipeline"] >= console.seconds["train"]


def test_a_trial_shows_its_values_by_their_short_names() -> None:
    event = {
        "type": "trial",
        "trial": 3,
        "status": "finished",
        "validations": 2,
        "metric": 0.81234,
        "values": {"train.optimizer.lr": 3.21e-5, "train.layers.freeze": 2},
    }
    assert line(event) == "trial: trial 3 finished  validations 2  metric 0.8123  lr=3.2e-05  freeze=2"


def test_durations_are_written_as_people_read_them() -> None:
    assert [duration(seconds) for seconds in (7.31, 125, 3725)] == ["7.3 s", "2:05", "1:02:05"]

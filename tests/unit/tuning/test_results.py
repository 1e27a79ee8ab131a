from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.tuning.report import draw, ranked, short_names, table
from orchestration.tuning.results import SweepResult, Trial, best, folds, load
from orchestration.tuning.watch import Watch


def _trial(name: str, metric: float | None, status: str = "finished", **more: object) -> Trial:
    values = {"train.optimizer.lr": 1e-4, "train.layers.freeze": 2, "train.schedule.name": "cosine"}
    history = (
        [{"step": 4, "accuracy": 0.4, "loss": 0.7}, {"step": 8, "accuracy": metric, "loss": 0.6}] if metric else []
    )
    return Trial(
        id=name, values=values, run_rel=f"sweeps/s/trials/{name}", metric=metric, history=history, status=status, **more
    )  # type: ignore[arg-type]


def _result(trials: list[Trial], best_id: str, metric: str = "accuracy") -> SweepResult:
    return SweepResult(
        sweep_id="s", rel="sweeps/s", metric=metric, trials=trials, best_id=best_id, concurrent=2, seconds=12.5
    )


def test_the_best_trial_is_the_highest_score_or_the_lowest_loss_and_never_a_failed_one() -> None:
    trials = [
        _trial("a", 0.6),
        _trial("b", 0.8),
        _trial("c", 0.9, "failed"),
        _trial("d", None, "failed"),
        _trial("e", 0.8),
    ]
    assert best(trials, "accuracy").id == "b"
    assert best(trials, "loss").id == "a"


def test_a_cross_validation_goes_by_the_mean_over_folds_and_not_by_one_easy_fold() -> None:
    scores = {("low", 0): 0.9, ("low", 1): 0.5, ("low", 2): None, ("high", 0): 0.8, ("high", 1): 0.7}
    trials = [
        Trial(
            id=f"{rate}{fold}",
            values={"train.fold": fold, "rate": rate},
            run_rel="r",
            metric=score,
            status="finished" if score else "failed",
        )
        for (rate, fold), score in scores.items()
    ]
    first, second = folds(trials, "accuracy")
    assert (first.values, len(first.trials)) == ({"rate": "high"}, 2)
    assert first.mean == pytest.approx(0.75)
    assert first.deviation == pytest.approx(0.1 / 2**0.5)
    assert second.mean == pytest.approx(0.7), "a failed fold counts for nothing"
    assert best(trials, "accuracy").id == "high0"
    assert best(trials, "loss").id == "low1"
    assert folds([_trial("a", 0.6)], "accuracy") == []


def test_a_sweep_of_failures_tells_the_first_error_with_its_values() -> None:
    with pytest.raises(
        UserError, match=r"all 2 trials of the sweep failed; the first, a \(train.optimizer.lr=0.0001,.*\): no rows"
    ):
        best([_trial("a", None, "failed", error="no rows"), _trial("b", None, "failed", error="other")], "accuracy")


def test_a_finished_sweep_is_read_back_as_it_was(tmp_path: Path) -> None:
    storage, result = Storage(str(tmp_path)), _result([_trial("a", 0.6), _trial("b", 0.8)], "b")
    storage.write_json("sweeps/s/trials.json", [asdict(trial) for trial in result.trials])
    described = {"tune": {"metric": "accuracy"}, "concurrent": 2}
    storage.write_json("sweeps/s/sweep.json", described)
    with pytest.raises(UserError, match=r"sweep 's' in .* did not finish"):
        load(storage, "s")
    storage.write_json("sweeps/s/sweep.json", {**described, "best": "b", "seconds": 12.5})
    assert load(storage, "s") == result
    with pytest.raises(UserError, match=r"no sweep 'other' in .*; sweeps: s"):
        load(storage, "other")


def test_the_table_is_sorted_best_first_and_marks_the_winner() -> None:
    trials = [_trial("a", 0.6, "stopped"), _trial("b", 0.9, "failed"), _trial("c", 0.8)]
    headers, rows = table(_result(trials, "c"))
    assert headers == ["trial", "lr", "freeze", "name", "accuracy", "validations", "seconds", "status"]
    assert rows[0] == ["c", "0.0001", "2", "cosine", "0.8000", "2", "0.0", "finished <- best"]
    assert [(row[0], row[-1]) for row in rows[1:]] == [("a", "stopped early"), ("b", "failed")]
    assert [trial.id for trial in ranked(_result(trials, "a", metric="loss"))] == ["a", "c", "b"]
    assert short_names(["train.optimizer.lr", "train.schedule.name", "train.optimizer.name"]) == [
        "lr",
        "train.schedule.name",
        "train.optimizer.name",
    ]


def test_the_picture_is_a_png_in_the_sweeps_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    trials = [_trial("a", 0.6, "stopped"), _trial("b", None, "failed"), _trial("c", 0.8)]
    trials[0].values["train.optimizer.lr"] = 1e-3  # a decade: drawn on a logarithmic axis
    rel = draw(Storage(str(tmp_path)), _result(trials, "c"))
    assert rel == "sweeps/s/report.png"
    assert (tmp_path / rel).read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_watch_keeps_each_trial_and_writes_them_after_each_end(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    watch = Watch(Storage(str(tmp_path)), "sweeps/s", metric="accuracy", on_event=events.append)
    for name in ("a", "b", "c"):
        watch.started(name, {"train.batch": 8})
    watch.reported("a", {"metric": 0.7, "validations": 1, "event": {"type": "validation", "step": 4, "accuracy": 0.7}})
    watch.ended("a")  # by ASHA: it never said that it ended
    watch.reported("b", {"metric": 0.8, "validations": 1, "event": {"type": "validation", "step": 4, "accuracy": 0.8}})
    watch.reported("b", {"metric": 0.8, "validations": 1, "ended": "finished"})
    watch.ended("b")
    watch.ended("c", error="out of memory")
    written = json.loads((tmp_path / "sweeps/s/trials.json").read_text())
    assert [(one["id"], one["status"], one["metric"], one["error"]) for one in written] == [
        ("a", "stopped", 0.7, None),
        ("b", "finished", 0.8, None),
        ("c", "failed", None, "out of memory"),
    ]
    assert written[0]["history"] == [{"step": 4, "accuracy": 0.7}]
    assert [event["status"] for event in events if event["trial"] == "b"] == ["running", "running", "finished"]
    assert events[-1]["error"] == "out of memory"


def test_a_failed_trial_tells_its_own_last_words_and_a_killed_one_that_it_died(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    watch = Watch(storage, "sweeps/s", metric="accuracy", on_event=lambda event: None)
    for name in ("a", "b"):
        watch.started(name, {"train.rows": 600})
    storage.write("sweeps/s/trials/a/events.jsonl", b'{"type": "start"}\n{"type": "error", "text": "no rows"}\n')
    watch.on_trial_error(1, [], "a")
    watch.on_trial_error(1, [], "b")
    assert [trial.error for trial in watch.trials] == [
        "no rows",
        "its process died (out of memory, or the node was lost)",
    ]

"""The plan is what the trainer would do, and it starts and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import plan
from jobs.spec import load_spec
from orchestration.errors import UserError
from tests.unit.jobs.test_wrong_specs import write


def planned(file: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    capsys.readouterr()
    plan.run(load_spec(file, overrides), json_lines=True)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def corpus(tmp_path: Path, minilm: Path) -> Path:
    file = write(tmp_path, {"set": {"data.split": {"validation": 10, "test": 20}}})
    lines = [
        json.dumps({"text": f"row {i} " + "word " * (i % 7), "label": "positive" if i % 2 else "negative"})
        for i in range(130)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return file


def test_steps_and_tokens_follow_from_rows_and_batch(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(corpus, capsys, "train.epochs=3", "train.batch=32")
    assert found["lengths"]["train_rows"] == 100
    assert (found["steps_per_epoch"], found["steps"]) == (4, 12)
    assert found["tokens"] == pytest.approx(3 * 100 * found["lengths"]["mean_tokens"], rel=0.01)


def test_the_table_holds_every_parameter_and_its_planned_rate(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(corpus, capsys, "train.layers.freeze=2", "train.layers.decay=0.5", "train.optimizer.lr=1e-3")
    assert found["parameters"] == sum(row["parameters"] for row in found["groups"]) == 22_713_986
    frozen = {row["group"] for row in found["groups"] if not row["trainable"]}
    assert frozen == {"embeddings", "layer.0"}
    rates = {row["group"]: row["lr"] for row in found["groups"]}
    assert rates["head"] == 1e-3
    assert rates["layer.5"] == pytest.approx(5e-4)
    assert rates["layer.4"] == pytest.approx(2.5e-4)


def test_more_zero_needs_less_memory_and_frozen_layers_less_still(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [row["state_bytes"] for row in planned(corpus, capsys)["memory"]]
    assert whole == sorted(whole, reverse=True)
    head_only = planned(corpus, capsys, "train.layers.freeze=7")["memory"]
    assert all(part["total_bytes"] < before for part, before in zip(head_only, whole, strict=True))


def test_memory_follows_what_the_optimizer_keeps(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def held(*changes: str) -> int:
        """Of stage 0, on one worker: with the copies for checkpoints, 8 bytes more a moment and parameter."""
        return int(planned(corpus, capsys, "cluster.workers=1", *changes)["memory"][0]["state_bytes"])

    plain, moment = held("train.optimizer.name=sgd"), 8 * 22_713_986
    assert held("train.optimizer.name=sgd", "train.optimizer.momentum=0.9") == plain + moment
    assert held() == held("train.optimizer.name=lamb") == held("train.optimizer.name=adam") == plain + 2 * moment


def test_a_run_the_cluster_cannot_hold_is_refused_with_the_reason(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"the workers need 8 GPUs, the cluster has 0; lower cluster.gpus_per_worker"):
        plan.run(load_spec(corpus, ["cluster.gpus_per_worker=4"]))
    with pytest.raises(UserError, match="GiB a worker of"):
        plan.run(load_spec(corpus, ["train.batch=1000000", "train.micro_batch=1000000"]))


def test_planning_writes_nothing_and_starts_no_ray(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    planned(corpus, capsys, f"storage={tmp_path / 'store'}")
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_activations_that_nobody_knows_are_said_so(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of series: its family has no formula, and 0 bytes would be a promise."""
    path = corpus.parent / "loads.csv"
    path.write_text("x,load\n" + "".join(f"{i},{i / 2}\n" for i in range(400)))
    changed = [
        f"data.sources=[{{name: rows, path: {path}, format: series, series: [x], value: load}}]",
        "data.series={window: 4, stride: 2}",
        "data.labels=[]",
        "model={family: series, size: {layers: 2, width: 16, heads: 2}, task: regression}",
    ]
    found = planned(corpus, capsys, *changed)
    assert {row["activation_bytes"] for row in found["memory"]} == {None}
    assert all(row["total_bytes"] == row["state_bytes"] for row in found["memory"])
    plan.run(load_spec(corpus, changed))
    assert "not known" in capsys.readouterr().out

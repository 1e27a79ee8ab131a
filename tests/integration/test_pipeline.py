"""One tiny real pipeline, as a user runs it: a process of its own with its own Ray takes 300 rows through a sweep, a fit on two
workers, export, evaluation, an endpoint and three answers. Then the other verbs on what it left, without training again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.explain import Origin, chain
from orchestration.registry import Registry
from orchestration.storage import Storage, describe
from tests.packages import cut_encoder

ROWS, TRIALS, TIMEOUT_S, LEFT_S = 300, 3, 480, 15
MARK = "EAGLERAY_TEST_MARK"  # every process of the pipeline's own Ray inherits it


@dataclass(frozen=True)
class World:
    """`events`: the JSON lines of the pipeline; `left`: processes of it that lived on, pid -> command."""

    spec: Path
    storage: Storage
    events: list[dict[str, Any]]
    left: dict[int, str]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("type") == kind]

    @property
    def summary(self) -> dict[str, Any]:
        return self.of("summary")[0]


@pytest.fixture(scope="module")
def world(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("pipeline")
    spec, storage = _spec(root, minilm), Storage(str(root / "storage"))
    mark = uuid.uuid4().hex
    try:
        ran = _eagleray("pipeline", str(spec), "--json", mark=mark)
        assert ran.returncode == 0, ran.stderr[-3000:]
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        yield World(spec=spec, storage=storage, events=events, left=_gone(mark))
    finally:
        for pid in _processes(mark):
            os.kill(pid, signal.SIGKILL)


def _spec(root: Path, minilm: Path) -> Path:
    """300 real human-scored sentences and the two lowest layers of a real encoder."""
    import pyarrow.parquet as pq

    from orchestration.data.catalog import local

    rows = pq.read_table(local("catalog:vader-sentiment"), columns=["text", "score"]).slice(0, ROWS).to_pylist()
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = Storage(str(root / "models"))
    value = {
        "name": "tiny",
        "seed": 5,
        "storage": str(root / "storage"),
        "data": {
            "sources": [
                {
                    "name": "hutto",
                    "path": str(root / "rows.jsonl"),
                    "text": "text",
                    "label": {"column": "score", "rules": {"negative": "< 0", "positive": "> 0"}},
                }
            ],
            "labels": ["negative", "positive"],
            "split": {"test": 40, "validation": 40},
            "tokenize": {"max_length": 32},
        },
        "model": {"path": weights.path(cut_encoder(minilm, weights))},
        "train": {"rows": 96, "batch": 16, "optimizer": {"lr": 1e-4}},
        "tune": {
            "trials": TRIALS,
            "fixed": {"train.rows": 48, "train.validation.every_steps": 1},
            "space": {
                "train.optimizer.lr": {"loguniform": [1e-4, 2e-3]},
                "train.layers.freeze": {"choice": [0, 1, 2]},
            },
            "asha": {"grace": 1, "reduction": 2},
            "metric": "loss",
        },
        "serve": {"port": _free_port()},
        "cluster": {"workers": 2},
    }
    spec = root / "tiny.yaml"
    spec.write_text(yaml.safe_dump(value))
    return spec


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _eagleray(*arguments: str, mark: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        env={**{key: value for key, value in os.environ.items() if key != "EAGLERAY_ADDRESS"}, MARK: mark},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def _processes(mark: str) -> dict[int, str]:
    """Living processes that inherited the mark."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
            except OSError:
                continue  # gone meanwhile, or not ours to read
    return found


def _gone(mark: str) -> dict[int, str]:
    """What is left of the pipeline's processes after a while in which they may end."""
    until = time.monotonic() + LEFT_S
    while (left := _processes(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def test_every_stage_runs_once_and_in_order(world: World) -> None:
    finished = [event["stage"] for event in world.of("stage") if event["status"] == "finished"]
    assert finished == ["prepare", "tune", "train", "export", "evaluate", "deploy", "predict", "shut down"]
    assert [event for event in world.of("stage") if event["status"] == "failed"] == []


def test_nothing_of_the_pipelines_own_ray_lives_on(world: World) -> None:
    assert world.left == {}


def test_the_sweep_holds_every_trial_and_names_the_best(world: World) -> None:
    sweep = Path(world.summary["places"]["sweep"])
    trials = {trial["id"]: trial for trial in json.loads((sweep / "trials.json").read_text())}
    best = trials[json.loads((sweep / "sweep.json").read_text())["best"]]
    assert len(trials) == TRIALS
    assert {trial["status"] for trial in trials.values()} <= {"finished", "stopped"}
    assert all(1e-4 <= trial["values"]["train.optimizer.lr"] <= 2e-3 for trial in trials.values())
    assert len({trial["values"]["train.optimizer.lr"] for trial in trials.values()}) == TRIALS
    assert best["metric"] == min(trial["metric"] for trial in trials.values())
    assert {event["trial"] for event in world.of("trial")} == set(trials)
    assert (sweep / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_the_final_run_has_the_winners_values_and_the_specs_rows(world: World) -> None:
    sweep = Path(world.summary["places"]["sweep"])
    trials = {trial["id"]: trial for trial in json.loads((sweep / "trials.json").read_text())}
    winner = trials[json.loads((sweep / "sweep.json").read_text())["best"]]
    described = world.storage.read_json(f"runs/{world.summary['run']}/run.json")
    train = described["spec"]["train"]
    assert train["optimizer"]["lr"] == winner["values"]["train.optimizer.lr"]
    assert train["layers"]["freeze"] == winner["values"]["train.layers.freeze"]
    assert train["rows"] == 96, "a trial's fixed values stay in the sweep"
    assert (described["sweep"], described["trial"]) == (sweep.name, winner["id"])
    result = world.storage.read_json(f"runs/{world.summary['run']}/result.json")
    assert (result["world"], result["steps"]) == (2, 6)


def test_version_one_is_registered_and_champion(world: World) -> None:
    found = Registry(world.storage).get("tiny", "champion")
    assert (found.version, world.summary["version"]) == (1, 1)
    assert world.storage.path(found.package_rel) == world.summary["places"]["package"]
    assert found.tags["run"] == world.summary["run"]


def test_the_package_opens_with_transformers_alone_and_agrees_with_the_endpoint(world: World) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = world.summary["places"]["package"]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    model.eval()
    for told in world.summary["predictions"]:
        batch = tokenizer(told["text"], truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            chance_C = model(**batch).logits.softmax(-1)[0].tolist()
        assert told["scores"] == pytest.approx(dict(zip(("negative", "positive"), chance_C, strict=True)), abs=1e-4)
        assert told["model"] == {"name": "tiny", "version": "1"}
        assert told["wanted"] in ("negative", "positive")
    assert len(world.summary["predictions"]) == 3


def test_the_report_has_the_score_beside_its_baselines_and_a_picture(world: World) -> None:
    folder = Path(world.summary["places"]["report"])
    report = json.loads((folder / "test.json").read_text())
    assert report["rows"] == 40 == sum(map(sum, report["confusion"]))
    assert set(report["baselines"]) == {"majority_class", "tf-idf_+_linear_svm"}
    assert report["accuracy"] == world.summary["accuracy"]
    assert (folder / "test.png").read_bytes()[:4] == b"\x89PNG"


def test_explain_leads_from_the_champion_to_the_input_files(world: World) -> None:
    ran = _eagleray("explain", str(world.spec), "--json")
    assert ran.returncode == 0, ran.stderr
    (model,) = json.loads(ran.stdout)["models"]
    told = model["lineage"]
    assert (model["version"], told["run"]["id"], told["seed"]) == ("1", world.summary["run"], 5)
    assert told["trial"]["trials"] == TRIALS
    assert world.storage.exists(f"{told['run']['checkpoint']}/manifest.json")
    assert sum(told["store"]["rows"].values()) <= ROWS
    (file,) = told["store"]["inputs"]
    assert (file["rel"], file["records"]) == ("rows.jsonl", ROWS)
    assert file["sha256"] == describe(world.spec.parent / "rows.jsonl")["sha256"]
    shown = "\n".join(f"{link}: {text}" for link, text in chain(Origin(**model)))
    assert file["sha256"] in shown
    assert "not recorded" not in shown


def test_what_does_not_exist_is_one_sentence(world: World) -> None:
    for arguments, told in (
        (("evaluate", "--model", "newest"), "model 'tiny' has no alias 'newest'; aliases: champion (version 1)"),
        (
            ("export", "--run", "nothing"),
            f"no finished run of that name in {world.storage.path('runs')}; newest: tiny-",
        ),
    ):
        verb, *options = arguments
        ran = _eagleray(verb, str(world.spec), *options)
        assert ran.returncode == 1
        assert told in ran.stderr
        assert len(ran.stderr.splitlines()) == 1, ran.stderr

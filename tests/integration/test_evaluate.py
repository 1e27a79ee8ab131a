"""Evaluation on a live Ray: a real package scores a real store, beside baselines that saw the training rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration import package as packages
from orchestration.data.shards import write_shard
from orchestration.data.store import SPLITS
from orchestration.errors import UserError
from orchestration.evaluation.evaluate import evaluate
from orchestration.storage import Storage
from tests.packages import LABELS, PREPROCESSING, cut_encoder, trained_tensors
from tests.tiny import columns

WORDS = (("awful", "dull", "cold", "sad"), ("lovely", "warm", "bright", "glad"))
TEST_ROWS = 61  # no multiple of the workers


@dataclass(frozen=True)
class World:
    storage: Storage
    package_rel: str
    report: dict[str, Any]


@pytest.fixture(scope="module")
def world(ray_session: Any, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    weights_rel = cut_encoder(minilm, storage)
    made = packages.export(
        storage,
        tensors=trained_tensors(storage, weights_rel, seed=3),
        weights_rel=weights_rel,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        lineage={},
    )
    _store(storage, "stores/s", LABELS)
    report = evaluate(
        storage, package_rel=made.rel, store_rel="stores/s", rows=40, workers=2, report_rel="reports/r", cpus=1.0
    )
    return World(storage=storage, package_rel=made.rel, report=report)


def _store(storage: Storage, rel: str, labels: list[str], test_rows: int = TEST_ROWS) -> None:
    """Texts of one to nine words that give their label away; the first 40 training rows are in balance, the rest positive."""
    aside = storage.staging()
    splits = {}
    for number, (split, count) in enumerate(zip(SPLITS, (60, 8, test_rows), strict=True)):
        held = [_row(number, row, skewed=split == "train" and row >= 40) for row in range(count)]
        ids = [[101, *range(len(text.split())), 102] for text, _ in held]
        made = columns(ids, [label for _, label in held], [text for text, _ in held], first=1000 * number)
        write_shard(aside / f"{split}.arrow", made)
        np.save(aside / f"{split}.order.npy", np.arange(count, dtype=np.int64))
        splits[split] = {"shards": [f"{split}.arrow"]}
    meta = {"address": rel, "labels": labels, "report": {}, "preprocessing": {}, "splits": splits}
    storage.commit(rel, aside, meta)


def _row(split: int, row: int, *, skewed: bool) -> tuple[str, int]:
    label = 1 if skewed else row % 2
    draw = np.random.Generator(np.random.PCG64([split, row]))
    things = draw.choice(["film", "soup", "room", "song", "road"], size=int(draw.integers(0, 9)))
    return " ".join([WORDS[label][row // 2 % 4], *things, f"number {row}"]), label


def _truth(world: World) -> tuple[list[str], np.ndarray]:
    rows = [_row(2, row, skewed=False) for row in range(TEST_ROWS)]
    return [text for text, _ in rows], np.array([label for _, label in rows])


def test_two_tasks_give_the_scores_of_one_package_asked_row_by_row(world: World) -> None:
    texts, labels_N = _truth(world)
    opened = packages.load(world.storage.fetch(world.package_rel))
    logits_NC = np.concatenate([opened.logits([text]) for text in texts])
    guess_N = logits_NC.argmax(axis=1)
    report = world.report
    confusion = [[int(((labels_N == i) & (guess_N == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    assert report["confusion"] == confusion
    assert report["accuracy"] == pytest.approx((guess_N == labels_N).mean())
    assert report["rows"] == TEST_ROWS
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    chance_NC = np.exp(shifted_NC) / np.exp(shifted_NC).sum(axis=1, keepdims=True)
    assert report["log_loss"] == pytest.approx(-np.log(chance_NC[np.arange(TEST_ROWS), labels_N]).mean(), rel=1e-4)
    recall = confusion[1][1] / sum(confusion[1])
    assert report["classes"]["positive"]["recall"] == pytest.approx(recall)
    assert report["classes"]["positive"]["rows"] == sum(confusion[1])


def test_the_baselines_saw_the_rows_the_model_trained_on(world: World) -> None:
    """Of the first 40 rows neither class has more, so the majority is the first class; of all 60 it is the other."""
    negatives = sum(1 for label in _truth(world)[1] if label == 0)
    found = world.report["baselines"]
    assert found["majority_class"]["accuracy"] == pytest.approx(negatives / TEST_ROWS)
    assert found["tf-idf_+_linear_svm"]["accuracy"] > 0.85  # one word of each text tells; 40 rows do not show all noise


def test_report_and_picture_lie_where_they_were_asked_for(world: World) -> None:
    assert json.loads(world.storage.read("reports/r/test.json")) == world.report
    assert world.storage.read("reports/r/test.png").startswith(b"\x89PNG")
    assert world.storage.read("reports/r/test.html").startswith(b"<!doctype html>")
    assert world.storage.list("reports/r") == ["test.html", "test.json", "test.png"]


def test_intervals_hold_the_scores_and_examples_say_which_words_speak_for_the_answer(world: World) -> None:
    report = world.report
    for metric, (low, high) in report["intervals"].items():
        assert low <= report[metric] <= high
    assert 0 <= report["calibration"]["ece"] <= 1
    assert sum(part["rows"] for part in report["slices"]) == TEST_ROWS  # quarters of the lengths; one source
    gain = report["accuracy"] - report["baselines"]["majority_class"]["accuracy"]
    low, high = report["baselines"]["majority_class"]["accuracy_gain"]
    assert low <= gain <= high
    wrong = round((1 - report["accuracy"]) * TEST_ROWS)
    assert [one["given"] != one["true"] for one in report["examples"]].count(True) == min(6, wrong)
    for example in report["examples"]:
        told = sum(score for _, score in example["words"])
        assert abs(example["gap"]) < 0.1 * abs(told) + 0.01


def test_a_store_with_other_labels_or_without_test_rows_is_refused(world: World) -> None:
    _store(world.storage, "stores/other", ["bad", "good"])
    _store(world.storage, "stores/empty", LABELS, test_rows=0)
    asked: dict[str, Any] = {
        "package_rel": world.package_rel,
        "rows": 40,
        "workers": 1,
        "report_rel": "reports/refused",
    }
    with pytest.raises(
        UserError, match=r"has the labels \['negative', 'positive'\], the store stores/other has \['bad'"
    ):
        evaluate(world.storage, store_rel="stores/other", **asked)
    with pytest.raises(UserError, match=r"the test split of .*stores/empty is empty; set data.split.test above 0"):
        evaluate(world.storage, store_rel="stores/empty", **asked)
    assert world.storage.list("reports/refused") == []


def test_rows_go_through_a_frozen_encoder_on_two_actors_and_a_light_head_is_scored(world: World) -> None:
    from models.config import ModelConfig
    from orchestration.evaluation import light
    from orchestration.features import export
    from orchestration.features.config import FeaturesConfig

    seen: list[tuple[int, int]] = []
    made = export.export(
        world.storage,
        store_rel="stores/s",
        weights_rel="weights/cut",
        model=ModelConfig(path="cut"),
        package_rel=world.package_rel,
        config=FeaturesConfig(file_rows=25),
        rows=40,
        fold=0,
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert made.rows == {"train": 40, "validation": 8, "test": TEST_ROWS}
    assert seen[-1] == (6, 6)
    report = light.score(world.storage, features_rel=made.rel, rows=40, fold=0, report_rel="reports/f")
    assert report["baselines"]["majority_class"] == world.report["baselines"]["majority_class"] | {
        "accuracy_gain": report["baselines"]["majority_class"]["accuracy_gain"]
    }
    assert report["rows"] == TEST_ROWS
    assert world.storage.exists("reports/f/test.png")

"""Scores against hand counts, baselines on a small real store, and the picture's contents."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.shards import write_shard
from orchestration.data.store import SPLITS
from orchestration.evaluation.evaluate import baselines, beside, picture, predict, score, unspaced
from orchestration.storage import Storage
from tests.packages import PREPROCESSING
from tests.tiny import columns

NAMES = ["negative", "neutral", "positive"]
COUNTED = ("precision", "recall", "f1", "rows")
Row = tuple[str, int, int]  # text, label, copy


def _logits(*guesses: int, certainty: float = 2.0) -> np.ndarray:
    logits_NC = np.zeros((len(guesses), 3), dtype=np.float32)
    logits_NC[np.arange(len(guesses)), guesses] = certainty
    return logits_NC


def _store(root: Path, **rows: list[Row]) -> Storage:
    storage = Storage(str(root))
    aside = storage.staging()
    for split in SPLITS:
        texts, labels, copies = ([row[i] for row in rows.get(split, [])] for i in range(3))
        write_shard(aside / f"{split}.arrow", columns([[1, 2]] * len(texts), labels, texts, copies))  # type: ignore[arg-type]
        np.save(aside / f"{split}.order.npy", np.arange(len(texts), dtype=np.int64))
    splits = {split: {"shards": [f"{split}.arrow"]} for split in SPLITS}
    meta = {"address": "hand", "labels": NAMES[:2], "report": {}, "preprocessing": PREPROCESSING, "splits": splits}
    storage.commit("stores/hand", aside, meta)
    return storage


def test_a_score_equals_what_is_counted_by_hand() -> None:
    wanted_N = np.array([0, 0, 0, 2, 2])
    found = score(_logits(0, 0, 2, 2, 0), wanted_N, NAMES)
    assert found["rows"] == 5
    assert found["confusion"] == [[2, 0, 1], [0, 0, 0], [1, 0, 1]], "rows are the true classes"
    assert found["accuracy"] == pytest.approx(3 / 5)
    by_class = {name: {k: v for k, v in one.items() if k in COUNTED} for name, one in found["classes"].items()}
    assert by_class["negative"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "rows": 3})
    assert by_class["positive"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "rows": 2})
    assert found["classes"]["neutral"] == {"precision": 0, "recall": 0, "f1": 0, "rows": 0}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2), (
        "a class that neither occurs nor is guessed is left out"
    )


def test_log_loss_is_the_mean_surprise_and_stands_large_logits() -> None:
    right, wrong = math.e**2 / (math.e**2 + 2), 1 / (math.e**2 + 2)
    found = score(_logits(0, 2), np.array([0, 0]), NAMES)
    assert found["log_loss"] == pytest.approx(-(math.log(right) + math.log(wrong)) / 2, rel=1e-6)
    sure = score(_logits(0, 2, certainty=1000.0), np.array([0, 2]), NAMES)
    assert sure["log_loss"] == pytest.approx(0.0, abs=1e-9)


def test_the_baselines_are_the_common_class_and_a_model_of_words(tmp_path: Path) -> None:
    train: list[Row] = [
        ("good film", 1, 0),
        ("good play", 1, 0),
        ("bad film", 0, 0),
        ("bad play", 0, 0),
        ("good", 1, 0),
    ]
    test: list[Row] = [("good book", 1, 0), ("bad book", 0, 0), ("bad song", 0, 0)]
    storage = _store(tmp_path, train=train, test=test)
    guesses = baselines(storage.url, "stores/hand", "test", None, None)
    wanted_N = np.array([1, 0, 0])
    found = {name: beside(wanted_N, wanted_N, guess_N) for name, guess_N in guesses.items()}
    low, high = found["majority_class"].pop("accuracy_gain")
    assert 0 <= low < 2 / 3 < high
    assert found["majority_class"] == pytest.approx({"accuracy": 1 / 3, "macro_f1": (2 * 1 / 4 + 0) / 2})
    assert found["tf-idf_+_linear_svm"] == {"accuracy": 1.0, "macro_f1": 1.0, "accuracy_gain": [0.0, 0.0]}


def test_the_baselines_see_the_rows_that_the_model_saw_without_augmented_copies(tmp_path: Path) -> None:
    train: list[Row] = [("bad", 0, 0), ("worse", 0, 1), ("poor", 0, 2), ("good", 1, 0), ("fine", 1, 0), ("dull", 0, 0)]
    storage = _store(tmp_path, train=train, test=[("fine film", 1, 0), ("fine", 1, 0)])
    # Three rows are bad, good, fine: two of the three positive. With the copies it would be three negative to two.
    assert baselines(storage.url, "stores/hand", "test", None, 3)["majority_class"].tolist() == [1, 1]


def test_one_class_of_training_rows_leaves_no_word_model(tmp_path: Path) -> None:
    storage = _store(tmp_path, train=[("good", 1, 0), ("fine", 1, 0)], test=[("bad", 0, 0)])
    assert set(baselines(storage.url, "stores/hand", "test", None, None)) == {"majority_class"}


def test_texts_without_spaces_are_judged_by_their_characters(tmp_path: Path) -> None:
    train: list[Row] = [
        ("这部电影很好看我喜欢", 1, 0),
        ("演员很好故事也很好啊", 1, 0),
        ("很差的电影浪费时间了", 0, 0),
        ("太差了不想再看第二遍", 0, 0),
    ]
    storage = _store(tmp_path, train=train, test=[("故事很好真的推荐大家", 1, 0), ("服务很差而且很贵很慢", 0, 0)])
    found = baselines(storage.url, "stores/hand", "test", None, None)
    assert found["tf-idf_of_characters_+_linear_svm"].tolist() == [1, 0]
    assert not unspaced(["A film that we liked, all of us."])


def test_predictions_are_those_of_the_package_for_the_rows_asked_for(tmp_path: Path, minilm: Path) -> None:
    from orchestration import package
    from tests.packages import LABELS, cut_encoder, trained_tensors

    rows: list[Row] = [("A lovely film.", 1, 0), ("Dull and long.", 0, 0), ("Fine.", 1, 0)]
    storage = _store(tmp_path, test=rows)
    weights_rel = cut_encoder(minilm, storage)
    made = package.export(
        storage,
        tensors=trained_tensors(storage, weights_rel, 1),
        weights_rel=weights_rel,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        lineage={},
    )
    logits_NC, labels = predict(storage.url, made.rel, "stores/hand", "test", None, np.array([2, 0]))
    assert labels == LABELS
    opened = package.load(storage.fetch(made.rel), threads=1)
    for found_C, text in zip(logits_NC, ("Fine.", "A lovely film."), strict=True):
        np.testing.assert_allclose(found_C, opened.logits([text])[0], atol=1e-5)


@pytest.mark.parametrize("classes", [2, 20])
def test_the_picture_is_a_png_in_which_no_class_name_covers_another(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    kept: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", kept.append)
    names = [f"class {number} of twenty" for number in range(classes)]
    report = {
        "split": "test",
        "labels": names,
        "rows": classes,
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "confusion": np.eye(classes, dtype=int).tolist(),
        "calibration": {"ece": 0.05, "bins": [{"probability": 0.95, "accuracy": 1.0, "rows": classes}]},
        "baselines": {"majority_class": {"accuracy": 0.1, "macro_f1": 0.02}},
    }
    assert picture(report)[:8] == b"\x89PNG\r\n\x1a\n"
    (figure,) = kept
    confusion, bars, calibration = figure.axes
    assert calibration.get_title() == "calibration error 0.050"
    boxes = [label.get_window_extent() for label in confusion.get_yticklabels()]
    assert [label.get_text() for label in confusion.get_yticklabels()] == names
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    assert len(confusion.texts) == classes**2
    assert not any(
        bars.get_legend().get_window_extent().overlaps(shown.get_window_extent())
        for shown in (*bars.patches, *bars.texts)
    )
    close(figure)

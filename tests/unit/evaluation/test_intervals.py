from __future__ import annotations

import numpy as np
import pytest

from orchestration.evaluation import intervals
from orchestration.evaluation.calibration import calibration, chances, ranking
from orchestration.evaluation.slices import slices


def rows(count: int = 400, right: float = 0.8, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels_N = draw.integers(0, 3, count)
    wrong_N = (labels_N + draw.integers(1, 3, count)) % 3
    return labels_N, np.where(draw.random(count) < right, labels_N, wrong_N)


def test_intervals_are_those_of_rows_drawn_one_by_one() -> None:
    from sklearn.metrics import f1_score

    labels_N, guess_N = rows()
    found = intervals.of_scores(labels_N, guess_N, 3)
    draw = np.random.default_rng(9)
    scores: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    for _ in range(600):
        at_N = draw.integers(0, len(labels_N), len(labels_N))
        scores["accuracy"].append(float((labels_N[at_N] == guess_N[at_N]).mean()))
        scores["macro_f1"].append(float(f1_score(labels_N[at_N], guess_N[at_N], average="macro")))
    for name, values in scores.items():
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012), name
    assert found == intervals.of_scores(labels_N, guess_N, 3), "the same each time"


def test_a_gain_is_measured_on_the_same_rows() -> None:
    labels_N, guess_N = rows()
    assert intervals.of_gain(labels_N, guess_N, guess_N) == [0.0, 0.0]
    low, high = intervals.of_gain(labels_N, labels_N, guess_N)
    assert 0 < low < (guess_N != labels_N).mean() < high
    other_N = rows(seed=2, right=0.8)[1]
    low, high = intervals.of_gain(labels_N, guess_N, other_N)
    assert low > 0.3, "right against mostly wrong"


def test_probabilities_that_mean_what_they_say_have_no_calibration_error() -> None:
    chance_NC = np.tile([0.75, 0.25], (4, 1))
    found = calibration(chance_NC, np.array([0, 0, 0, 1]))
    assert found["ece"] == 0.0
    assert found["bins"] == [{"from": 0.7, "to": 0.8, "rows": 4, "probability": 0.75, "accuracy": 0.75}]
    sure = calibration(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.6, 0.4]]), np.array([0, 0, 0, 1]))
    assert sure["ece"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.1)
    assert [one["rows"] for one in sure["bins"]] == [2, 2]


def test_ranking_is_by_class_and_leaves_out_what_no_row_or_every_row_has() -> None:
    chance_NC = chances(np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 0.0]], np.float32))
    found = ranking(chance_NC, np.array([0, 1, 0, 1]), ["a", "b", "c"])
    assert set(found) == {"a", "b"}
    assert found["a"] == {"roc_auc": 1.0, "average_precision": 1.0}


def test_slices_are_sources_and_quarters_of_the_lengths_and_hold_every_row() -> None:
    labels_N, guess_N = rows(200)
    lengths_N = np.arange(200) % 40 + 3
    sources = {"film": np.arange(200) < 150, "news": np.arange(200) >= 150}
    found = slices(labels_N, guess_N, 3, lengths_N=lengths_N, sources=sources)
    assert [one["slice"] for one in found][:2] == ["source film", "source news"]
    assert [one["rows"] for one in found][:2] == [150, 50]
    assert sum(one["rows"] for one in found[2:]) == 200
    assert found[0]["accuracy"] == pytest.approx((labels_N == guess_N)[:150].mean())
    low, high = found[0]["intervals"]["accuracy"]
    assert low <= found[0]["accuracy"] <= high


def test_a_slice_of_few_rows_or_one_length_is_not_told() -> None:
    labels_N, guess_N = rows(40)
    sources = {"film": np.arange(40) < 5, "news": np.arange(40) >= 5}
    found = slices(labels_N, guess_N, 3, lengths_N=np.full(40, 7), sources=sources)
    assert [one["slice"] for one in found] == ["source news"]


def test_intervals_of_tallies_are_those_of_rows_drawn_one_by_one() -> None:
    """Of Pearson's correlation, which is no mean of rows, by the sums that the task adds up."""
    draw = np.random.default_rng(5)
    x_N = draw.normal(size=300)
    y_N = x_N + draw.normal(size=300)
    parts_UT = np.stack([np.ones(300), x_N, y_N, x_N**2, y_N**2, x_N * y_N], axis=1)

    def scores(total_T: np.ndarray) -> dict[str, float]:
        _, x, y, xx, yy, xy = total_T / total_T[0]
        return {"pearson": (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y)), "never": float("nan")}

    found = intervals.of_tallies(parts_UT, scores)
    taken = [draw.integers(0, 300, 300) for _ in range(800)]
    wanted = np.quantile([np.corrcoef(x_N[at_N], y_N[at_N])[0, 1] for at_N in taken], [0.025, 0.975])
    assert list(found) == ["pearson"]
    assert found["pearson"] == pytest.approx(wanted, abs=0.015)
    assert found == intervals.of_tallies(parts_UT, scores), "the same each time"
    assert intervals.of_tallies(parts_UT[:1], scores) == {}


def test_rows_that_belong_together_are_drawn_together() -> None:
    """Ten groups of equal rows say no more than ten rows."""
    values_U = np.arange(10.0)
    alone = intervals.of_means({"mean": values_U})["mean"]
    split = intervals.of_means({"mean": np.repeat(values_U, 20)})["mean"]
    assert alone[1] - alone[0] > 3 * (split[1] - split[0])

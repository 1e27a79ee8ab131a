"""The picture beside the report: it is there for any report, and its bars are the report's numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestration.data import picture
from orchestration.storage import Storage

EMPTY: dict[str, Any] = {"entries": 0, "rows": 0, "histogram": [], "classes": {}}


def _report(**more: Any) -> dict[str, Any]:
    splits = {
        "train": {
            "entries": 30,
            "rows": 30,
            "histogram": [[0, 10], [4, 15], [8, 5]],
            "classes": {"bad": 12, "good": 18},
        },
        "validation": {"entries": 4, "rows": 4, "histogram": [[3, 4]], "classes": {"bad": 1, "good": 3}},
        "test": {**EMPTY, "classes": {"bad": 0, "good": 0}},
    }
    left = {f"reason number {i} {'very ' * 20}long": {"count": 20 - i, "bad": False, "examples": []} for i in range(15)}
    return {
        "rows_in": 234,
        "left": left,
        "splits": splits,
        "sources": [{"name": "one", "records": 200}, {"name": "two", "records": 34}],
        **more,
    }


def test_picture_and_numbers_lie_beside_each_other_under_the_stores_address(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    rel = picture.write(storage, store_rel="stores/abc", report=_report(seconds=3.0))
    assert rel == "reports/abc/prepare.png"
    with Image.open(tmp_path / rel) as image:
        assert (image.format, image.width > 1000, image.height > 700) == ("PNG", True, True)
    assert storage.read_json("reports/abc/prepare.json") == _report()  # not how long it took: the same file every time


def test_the_same_report_gives_the_same_picture() -> None:
    assert picture.picture(_report()) == picture.picture(_report())


@pytest.mark.parametrize(
    "more",
    [
        {"left": {}},
        {"splits": {name: EMPTY for name in ("train", "validation", "test")}, "left": {}},
        {"sources": [{"name": "x" * 64, "records": 0}]},
    ],
)
def test_a_report_with_little_in_it_is_drawn_too(more: dict[str, Any]) -> None:
    with Image.open(io.BytesIO(picture.picture(_report(**more)))) as image:
        image.load()


def test_panels_show_the_reports_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kept: list[Any] = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    picture.picture(_report())
    lengths, sources, classes, left = kept[0].axes
    assert [bar.get_width() for bar in sources.patches] == [200, 34]
    assert [bar.get_width() for bar in left.patches] == [20 - i for i in range(picture.MOST_REASONS)]
    assert all(len(tick.get_text()) <= picture.LONGEST_REASON for tick in left.get_yticklabels())
    assert [bar.get_height() for bar in classes.patches] == [12, 18, 1, 3, 0, 0]
    train = lengths.patches[0].get_data()
    assert train.values == pytest.approx([100 / 3, 50, 50 / 3])
    assert train.edges.tolist() == [0, 4, 8, 12]

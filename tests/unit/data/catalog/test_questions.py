"""The derived set of questions: right answers, the same at each fetch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestration.data.catalog.questions import COLOURS, emoji_questions, main_colour
from orchestration.probes import png
from tests.archives import fetched_twice


def _plain(colour: tuple[int, int, int]) -> bytes:
    """A square of one colour with a smaller one of another."""
    pixels = np.full((64, 64, 3), colour, np.uint8)
    pixels[:20, :20] = COLOURS["black" if colour != COLOURS["black"] else "red"]
    return png(pixels)


@pytest.mark.parametrize("name", COLOURS)
def test_the_main_colour_is_that_of_most_pixels(name: str) -> None:
    assert main_colour(_plain(COLOURS[name])) == name


def test_each_picture_has_three_questions_and_their_answers_are_those_of_the_package(tmp_path: Path) -> None:
    every = [
        {
            "unified": f"1F6{i:02d}",
            "image": f"{i}.png",
            "category": "Objects" if i % 2 else "Flags",
            "subcategory": f"s-{i}",
        }
        for i in range(12)
    ]
    files = {"package/emoji.json": json.dumps(every).encode()}
    files |= {f"package/img/twitter/64/{i}.png": _plain(list(COLOURS.values())[i % 8]) for i in range(12)}
    rows = fetched_twice(tmp_path, emoji_questions, files)
    assert len(rows) == 36
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("kind", "colour", "check")}
    assert [row["answer"] for row in by_kind["kind"]] == [about["category"] for about in every]
    assert [row["answer"] for row in by_kind["colour"]] == [list(COLOURS)[i % 8] for i in range(12)]
    for about, row in zip(every, by_kind["check"], strict=True):
        assert row["answer"] == ("yes" if about["subcategory"].replace("-", " ") in row["text"] else "no")
    assert {row["answer"] for row in by_kind["check"]} == {"yes", "no"}

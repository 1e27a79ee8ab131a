"""The derived set of questions: right answers, the same at each fetch."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog.questions import COLOURS, emoji_questions, main_colour
from orchestration.probes import png


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
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        emoji_questions([archive], folder)
        found.append((folder / "emoji-questions.parquet").read_bytes())
    assert found[0] == found[1]
    rows = pq.read_table(tmp_path / "0" / "emoji-questions.parquet").to_pylist()
    assert len(rows) == 36
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("kind", "colour", "check")}
    assert [row["answer"] for row in by_kind["kind"]] == [about["category"] for about in every]
    assert [row["answer"] for row in by_kind["colour"]] == [list(COLOURS)[i % 8] for i in range(12)]
    for about, row in zip(every, by_kind["check"], strict=True):
        assert row["answer"] == ("yes" if about["subcategory"].replace("-", " ") in row["text"] else "no")
    assert {row["answer"] for row in by_kind["check"]} == {"yes", "no"}

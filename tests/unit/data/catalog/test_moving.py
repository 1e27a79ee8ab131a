"""The derived set of videos: what passes, where, and the same at each fetch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestration.data import media
from orchestration.data.catalog.moving import PICTURES, SIDE, emoji_passing, passing
from orchestration.data.catalog.questions import COLOURS
from orchestration.data.config import ImageConfig
from orchestration.probes import png
from tests.archives import fetched_twice

RED = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)


@pytest.mark.parametrize("draw", range(24))
def test_it_comes_crosses_in_one_direction_and_is_gone(draw: int) -> None:
    shown = [np.asarray(one) for one in passing(Image.fromarray(RED).convert("RGBA"), draw | 2 << 8)]
    assert len(shown) == PICTURES
    red_FSS = np.stack([(one == (255, 0, 0)).all(2) for one in shown])
    seen = [number for number in range(PICTURES) if red_FSS[number].any()]
    assert seen == list(range(seen[0], seen[0] + 4))
    assert all(0 < red_FSS[number].mean() < 0.8 for number in seen)  # never whole
    middles = np.stack([np.argwhere(red_FSS[number]).mean(0) for number in seen])
    moved = np.abs(np.diff(middles, axis=0)).sum(0)
    assert moved.min() == 0 < moved.max()
    steps = np.diff(middles[:, moved.argmax()])
    assert (steps > 0).all() or (steps < 0).all()
    assert (shown[(seen[0] - 1) % PICTURES] == list(COLOURS.values())[2]).all()


def test_a_fetch_gives_the_same_videos_with_the_kinds_of_the_package(tmp_path: Path) -> None:
    every = [
        {
            "unified": f"1F6{i:02d}",
            "image": f"{i}.png",
            "category": "Objects" if i % 2 else "Flags",
            "name": f"NAME {i}",
        }
        for i in range(6)
    ]
    files = {"package/emoji.json": json.dumps([*every, {**every[0], "category": "Component"}]).encode()}
    files |= {f"package/img/twitter/64/{i}.png": png(RED) for i in range(6)}
    rows = fetched_twice(tmp_path, emoji_passing, files)
    assert [(row["text"], row["category"]) for row in rows] == [(one["name"].lower(), one["category"]) for one in every]
    decoded = media.decode_image(rows[0]["image"], ImageConfig(size=64, frames=PICTURES))
    assert decoded is not None
    assert len({one.tobytes() for one in decoded}) > 3

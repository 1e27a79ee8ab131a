"""Questions about pictures, made from what a package says of them and from their pixels: a derived set, since no package holds a real one. Takes the archive of
Twitter's emoji; fills a folder. Called by the catalogue's fetch.

Three questions a picture: what kind of thing it shows (the package's category), which colour there is most of (the nearest of eight, over its opaque
pixels), and whether it belongs to a subcategory, which is its own or, half of the time, another's. Everything is a function of the emoji, so a fetch
gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from orchestration.data.catalog.unpack import MEDIA_GROUP_ROWS, members, write_rows

COLOURS = {
    "red": (221, 46, 68),
    "orange": (244, 144, 12),
    "yellow": (255, 204, 77),
    "green": (119, 178, 85),
    "blue": (59, 136, 195),
    "purple": (146, 102, 204),
    "white": (230, 231, 232),
    "black": (41, 47, 51),
}  # of the set's own palette
ASKED = {
    "kind": ("what kind of thing is this?", "which group does it belong to?", "what does the picture show?"),
    "colour": ("which colour is there most of?", "what is its main colour?", "what colour is it mostly?"),
    "check": ("is this {}?", "does it show {}?", "would you find it under {}?"),
}
COLUMNS = {"image": "binary", "text": "string", "answer": "string", "kind": "string", "emoji": "string"}


def emoji_questions(archives: list[Path], folder: Path) -> None:
    """-> image, text (the question), answer, kind (of question), emoji."""
    wanted = re.compile(r"package/(?:emoji\.json|img/twitter/64/[^/]+\.png)")
    files = dict(members(archives[0], lambda name: wanted.fullmatch(name) is not None))
    every = [about for about in json.loads(files["package/emoji.json"]) if about["category"] != "Component"]
    groups = sorted({about["subcategory"] for about in every})
    rows: list[tuple[Any, ...]] = []
    for about in every:
        image = files[f"package/img/twitter/64/{about['image']}"]
        draw = int.from_bytes(hashlib.blake2b(about["unified"].encode(), digest_size=8).digest(), "big")
        shown = groups[(draw >> 8) % len(groups)] if draw & 1 else about["subcategory"]
        answers = {
            "kind": about["category"],
            "colour": main_colour(image),
            "check": "yes" if shown == about["subcategory"] else "no",
        }
        emoji = "".join(chr(int(point, 16)) for point in about["unified"].split("-"))
        for number, (kind, answer) in enumerate(answers.items()):
            question = ASKED[kind][(draw >> (16 + 4 * number)) % 3].format(shown.replace("-", " "))
            rows.append((image, question, answer, kind, emoji))
    write_rows(folder / "emoji-questions.parquet", COLUMNS, rows, MEDIA_GROUP_ROWS)


def main_colour(content: bytes) -> str:
    """The colour of COLOURS that is nearest to most opaque pixels."""
    import numpy as np
    from PIL import Image

    pixels_HW4 = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(np.int64)
    seen_N3 = pixels_HW4[pixels_HW4[:, :, 3] > 127][:, :3]
    distance_NC = ((seen_N3[:, None] - np.array(list(COLOURS.values()))) ** 2).sum(2)
    return list(COLOURS)[int(np.bincount(distance_NC.argmin(1), minlength=len(COLOURS)).argmax())]

"""Short videos made from pictures, a derived set, since no package holds real ones. Takes the archive of Twitter's emoji; fills a folder. Called by the
catalogue's fetch.

Each emoji passes through the view on one of COLOURS: it comes in at one of the first pictures, crosses in STEPS of them, in one of four directions,
and is never seen whole; in the others nothing is there. So one picture, such as the first, seldom tells what it was. Everything is a
function of the emoji, so a fetch gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.data.catalog.questions import COLOURS
from orchestration.data.catalog.unpack import MEDIA_GROUP_ROWS, members, write_rows

if TYPE_CHECKING:
    from PIL import Image

PICTURES, SIDE = 6, 64
STEPS = (-45, -15, 15, 45)  # pixels from the middle
COLUMNS = {"image": "binary", "text": "string", "category": "string", "emoji": "string"}


def emoji_passing(archives: list[Path], folder: Path) -> None:
    """-> image (a GIF), text (what the emoji is called), category, emoji."""
    from PIL import Image

    wanted = re.compile(r"package/(?:emoji\.json|img/twitter/64/[^/]+\.png)")
    files = dict(members(archives[0], lambda name: wanted.fullmatch(name) is not None))
    rows: list[tuple[Any, ...]] = []
    for about in json.loads(files["package/emoji.json"]):
        if about["category"] == "Component":
            continue
        draw = int.from_bytes(hashlib.blake2b(about["unified"].encode(), digest_size=8).digest(), "big")
        picture = Image.open(io.BytesIO(files[f"package/img/twitter/64/{about['image']}"])).convert("RGBA")
        emoji = "".join(chr(int(point, 16)) for point in about["unified"].split("-"))
        rows.append((gif(passing(picture, draw)), about["name"].lower(), about["category"], emoji))
    write_rows(folder / "emoji-passing.parquet", COLUMNS, rows, MEDIA_GROUP_ROWS)


def passing(picture: Image.Image, draw: int) -> list[Image.Image]:
    """PICTURES of SIDE x SIDE. `draw`: bits that say when it comes, from where, and on which colour."""
    from PIL import Image

    upright, back, begins = draw & 1, draw >> 1 & 1, (draw >> 2) % (PICTURES - len(STEPS) + 1)
    behind = list(COLOURS.values())[(draw >> 8) % len(COLOURS)]
    found = []
    for number in range(PICTURES):
        whole = Image.new("RGB", (SIDE, SIDE), behind)
        if begins <= number < begins + len(STEPS):
            step = STEPS[number - begins] * (-1 if back else 1)
            whole.paste(picture, (0, step) if upright else (step, 0), picture)
        found.append(whole)
    return found


def gif(pictures: list[Image.Image]) -> bytes:
    held = io.BytesIO()
    pictures[0].save(held, "GIF", save_all=True, append_images=pictures[1:], duration=100, loop=0)
    return held.getvalue()

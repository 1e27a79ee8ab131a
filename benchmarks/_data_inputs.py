"""The corpora of `data`: human-scored English texts and the verses of the King James Bible, of the catalogue, with near duplicates
planted among them. Gives texts, and JSONL files with `id` and `text`. The same bytes every time: choices by hash, no clock."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestration.data import catalog, rng
from orchestration.storage import cache_root

FILES = 8  # of a corpus: two tasks have several each
PLANTED = 0.04  # share of the rows that get a near copy of themselves beside the copies the corpora have
SEED = 17


@dataclass(frozen=True)
class Corpus:
    """`texts` by their ids, which are places; `files`: the same rows as JSONL, in order."""

    texts: list[str]
    folder: Path
    files: list[Path]


def texts(*names: str) -> list[str]:
    """Column `text` of catalogue sets, in an order by hash, so that any head of it is a sample."""
    import pyarrow.dataset

    found: list[str] = []
    for name in names:
        path = catalog.local(f"catalog:{name}")
        place = path if path.is_file() else path / catalog.entry(f"catalog:{name}").result
        found += pyarrow.dataset.dataset(place).to_table(columns=["text"]).column("text").to_pylist()
    order = sorted(range(len(found)), key=lambda place: rng.mix(rng.key("bench-order", SEED), place))
    return [found[place] for place in order]


def corpus(rows: int | None = None) -> Corpus:
    """The first `rows` of both sets in mixed order (all: 54,806), and near copies of one in twenty-five of them."""
    whole = planted(texts("vader-sentiment", "king-james")[:rows])
    folder = cache_root() / "benchmarks" / "data-corpus" / str(rows or "all")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for number in range(FILES):
        path = folder / f"{number:02d}.jsonl"
        places = range(len(whole) * number // FILES, len(whole) * (number + 1) // FILES)
        lines = (json.dumps({"id": place, "text": whole[place]}, ensure_ascii=False) + "\n" for place in places)
        path.write_text("".join(lines), encoding="utf-8")
        files.append(path)
    return Corpus(whole, folder, files)


def planted(texts: list[str]) -> list[str]:
    """Each chosen text comes once more, with one word left out, doubled or exchanged with its neighbour; all in an order by hash."""
    key = rng.key("bench-planted", SEED)
    copies = []
    for place, text in enumerate(texts):
        number = rng.mix(key, place)
        words = text.split(" ")
        if rng.share(number) < PLANTED and len(words) > 7:
            copies.append(" ".join(_changed(words, rng.mix(number, 1), rng.mix(number, 2) % 3)))
    whole = texts + copies
    return [whole[place] for place in sorted(range(len(whole)), key=lambda place: rng.mix(key, place + 2**40))]


def _changed(words: list[str], number: int, how: int) -> list[str]:
    at = number % (len(words) - 1)
    middle = [[words[at + 1]], [words[at], words[at], words[at + 1]], [words[at + 1], words[at]]][how]
    return [*words[:at], *middle, *words[at + 2 :]]

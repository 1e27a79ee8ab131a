"""`prepare` on pictures, sounds and series, and on rows that are poison: whatever a file holds, the others get through, the bad ones are
named by file and row, and one more than the spec forgives stops everything."""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestration.data.config import DataConfig
from orchestration.data.prepare import Prepared, make_plan, prepare
from orchestration.data.store import TokenStore
from orchestration.errors import DataError
from orchestration.storage import MANIFEST, Storage
from tests.corpora import LABELS, RULES, WEIGHTS, scored, store_bytes, tokenizer_storage

LINE_BYTES = 50_000_000
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def new_storage(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Storage]:
    return lambda: tokenizer_storage(tmp_path_factory.mktemp("storage"), minilm)


def _prepare(values: dict[str, Any], storage: Storage, **more: Any) -> Prepared:
    config = DataConfig.model_validate(values)
    return prepare(config, **{"weights_rel": WEIGHTS, "seed": 5, "storage": storage, **more})


def _png(level: int, size: int = 40) -> bytes:
    held = io.BytesIO()
    pixels = (np.arange(size * size * 3).reshape(size, size, 3) * (level + 1) % 256).astype(np.uint8)
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def _bomb(side: int = 30_000) -> bytes:
    """A PNG whose header claims side x side pixels; 2.7 GB as RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------------------------------------- poison


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 good texts; lines 51 to 54: no UTF-8, 50 MB, a number as text, an array. 40 good pictures; rows 11 to 13 of them: cut off,
    no picture at all, a bomb."""
    root = tmp_path_factory.mktemp("poison")
    good = [json.dumps(row).encode() for row in scored(400)]
    long = b'{"score": 1, "text": "' + b"word " * (LINE_BYTES // 5) + b'"}'
    bad = [b'{"score": 1, "text": "caf\xe9"}', long, b'{"score": 1, "text": 7}', b"[1, 2]"]
    (root / "texts.jsonl").write_bytes(b"\n".join([*good[:50], *bad, *good[50:]]) + b"\n")
    pictures = [_png(level) for level in range(40)]
    pictures[10:10] = [_png(50)[:200], b"GIF? no", _bomb()]
    table = {"text": [f"picture {i}" for i in range(43)], "score": [1.0, -1.0] * 21 + [1.0], "picture": pictures}
    pq.write_table(pa.table(table), root / "pictures.parquet")
    return root


def _poison_spec(root: Path, allowed: int) -> dict[str, Any]:
    label = {"column": "score", "rules": RULES}
    return {
        "sources": [
            {"name": "texts", "path": str(root / "texts.jsonl"), "label": label},
            {"name": "pictures", "path": str(root / "pictures.parquet"), "label": label, "image": "picture"},
        ],
        "labels": LABELS,
        "image": {"size": 16},
        "shard_rows": 64,
        "max_bad_rows": allowed,
    }


class Peak:
    """How much private memory all workers of Ray gained together at most."""

    def __enter__(self) -> Peak:
        self.before, self.most, self._ended = self._now(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            now = self._now()
            gained = sum(size - self.before[pid] for pid, size in now.items() if pid in self.before)
            self.most = max(self.most, gained)

    @staticmethod
    def _now() -> dict[int, int]:
        found = {}
        for child in psutil.Process().children(recursive=True):
            try:
                if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::"):
                    memory = child.memory_info()
                    found[child.pid] = memory.rss - memory.shared
            except psutil.Error:
                continue
        return found


def test_each_kind_of_poison_is_named_by_file_and_row_counted_and_skipped(
    poisoned: Path, new_storage: Callable[[], Storage]
) -> None:
    storage = new_storage()
    made = _prepare(_poison_spec(poisoned, 7), storage)
    left = {reason: what for reason, what in made.report["left"].items() if what["bad"]}
    texts, pictures = poisoned / "texts.jsonl", poisoned / "pictures.parquet"
    assert {reason: what["count"] for reason, what in left.items()} == {
        "not valid UTF-8": 1,
        "longer than data.max_record_bytes": 1,
        "column 'text' is not text": 1,
        "a JSON value, but not an object": 1,
        "image cannot be decoded": 2,
        "image has more pixels than data.image.max_pixels=50000000": 1,
    }
    shown = {reason: what["examples"] for reason, what in left.items()}
    assert shown["not valid UTF-8"] == [f"{texts} row 51"]
    assert shown["longer than data.max_record_bytes"] == [f"{texts} row 52"]
    assert shown["column 'text' is not text"] == [f"{texts} row 53: 7"]
    assert shown["a JSON value, but not an object"] == [f"{texts} row 54"]
    assert [example.partition(": ")[0] for example in shown["image cannot be decoded"]] == [
        f"{pictures} row 11",
        f"{pictures} row 12",
    ]
    (bomb,) = shown["image has more pixels than data.image.max_pixels=50000000"]
    assert bomb.startswith(f"{pictures} row 13: ")
    kept = sum(split["rows"] for split in made.report["splits"].values())
    assert made.report["rows_in"] == 447 == kept + sum(what["count"] for what in made.report["left"].values())


def test_one_bad_row_more_than_the_spec_forgives_stops_everything(
    poisoned: Path, new_storage: Callable[[], Storage]
) -> None:
    storage = new_storage()
    with pytest.raises(DataError) as caught:
        _prepare(_poison_spec(poisoned, 6), storage)
    message = str(caught.value)
    assert message.startswith("7 rows cannot be used, data.max_bad_rows allows 6: ")
    for row in (f"{poisoned}/texts.jsonl row 5{i}" for i in (1, 2, 3, 4)):
        assert row in message
    for row in (f"{poisoned}/pictures.parquet row 1{i}" for i in (1, 2, 3)):
        assert row in message
    rel = make_plan(
        DataConfig.model_validate(_poison_spec(poisoned, 6)), weights_rel=WEIGHTS, seed=5, storage=storage
    ).work.store_rel
    assert not storage.exists(f"{rel}/{MANIFEST}")


def test_a_line_of_fifty_megabytes_and_a_bomb_cost_no_memory(
    poisoned: Path, new_storage: Callable[[], Storage]
) -> None:
    """Of the line at most a block of 8 MB and what is kept of it so far, of the bomb its header; twice, since there are two passes."""
    _prepare(_poison_spec(poisoned, 7), new_storage())  # what workers import and cache is there
    with Peak() as peak:
        _prepare(_poison_spec(poisoned, 7), new_storage())
    assert peak.most < LINE_BYTES, f"{peak.most / 1e6:.0f} MB"


# ---------------------------------------------------------------------------------------------- media


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures with captions as files, 30 sounds, a table of 500 steps of two columns."""
    import soundfile

    root = tmp_path_factory.mktemp("media")
    for name in ("pictures", "sounds"):
        (root / name).mkdir()
    for i in range(60):
        (root / "pictures" / f"{i:02d}.png").write_bytes(_png(i))
        (root / "pictures" / f"{i:02d}.txt").write_text(f"picture number {i}")
    for i in range(30):
        wave = np.sin(np.arange(2000 + 100 * i) * (0.05 + 0.01 * i)) * 0.5
        soundfile.write(root / "sounds" / f"{i:02d}.wav", wave, 8000)
    steps = np.arange(500)
    table = {"a": np.sin(steps / 7.0), "b": steps * 0.01}
    pq.write_table(pa.table(table), root / "table.parquet")
    return root


def _media_spec(root: Path) -> dict[str, Any]:
    return {
        "sources": [
            {"name": "pictures", "path": str(root / "pictures"), "format": "images"},
            {"name": "sounds", "path": str(root / "sounds"), "format": "audio", "text": None},
            {
                "name": "table",
                "path": str(root / "table.parquet"),
                "format": "series",
                "series": ["a", "b"],
                "text": None,
            },
        ],
        "image": {"size": 16},
        "audio": {"rate": 8000, "max_seconds": 0.5},
        "series": {"window": 50, "stride": 25},
        "augment": {"copies": 1, "ops": [{"op": "flip", "rate": 1.0}, {"op": "noise"}]},
        "shard_rows": 16,
    }


def test_pictures_sounds_and_series_give_one_store_whose_bytes_depend_on_nothing_else(
    media: Path, new_storage: Callable[[], Storage]
) -> None:
    made = []
    for workers, blocks in ((2, None), (1, 2), (4, 5)):
        storage = new_storage()
        made.append((storage, _prepare(_media_spec(media), storage, workers=workers, blocks=blocks)))
    assert store_bytes(*made[1]) == store_bytes(*made[0]) == store_bytes(*made[2])
    storage, found = made[0]
    assert found.report["rows_in"] == 60 + 30 + 19
    train = TokenStore.open(storage, found.rel).split("train")
    kinds = {"image": (1, 16, 16, 3), "audio": (-1,), "series": (50, 2)}
    there = 0
    for kind, shape in kinds.items():
        arrays = train.media(kind, range(len(train)))
        rows = [i for i, array in enumerate(arrays) if array is not None]
        there += len(rows)
        assert len(rows) > 20
        for i in rows:
            assert arrays[i].shape == shape or (kind == "audio" and 2000 <= len(arrays[i]) <= 4000)
        for original, copy in _pairs(train, rows):
            changed = not np.array_equal(arrays[original], arrays[copy])
            assert changed
            if kind == "image":
                assert np.array_equal(arrays[original][:, :, ::-1], arrays[copy])
    assert there == len(train)


def _pairs(split: Any, rows: list[int]) -> Iterator[tuple[int, int]]:
    """(a row, its copy)."""
    place = {(split.row_ids[i], int(split.copies[i])): i for i in rows}
    for (row_id, copy), i in place.items():
        if copy:
            yield place[row_id, 0], i

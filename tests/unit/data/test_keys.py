"""Keys of all rows on disk: what goes in comes out in the order of units, whatever the order of results; duplicates as a plain
dictionary finds them, however small the buckets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data import dedup, keys
from orchestration.data.config import NearDuplicatesConfig
from orchestration.data.dedup import Seen
from orchestration.data.keys import DTYPE, Keys, merge_left
from orchestration.data.sketch import features

UNITS = [40, 0, 17, 1]  # rows of each


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _unit(number: int) -> dict[str, Any]:
    """Every fifth text is that of a row of any unit; labels go by row."""
    rows = range(sum(UNITS[:number]), sum(UNITS[: number + 1]))
    ids = [_digest("row", row) for row in rows]
    texts = [_digest("text", row % 9 if row % 5 == 0 else row) for row in rows]
    packed = keys.pack(ids, texts, texts, [row % 3 for row in rows])
    left = {"blank line": {"bad": False, "rows": number, "examples": [f"unit {number}"]}}
    return {"unit": number, "mark": f"m{number}", "keys": packed, "features": b"", "left": json.dumps(left)}


def _keys(folder: Path, order: list[int]) -> Keys:
    folder.mkdir()
    found = Keys(folder, len(UNITS))
    for number in order:
        found.add(_unit(number))
    return found.close()


@pytest.fixture
def all_keys(tmp_path: Path) -> Keys:
    return _keys(tmp_path / "keys", [2, 0, 3, 1])


def test_columns_come_in_the_order_of_units_whatever_the_order_of_results(all_keys: Keys, tmp_path: Path) -> None:
    other = _keys(tmp_path / "other", [0, 1, 2, 3])
    assert len(all_keys) == 58
    assert all_keys.bounds.tolist() == [0, 40, 40, 57, 58]
    assert all_keys.marks == ["m0", "m1", "m2", "m3"]
    for name in DTYPE.names or ():
        assert np.array_equal(all_keys.column(name), other.column(name))
    assert all_keys.column("label").tolist() == [row % 3 for row in range(58)]
    row_id = all_keys.unit(2)["row_id"][0]
    assert b"".join(int(half).to_bytes(8, "big") for half in row_id) == _digest("row", 40)
    assert len(all_keys.unit(1)) == 0


@pytest.mark.parametrize("bucket_rows", [3, 20, 1000])
def test_duplicates_are_those_a_dictionary_finds_in_buckets_of_any_size(
    all_keys: Keys, bucket_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "BUCKET_ROWS", bucket_rows)
    groups: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = {}
    for number, (text, row_id) in enumerate(
        zip(all_keys.column("text").tolist(), all_keys.column("row_id").tolist(), strict=True)
    ):
        groups.setdefault(tuple(text), []).append((tuple(row_id), number))
    stays = {min(rows)[1]: [number for _, number in rows] for rows in groups.values()}
    keep_N, conflicts = all_keys.duplicates()
    assert np.flatnonzero(keep_N).tolist() == sorted(stays)
    assert len(stays) < 58
    assert conflicts == sum(row % 3 != first % 3 for first, rows in stays.items() for row in rows)


def test_features_are_read_back_by_unit(tmp_path: Path) -> None:
    texts = ["one text among others", "another text, somewhat longer than the first"]
    made = features(texts, NearDuplicatesConfig())
    content = io.BytesIO()
    np.savez(content, **made.__dict__)
    found = Keys(tmp_path, len(UNITS))
    for number in range(4):
        found.add({**_unit(number), "features": content.getvalue() if number in (3, 0) else b""})
    assert found.featured == [0, 3]
    for name, values in made.__dict__.items():
        assert np.array_equal(getattr(found.features(3), name), values)


def test_what_left_is_added_up_and_the_first_three_examples_stay() -> None:
    units = [
        {"short": {"bad": False, "rows": 2, "examples": ["a", "b"]}},
        {},
        {"broken": {"bad": True, "rows": 1, "examples": ["x"]}},
        {"short": {"bad": False, "rows": 5, "examples": ["c", "d", "e"]}},
    ]
    assert merge_left(units) == {
        "short": {"bad": False, "count": 7, "examples": ["a", "b", "c"]},
        "broken": {"bad": True, "count": 1, "examples": ["x"]},
    }


@pytest.mark.parametrize("block", [3, 64, 1 << 16])
@pytest.mark.parametrize("parts", [[500], [100, 0, 1, 1, 30, 2, 300, 66], [1] * 60])
def test_texts_that_have_come_are_found_with_their_label_whatever_parts_they_came_in(
    parts: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """High halves are of few values, so that most texts have neighbours with the same one, also where a block ends."""
    monkeypatch.setattr(dedup, "BLOCK", block)
    draws = np.random.Generator(np.random.PCG64(3))
    texts = draws.permutation(np.array([(high, low) for high in range(25) for low in range(40)], np.uint64))
    labels = draws.integers(0, 5, len(texts)).astype(np.int32)
    seen, at = Seen(), 0
    for count in parts:
        seen.add(texts[at : at + count], labels[at : at + count])
        at += count
        found_N, label_N = seen.labels(texts)
        assert np.array_equal(found_N, np.arange(len(texts)) < at)
        assert np.array_equal(label_N, np.where(found_N, labels, -1))
    assert len(seen._runs) <= 1 + np.log2(len(texts))


def test_texts_that_have_come_lie_in_files_that_nobody_can_leave_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen, open_files = Seen(), len(os.listdir("/proc/self/fd"))
    for start in range(0, 4000, 500):
        seen.add(np.arange(2 * start, 2 * start + 1000, dtype=np.uint64).reshape(-1, 2), np.zeros(500, np.int32))
    assert all(isinstance(column, np.memmap) for run in seen._runs for column in run)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= open_files + 3 * len(seen._runs)  # a map holds its file open


def test_nothing_has_come_at_first() -> None:
    found_N, label_N = Seen().labels(np.array([(1, 2)], np.uint64))
    assert (found_N.tolist(), label_N.tolist()) == ([False], [-1])

"""Preview as a function: which rows it takes, and that it changes them as `prepare` and training will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.augment import Augmenter, stage_ops
from orchestration.data.config import DataConfig
from orchestration.data.preview import ALL, picture, preview
from orchestration.storage import Storage
from tests.corpora import LABELS, lines, scored, source

OPS = [{"op": "swap", "rate": 0.5, "skip": {"labels": ["positive"]}}, {"op": "noise"}]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def _texts(tmp_path: Path, **more: Any) -> DataConfig:
    paths = [lines(tmp_path / f"{name}.jsonl", scored(40, step=step)) for name, step in (("a", 31), ("b", 37))]
    values = {"sources": [source(path, path.stem) for path in paths], "labels": LABELS, "augment": {"ops": OPS}, **more}
    return DataConfig.model_validate(values)


def test_each_source_gives_so_many_rows_evenly_from_its_first_unit(storage: Storage, tmp_path: Path) -> None:
    found = preview(_texts(tmp_path, shard_rows=16), storage=storage, seed=1, rows=4)
    assert [shown.source for shown in found] == ["a"] * 4 + ["b"] * 4
    numbers = [int(shown.row.rpartition(" ")[2]) for shown in found]
    assert numbers[:4] == sorted(set(numbers[:4]))
    assert max(numbers) <= 16
    many = preview(_texts(tmp_path, shard_rows=16), storage=storage, seed=1, rows=100)
    assert sum(shown.source == "a" for shown in many) <= 16


def test_an_op_that_skips_a_rows_label_leaves_it_as_it_is(storage: Storage, tmp_path: Path) -> None:
    for shown in preview(_texts(tmp_path), storage=storage, seed=1, rows=20):
        assert "noise" not in shown.texts  # of sounds
        if shown.label == "positive":
            assert (shown.texts["swap"], shown.texts[ALL]) == (None, None)
        assert "read" not in shown.texts  # cleaning changed nothing


def test_a_series_is_shown_as_the_augmenter_of_the_spec_changes_it(storage: Storage, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": np.sin(np.arange(300) / 9)}), tmp_path / "t.parquet")
    values = {
        "sources": [
            {"name": "t", "path": str(tmp_path / "t.parquet"), "format": "series", "series": ["a"], "text": None}
        ],
        "series": {"window": 32, "stride": 32},
        "augment": {"ops": [{"op": "noise"}, {"op": "time_mask"}]},
    }
    config = DataConfig.model_validate(values)
    found = preview(config, storage=storage, seed=3, rows=2)
    assert config.augment is not None
    tables = stage_ops(config.augment, storage)
    every = Augmenter(config.augment, labels=[], tables=tables, storage_url=storage.url, seed=3)
    for shown in found:
        stages = shown.media["series"]
        assert list(stages) == ["read", "noise", "time_mask", ALL]
        assert stages["read"].shape == (32, 1)
        assert not np.array_equal(stages["read"], stages["noise"])
    from orchestration.data.scan import scan
    from orchestration.data.sources import read_rows

    unit = scan(config, storage)[1][0]
    rows = read_rows(unit, config.sources[0], config, keep_media=True)
    last = len(rows.row_ids) - 1  # the first and the last of two
    for shown, row in zip(found, (0, last), strict=True):
        array = rows.media["series"][row]
        assert array is not None
        wanted = every.media("series", array, row_id=rows.row_ids[row], label=-1, text="", draw=1)
        assert np.array_equal(shown.media["series"][ALL], wanted)
    drawn = picture(found, rate=16_000)
    assert drawn is not None
    assert drawn[:4] == b"\x89PNG"


def test_texts_alone_have_no_picture(storage: Storage, tmp_path: Path) -> None:
    assert picture(preview(_texts(tmp_path), storage=storage, seed=1, rows=2), rate=16_000) is None

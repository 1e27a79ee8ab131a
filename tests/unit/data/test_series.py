"""CSV and Parquet files of numbers -> windows, through scan and records, whatever the units."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.formats import Record, series
from orchestration.data.scan import Unit
from orchestration.errors import DataError


def _config(path: Path, *, window: int = 10, stride: int = 7, shard_rows: int = 16, **more: Any) -> DataConfig:
    source = {"name": "s", "path": str(path), "format": "series", "text": None, "series": ["b", "a"], **more}
    shape = {"window": window, "stride": stride}
    labels = ["low", "high"] if "label" in more else []
    return DataConfig.model_validate({"sources": [source], "series": shape, "shard_rows": shard_rows, "labels": labels})


def _write(path: Path, table: dict[str, list[Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path, row_group_size=37)
        return path
    rows = zip(*table.values(), strict=True)
    text = "\n".join(
        [",".join(table), *(",".join("" if value is None else str(value) for value in row) for row in rows)]
    )
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _read(config: DataConfig, *, number: int | None = None) -> list[Record]:
    source: SourceConfig = config.sources[0]
    with open(source.path, "rb") as handle:
        found = series.scan(source.path, handle, source=source, config=config)
    assert found.sha256 == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert sum(count for _, count, _, _ in found.pieces) == found.records
    every: list[Record] = []
    for place, (first, count, offset, length) in enumerate(found.pieces):
        if number not in (None, place):
            continue
        name = Path(source.path).name
        unit = Unit(0, 0, source.path, name, name, "series", first, count, offset, length, found.header)
        got = list(series.records(unit, source=source, config=config))
        assert len(got) == count
        every += got
    return every


def _table(rows: int) -> dict[str, list[Any]]:
    return {"a": [i / 4 for i in range(rows)], "b": list(range(0, -rows, -1)), "day": [f"d{i}" for i in range(rows)]}


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("shape", [(10, 7), (10, 10), (10, 13), (1, 1), (300, 1), (7, 200), (400, 400)])
def test_windows_are_the_rows_they_name(tmp_path: Path, ending: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"x.{ending}"
    _write(path, _table(301))
    if ending == "tsv":
        path.write_text(path.read_text().replace(",", "\t"))
    window, stride = shape
    got = _read(_config(path, window=window, stride=stride))
    starts = list(range(0, 301 - window + 1, stride))
    assert [record["start"] for record in got if isinstance(record, dict)] == starts
    for record, start in zip(got, starts, strict=True):
        assert isinstance(record, dict)
        rows = np.arange(start, start + window)
        assert record["series"].dtype == np.float32
        assert np.array_equal(record["series"], np.stack([-rows, rows / 4], axis=1))
        assert record["file"] == "x"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_units_blocks_and_row_groups_change_nothing(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / f"x.{ending}", _table(500))
    whole = _read(_config(path, window=50, stride=3, shard_rows=100_000))
    monkeypatch.setattr(series, "BLOCK_ROWS", 11)
    parts = _read(_config(path, window=50, stride=3, shard_rows=16))
    assert len(whole) == len(parts) == 151
    for one, other in zip(whole, parts, strict=True):
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        assert np.array_equal(one["series"], other["series"])


def test_a_unit_reads_its_own_rows_only(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.csv", _table(5000))
    config = _config(path)
    expected = _read(config, number=30)
    lines = path.read_bytes().split(b"\n")
    broken = [b"x" * len(line) if 0 < i < 3000 or i > 3600 else line for i, line in enumerate(lines)]
    source = config.sources[0]
    with open(path, "rb") as handle:
        first, count, offset, length = series.scan(str(path), handle, source=source, config=config).pieces[30]
    path.write_bytes(b"\n".join(broken))  # rows 3360 to 3475 are unit 30's
    unit = Unit(0, 0, str(path), "x", "x.csv", "series", first, count, offset, length, ("a", "b", "day"))
    got = list(series.records(unit, source=source, config=config))
    assert [record["start"] for record in got if isinstance(record, dict)] == [record["start"] for record in expected]  # type: ignore[index]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_label_is_the_last_rows_value(tmp_path: Path, ending: str) -> None:
    table = _table(100) | {"class": ["low" if i < 50 else "high" for i in range(100)]}
    path = _write(tmp_path / f"x.{ending}", table)
    got = _read(_config(path, label={"column": "class"}, group="day"))
    assert [(record["class"], record["day"]) for record in got if isinstance(record, dict)] == [
        ("low" if start + 9 < 50 else "high", f"d{start + 9}") for start in range(0, 91, 7)
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 1e300])
def test_a_value_that_is_no_number_spoils_the_windows_that_hold_it_and_no_other(
    tmp_path: Path, ending: str, bad: float | None
) -> None:
    table = _table(100)
    table["a"][17] = bad
    got = _read(_config(_write(tmp_path / f"x.{ending}", table)))
    spoilt = [start for start, record in zip(range(0, 91, 7), got, strict=True) if isinstance(record, str)]
    assert spoilt == [14]
    assert got[2] == "column 'a' is not a number"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_words_among_numbers_are_found_and_numbers_as_text_read(tmp_path: Path, ending: str) -> None:
    table = _table(100)
    table["b"] = [str(value) for value in table["b"]]
    table["b"][50] = "n/a"
    got = _read(_config(_write(tmp_path / f"x.{ending}", table)))
    assert [number for number, record in enumerate(got) if isinstance(record, str)] == [6, 7]
    assert got[6] == "column 'b' is not a number"
    first = got[0]
    assert isinstance(first, dict)
    assert first["series"][3].tolist() == [-3.0, 0.75]


def test_a_row_with_too_few_fields_is_named_and_shifts_nothing(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.csv", _table(100))
    lines = path.read_text().split("\n")
    lines[31] = "1"  # row 30
    lines[61] = ""
    path.write_text("\n".join(lines))
    got = _read(_config(path, window=10, stride=10))
    assert got[3] == "not as many fields as the header"
    assert got[6] == "a blank row"
    last = got[9]
    assert isinstance(last, dict)
    assert last["series"][9].tolist() == [-99.0, 24.75]


def test_a_quoted_field_with_a_newline_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,note\n" + "".join(f'{i},{-i},"line\none, of {i}"\n' for i in range(40)))
    got = _read(_config(path, window=4, stride=2, shard_rows=16, group="note"))
    assert len(got) == 19
    assert isinstance(got[18], dict)
    assert got[18]["series"][3].tolist() == [-39.0, 39.0]
    assert got[18]["note"] == "line\none, of 39"


def test_a_file_shorter_than_a_window_or_empty_has_no_records(tmp_path: Path) -> None:
    for ending in ("csv", "parquet"):
        assert _read(_config(_write(tmp_path / f"x.{ending}", _table(9)))) == []
    assert len(_read(_config(_write(tmp_path / "y.csv", _table(10))))) == 1
    (tmp_path / "z.csv").write_text("a,b\n")
    assert _read(_config(tmp_path / "z.csv")) == []


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, ending: str) -> None:
    path = _write(tmp_path / f"x.{ending}", _table(20))
    for more in ({"series": ["dat"]}, {"group": "dat"}):
        with pytest.raises(DataError, match=r"no column 'dat'.*nearest: day"):
            _read(_config(path, **more))


def test_windows_cannot_be_written_to(tmp_path: Path) -> None:
    got = _read(_config(_write(tmp_path / "x.csv", _table(20))))
    assert isinstance(got[0], dict)
    with pytest.raises(ValueError, match="read-only"):
        got[0]["series"][0, 0] = 1.0


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_behind_a_url_reads_the_same(tmp_path: Path, ending: str) -> None:
    import fsspec

    from orchestration.data.files import open_binary

    local = _write(tmp_path / f"x.{ending}", _table(300))
    config, url = _config(local), f"memory://rows/x.{ending}"
    source = config.sources[0]
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe(f"/rows/x.{ending}", local.read_bytes())
        with open_binary(url) as handle:
            found = series.scan(url, handle, source=source, config=config)
        units = [Unit(0, 0, url, url, f"x.{ending}", "series", *piece, found.header) for piece in found.pieces]
        got = [record for unit in units for record in series.records(unit, source=source, config=config)]
    finally:
        fs.rm("/rows", recursive=True)
    assert [record["start"] for record in got if isinstance(record, dict)] == list(range(0, 291, 7))

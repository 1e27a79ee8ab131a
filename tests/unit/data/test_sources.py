"""Files of every format -> units -> rows. All files are written here, read by the product's code."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.formats.lines import _json
from orchestration.data.scan import Unit, scan
from orchestration.data.sources import Left, Rows, read_rows
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage

LABELS = ["bad", "good"]
TEXTS = [f"text number {i}, {'line one' if i % 3 else 'line one' + chr(10) + 'line two'}" for i in range(100)]
RULES = {"bad": "< 0", "good": "> 0"}


def _source(path: Path | str, **more: Any) -> SourceConfig:
    return SourceConfig.model_validate({"name": "s", "path": str(path), "label": {"column": "label"}, **more})


def _read(
    source: SourceConfig, shard_rows: int = 16, storage: Path | None = None, **more: Any
) -> tuple[Rows, list[Unit]]:
    """All rows of a source, over all its units."""
    values = {"sources": [source], "labels": LABELS, "shard_rows": shard_rows, **more}
    config = DataConfig.model_validate(values)
    _, units = scan(config, Storage(str(storage or "/nonexistent")))
    every = Rows()
    for unit in units:
        rows = read_rows(Unit.load(unit.dump()), source, config)
        for name in ("records", "row_ids", "texts", "labels", "text_hashes", "group_hashes"):
            getattr(every, name).extend(getattr(rows, name))
        for reason, left in rows.left.items():
            every.left.setdefault(reason, Left(left.bad)).rows += left.rows
            every.left[reason].examples += left.examples
    return every, units


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=23)
    else:
        with open(path, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


ROWS = [{"text": text, "label": LABELS[i % 2]} for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("shard_rows", [16, 100, 1000])
def test_each_format_gives_the_same_rows_whatever_the_unit(tmp_path: Path, ending: str, shard_rows: int) -> None:
    rows, units = _read(_source(_write(tmp_path / f"a.{ending}", ROWS)), shard_rows)
    assert rows.texts == TEXTS
    assert rows.labels == [i % 2 for i in range(100)]
    assert rows.records == list(range(100))
    assert [unit.count for unit in units] == [min(shard_rows, 100 - first) for first in range(0, 100, shard_rows)]
    expected = hashlib.blake2b(f"s\0a.{ending}\0".encode() + b"57", digest_size=16).digest()
    assert rows.row_ids[57] == expected


def test_a_saved_datasets_folder_is_read_with_its_class_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)})
    table = {"text": TEXTS, "label": [i % 2 for i in range(100)]}
    made = datasets.Dataset.from_dict(table, features=features)
    datasets.DatasetDict({"a": made.select(range(60)), "b": made.select(range(60, 100))}).save_to_disk(tmp_path / "set")
    for form in ("auto", "datasets"):
        rows, units = _read(_source(tmp_path / "set", format=form))
        assert rows.texts == TEXTS
        assert rows.labels == [i % 2 for i in range(100)]
        assert {unit.rel.partition("/")[0] for unit in units} == {"a", "b"}


def test_text_files_hold_a_class_each(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes("fine\u2028still fine\r\nnice\n".encode())
    (tmp_path / "bad.txt").write_bytes(b"\xef\xbb\xbfawful")
    rows, _ = _read(_source(tmp_path, label={"column": "file"}))
    assert list(zip(rows.texts, rows.labels, strict=True)) == [("awful", 0), ("fine\u2028still fine", 1), ("nice", 1)]


def test_folders_globs_and_urls_give_the_same_identity(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _write(tmp_path / "deep" / "a.jsonl", ROWS[:3])
    _write(tmp_path / "b.jsonl", ROWS[3:5])
    (tmp_path / "deep" / "notes.md").write_text("not data")
    (tmp_path / ".hidden.jsonl").write_text("not data")
    paths = [str(tmp_path), f"{tmp_path}/**/*.jsonl", f"file://{tmp_path}", f"file://{tmp_path}/**/*.jsonl"]
    found = [_read(_source(path))[0].row_ids for path in paths]
    assert len(found[0]) == 5
    assert all(ids == found[0] for ids in found)


def test_a_file_in_storage_is_named_by_reference(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    _write(tmp_path / "inputs" / "a.jsonl", ROWS[:3])
    (tmp_path / "inputs" / "manifest.json").write_text("{}")
    rows, _ = _read(_source("storage:inputs"), storage=tmp_path)
    assert rows.texts == TEXTS[:3]


def test_an_appended_row_changes_no_other_row(tmp_path: Path) -> None:
    before, _ = _read(_source(_write(tmp_path / "a.jsonl", ROWS)))
    after, _ = _read(_source(_write(tmp_path / "a.jsonl", [*ROWS, {"text": "one more", "label": "good"}])))
    assert after.row_ids[:-1] == before.row_ids
    assert after.text_hashes[:-1] == before.text_hashes


def test_bad_json_rows_are_named_with_file_and_row_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "fine", "label": "good"}',
        b'{"text": "caf\xe9", "label": "good"}',
        b'{"text": "cut off',
        b"[1, 2]",
        b'{"label": "good"}',
        b'{"text": 5, "label": "good"}',
        b'{"text": "a label of no class", "label": "ugly"}',
        b'{"text": "no label", "label": null}',
        b'{"text": "lone surrogate \\ud800", "label": "good"}',
        b"",
        b"[" * 100_000,
        b'{"text": "fine too", "label": "bad"}',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, _ = _read(_source(path))
    assert rows.texts == ["fine", "fine too"]
    assert rows.records == [0, 11]
    bad = {reason: left.examples for reason, left in rows.left.items() if left.bad}
    assert bad == {
        "not valid UTF-8": [f"{path} row 2"],
        "not valid JSON": [f"{path} row 3", f"{path} row 11"],
        "a JSON value, but not an object": [f"{path} row 4"],
        "column 'text' is missing": [f"{path} row 5: no value"],
        "column 'text' is not text": [f"{path} row 6: 5"],
        "column 'label' is none of the labels bad, good": [f"{path} row 7: 'ugly'"],
        "column 'label' is empty": [f"{path} row 8: no value"],
        "column 'text' is not valid UTF-8": [f"{path} row 9: 'lone surrogate \\ud800'"],
    }
    assert rows.left["blank line"].bad is False


def test_scores_are_cut_by_rules_and_what_is_no_number_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    scores = ["-1", "0", "2.5", "NaN", '"3"', '"high"', "true", "null", "1e999", "-Infinity"]
    path.write_text("".join(f'{{"text": "row {i}", "label": {score}}}\n' for i, score in enumerate(scores)))
    rows, _ = _read(_source(path, label={"column": "label", "rules": RULES}))
    assert list(zip(rows.records, rows.labels, strict=True)) == [(0, 0), (2, 1), (4, 1)]
    assert rows.left["no label rule matches"].bad is False
    assert rows.left["no label rule matches"].examples == [f"{path} row 2: 0"]
    assert rows.left["column 'label' is not a number"].rows == 5
    assert rows.left["column 'label' is not a number"].examples[:2] == [f"{path} row 4: nan", f"{path} row 6: 'high'"]
    assert rows.left["column 'label' is empty"].examples == [f"{path} row 8: no value"]
    assert sum(left.rows for left in rows.left.values()) == len(scores) - 3


def test_bad_csv_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'label,text\ngood,"two\nlines"\ngood\nbad,caf\xe9\n\nbad,"with ""quotes"""\n')
    rows, _ = _read(_source(path))
    assert rows.texts == ["two\nlines", 'with "quotes"']
    assert {reason: left.examples[0] for reason, left in rows.left.items()} == {
        "not as many fields as the header": f"{path} row 2",
        "column 'text' is not valid UTF-8": f"{path} row 3: 'caf\\udce9'",
        "blank line": f"{path} row 4",
    }


def test_rows_of_wrong_length_are_dropped_with_the_key(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"text": "  ", "label": "good"}, {"text": "x" * 30_000, "label": "good"}])
    rows, _ = _read(_source(path))
    assert not rows.texts
    assert set(rows.left) == {"shorter than data.clean.min_chars=1", "longer than data.clean.max_chars=20000"}


def test_rows_of_a_group_share_its_hash(tmp_path: Path) -> None:
    found = [{**row, "writer": i // 10} for i, row in enumerate(ROWS)]
    rows, _ = _read(_source(_write(tmp_path / "a.parquet", found), group="writer"))
    assert len(set(rows.group_hashes)) == 10
    assert len(set(rows.text_hashes)) == 100


def test_a_missing_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", ROWS)
    with pytest.raises(DataError, match=r"no column 'txt'.*nearest: text; columns: text, label"):
        _read(_source(path, text="txt"))


def test_files_that_are_not_what_they_say_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable parquet file"):
        _read(_source(tmp_path / "a.parquet"))


def test_a_record_above_the_limit_is_named_and_counted_and_the_others_stay(tmp_path: Path) -> None:
    long = "x" * 5_000
    for name, content in {
        "a.jsonl": f'{{"text": "one", "label": "good"}}\n{{"text": "{long}", "label": "bad"}}\n{{"text": "two", "label": "bad"}}\n',
        "b.csv": f'text,label\none,good\n"{long}",bad\ntwo,bad\n',
    }.items():
        (tmp_path / name).write_text(content)
        rows, _ = _read(_source(tmp_path / name), max_record_bytes=1000)
        assert (rows.texts[0], rows.texts[-1]) == ("one", "two")
        ((reason, left),) = rows.left.items()
        assert "longer than data.max_record_bytes" in reason
        assert left.bad
        assert left.examples[0] == f"{tmp_path / name} row 2"
    _write(tmp_path / "c.parquet", [*ROWS[:2], {"text": long, "label": "good"}])
    rows, _ = _read(_source(tmp_path / "c.parquet"), max_record_bytes=1000)
    assert len(rows.texts) == 2
    assert rows.left["longer than data.max_record_bytes"].examples == [f"{tmp_path / 'c.parquet'} row 3"]


def test_a_line_without_end_is_never_held_whole(tmp_path: Path) -> None:
    """300 MB without a newline, of which at most a block and the limit are in memory."""
    import tracemalloc

    path = tmp_path / "a.txt"
    with open(path, "wb") as handle:
        handle.write(b"first\n")
        for _ in range(300):
            handle.write(b"x" * 1_000_000)
        handle.write(b"\nlast\n")
    tracemalloc.start()
    rows, _ = _read(_source(path, label={"column": "file"}), labels=["a", "b"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.texts == ["first", "last"]
    assert rows.left["longer than data.max_record_bytes"].examples == [f"{path} row 2"]
    assert peak < 60_000_000


def test_an_open_quote_loses_its_own_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\nfine,good\n"never closed,' + "x" * 2000 + "\nmore,bad\n")
    rows, _ = _read(_source(path), max_record_bytes=1000)
    assert rows.texts[0] == "fine"
    assert all(left.bad for left in rows.left.values())


def test_text_that_is_no_utf8_in_a_parquet_file_is_one_bad_row(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"caf\xe9", b"also fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts, "label": ["good", "bad", "bad"]}), tmp_path / "a.parquet")
    rows, _ = _read(_source(tmp_path / "a.parquet"))
    assert rows.texts == ["fine", "also fine"]
    assert rows.left["column 'text' is not valid UTF-8"].examples == [f"{tmp_path / 'a.parquet'} row 2: 'caf\\udce9'"]


def test_a_parquet_file_damaged_inside_is_refused_with_its_rows(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.parquet", [{"text": f"{text} {i:060}", "label": "good"} for i, text in enumerate(TEXTS)]
    )
    content = bytearray(path.read_bytes())
    content[200:1400] = bytes(1200)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.parquet rows \d+ to \d+: cannot be decoded"):
        _read(_source(path))


def test_no_file_no_record_and_mixed_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file of format auto"):
        _read(_source(tmp_path))
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="hold no records"):
        _read(_source(tmp_path))
    _write(tmp_path / "b.csv", ROWS)
    with pytest.raises(UserError, match="files of formats csv, jsonl"):
        _read(_source(tmp_path))
    assert len(_read(_source(tmp_path, format="csv"))[0].texts) == 100


def test_code_files_with_an_underscore_are_read_and_hidden_folders_are_not(tmp_path: Path) -> None:
    for name in ("pkg/__init__.py", "pkg/_private.py", ".git/hook.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"name = {name!r}\n")
    rows, units = _read(_source(tmp_path, format="code", label=None), labels=[])
    assert [Path(path).name for unit in units for path, *_ in unit.files] == ["__init__.py", "_private.py"]
    assert len(rows.texts) == 2


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1}',
        ' {"a": 1}\t',
        '{"a": 1}\r',
        '{"a": 1} x',
        "{}{}",
        "",
        " ",
        "[1]",
        "3",
        "\ufeff{}",
        '{"a": NaN}',
        "[" * 100_000,
    ],
)
def test_a_line_is_read_as_json_reads_it(line: str) -> None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    found = _json(line)
    assert (repr(found) == repr(value)) if isinstance(value, dict) else isinstance(found, str)

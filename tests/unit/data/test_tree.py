"""Folder trees of pictures, sounds and code, on disk and behind a URL, through `files` and `records`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.config import DataConfig
from orchestration.data.formats import TOO_LONG, Record, tree
from orchestration.data.scan import Unit
from orchestration.errors import DataError


def _grow(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def _items(root: str, rels: list[str], form: str) -> list[tree.Item]:
    return tree.files([(f"{root}/{rel}", rel) for rel in rels], form)


def _read(root: Path | str, rels: list[str], form: str = "images", **more: Any) -> list[Record]:
    config = DataConfig.model_validate({"sources": [{"name": "s", "path": str(root), "format": form}], **more})
    items = _items(str(root), rels, form)
    files: Any = tuple((item.path, item.rel, *item.companions) for item in items)
    unit = Unit(0, 0, items[0].path, str(root), "", form, 0, len(items), files=files)
    return list(tree.records(unit, source=config.sources[0], config=config))


def test_a_file_is_a_record_with_its_name_and_folder(tmp_path: Path) -> None:
    _grow(tmp_path, {"cats/one.png": b"1", "dogs/big/two.v2.png": b"2", "three.png": b""})
    assert _read(tmp_path, ["cats/one.png", "dogs/big/two.v2.png", "three.png"]) == [
        {"image": b"1", "file": "cats/one", "folder": "cats", "text": ""},
        {"image": b"2", "file": "dogs/big/two.v2", "folder": "big", "text": ""},
        {"image": b"", "file": "three", "folder": "", "text": ""},
    ]


@pytest.mark.parametrize(("form", "column"), [("images", "image"), ("video", "image"), ("audio", "audio")])
def test_the_caption_is_in_the_text_file_beside_it(tmp_path: Path, form: str, column: str) -> None:
    ending = tree.endings(form)[0]
    _grow(
        tmp_path,
        {f"a/x{ending}": b"data", "a/x.txt": "\ufeffa red ball\n", "a/xy.txt": "of another", "x.txt": "too high"},
    )
    assert _read(tmp_path, [f"a/x{ending}"], form) == [
        {column: b"data", "file": "a/x", "folder": "a", "text": "a red ball"}
    ]
    assert _items(str(tmp_path), [f"a/x{ending}"], form)[0].companions == (f"{tmp_path}/a/x.txt",)


def test_a_table_gives_captions_and_other_columns_and_the_nearest_counts(tmp_path: Path) -> None:
    _grow(
        tmp_path,
        {
            "metadata.csv": 'file_name,text,class\nup.png,"high, up",1\n./deep/a.png,from above,2\ndeep/b.png,above,3\n',
            "deep/metadata.jsonl": json.dumps({"file_name": "a.png", "text": "from near", "class": 9}) + "\n\n",
            "up.png": b"u",
            "deep/a.png": b"a",
            "deep/b.png": b"b",
            "deep/c.png": b"c",
            "deep/b.txt": "of the sidecar",
        },
    )
    up, a, b, c = _read(tmp_path, ["up.png", "deep/a.png", "deep/b.png", "deep/c.png"])
    assert up == {"image": b"u", "file": "up", "folder": "", "text": "high, up", "class": "1"}
    assert a == {"image": b"a", "file": "deep/a", "folder": "deep", "text": "from near", "class": 9}
    assert b == {"image": b"b", "file": "deep/b", "folder": "deep", "text": "of the sidecar", "class": "3"}
    assert c == {"image": b"c", "file": "deep/c", "folder": "deep", "text": ""}


def test_companions_are_all_files_that_a_record_is_made_of_and_no_others(tmp_path: Path) -> None:
    _grow(
        tmp_path,
        {
            "metadata.csv": "file_name\n",
            "a/metadata.jsonl": "",
            "a/b/x.png": b"",
            "a/b/x.txt": "",
            "z/metadata.csv": "",
        },
    )
    (tmp_path.parent / "metadata.csv").write_text("above the tree")
    (item,) = _items(str(tmp_path), ["a/b/x.png"], "images")
    assert [path[len(str(tmp_path)) :] for path in item.companions] == [
        "/a/b/x.txt",
        "/a/metadata.jsonl",
        "/metadata.csv",
    ]


def test_a_changed_table_is_read_anew(tmp_path: Path) -> None:
    _grow(tmp_path, {"x.png": b"x", "metadata.csv": "file_name,text\nx.png,before\n"})
    assert _read(tmp_path, ["x.png"])[0]["text"] == "before"  # type: ignore[index]
    _grow(tmp_path, {"metadata.csv": "file_name,text\nx.png,afterwards\n"})
    assert _read(tmp_path, ["x.png"])[0]["text"] == "afterwards"  # type: ignore[index]


@pytest.mark.parametrize("root", ["memory://", "memory://bucket"])
def test_a_tree_behind_a_url_reads_the_same(root: str) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    base = root.removeprefix("memory://")
    try:
        fs.pipe({f"{base}/a/x.png": b"x", f"{base}/a/x.txt": b"near", f"{base}/y.png": b"y"})
        fs.pipe({f"{base}/metadata.jsonl": b'{"file_name": "y.png", "text": "far"}\n'})
        rels = ["a/x.png", "y.png"]
        items = tree.files(
            [(f"{root.rstrip('/')}//{rel}" if root == "memory://" else f"{root}/{rel}", rel) for rel in rels], "images"
        )
        config = DataConfig.model_validate({"sources": [{"name": "s", "path": root, "format": "images"}]})
        files: Any = tuple((item.path, item.rel, *item.companions) for item in items)
        unit = Unit(0, 0, root, root, "", "images", 0, 2, files=files)
        got = list(tree.records(unit, source=config.sources[0], config=config))
        assert [record["text"] for record in got if isinstance(record, dict)] == ["near", "far"]
    finally:
        fs.rm("/", recursive=True)


def test_a_file_or_caption_above_the_limit_is_not_read(tmp_path: Path) -> None:
    _grow(tmp_path, {"a.png": b"x" * 1001, "b.png": b"x" * 1000, "c.png": b"x", "c.txt": "y" * 1001})
    got = _read(tmp_path, ["a.png", "b.png", "c.png"], max_record_bytes=1000)
    assert [got[0], got[2]] == [TOO_LONG, TOO_LONG]
    assert isinstance(got[1], dict)


def test_a_caption_that_is_not_utf8_is_one_bad_record(tmp_path: Path) -> None:
    _grow(tmp_path, {"a.png": b"x", "a.txt": b"\xff\xfe", "b.png": b"x"})
    got = _read(tmp_path, ["a.png", "b.png"])
    assert got[0] == "not valid UTF-8"
    assert isinstance(got[1], dict)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.png"}\nnot json\n'),
        ("metadata.jsonl", '{"name": "a.png"}\n'),
        ("metadata.csv", "name,text\na.png,hello\n"),
        ("metadata.csv", "file_name,text\na.png,hello,there\n"),
        ("metadata.csv", b"file_name,text\na.png,\xff\n"),
    ],
)
def test_a_broken_table_is_an_error_that_names_it(tmp_path: Path, name: str, content: str | bytes) -> None:
    _grow(tmp_path, {"a.png": b"x", name: content})
    with pytest.raises(DataError, match=name):
        _read(tmp_path, ["a.png"])


def test_code_has_its_language_and_the_nearest_licence(tmp_path: Path) -> None:
    mit = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy"
    _grow(tmp_path, {"LICENSE": mit, "a/b/x.py": "\ufeffprint(1)\n", "y.rs": "fn main() {}\n", "z.py": b"\xff\xff"})
    _grow(tmp_path, {"a/COPYING.txt": "All rights are ours."})
    x, y, z = _read(tmp_path, ["a/b/x.py", "y.rs", "z.py"], "code")
    assert isinstance(x, dict)
    assert isinstance(y, dict)
    assert (x["text"], x["file"], x["folder"], x["language"]) == ("print(1)\n", "a/b/x", "b", "python")
    assert (y["language"], y["licence"]) == ("rust", "MIT")
    assert x["licence"] is None  # the nearest file's, though it says nothing
    assert z == "not valid UTF-8"
    assert {".py", ".rs"} <= set(tree.endings("code"))


def test_a_files_own_licence_counts_before_the_folders(tmp_path: Path) -> None:
    _grow(
        tmp_path,
        {
            "LICENSE": "SPDX-License-Identifier: MIT\n",
            "x.py": "# SPDX-License-Identifier: Apache-2.0\n",
            "run": "#!/bin/sh\n",
        },
    )
    x, run = _read(tmp_path, ["x.py", "run"], "code")
    assert isinstance(x, dict)
    assert isinstance(run, dict)
    assert (x["licence"], run["licence"], run["language"]) == ("Apache-2.0", "MIT", "bash")


def test_files_belong_by_their_ending_in_any_case_or_by_name() -> None:
    assert [
        name for name in ("A.PNG", "a.Jpeg", "b.txt", "png", "a.png.bak") if tree.belongs(f"x/{name}", "images")
    ] == ["A.PNG", "a.Jpeg"]
    assert [name for name in ("a.py", "B.RS", "Makefile", "notes", "a.png") if tree.belongs(name, "code")] == [
        "a.py",
        "B.RS",
        "Makefile",
    ]

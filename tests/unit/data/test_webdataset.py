"""Tar shards as Python, GNU tar and a hostile hand would write them, through scan and records, whatever the units."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.config import DataConfig
from orchestration.data.formats import TOO_LONG, Record, webdataset
from orchestration.data.scan import Unit
from orchestration.errors import DataError


def _tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _config(path: Path, **more: Any) -> DataConfig:
    source = {"name": "s", "path": str(path), "format": "webdataset", "image": "image", "text": None}
    top = {key: more.pop(key) for key in ("shard_rows", "max_record_bytes") if key in more}
    return DataConfig.model_validate({"sources": [source | more], **top})


def _read(path: Path, **more: Any) -> list[Record]:
    config = _config(path, **more)
    source = config.sources[0]
    with open(path, "rb") as handle:
        found = webdataset.scan(str(path), handle, source=source, config=config)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.bytes == path.stat().st_size
    assert sum(count for _, count, _, _ in found.pieces) == found.records
    every: list[Record] = []
    for first, count, offset, length in found.pieces:
        unit = Unit(0, 0, str(path), path.name, path.name, "webdataset", first, count, offset, length)
        got = list(webdataset.records(unit, source=source, config=config))
        assert len(got) == count
        every += got
    return every


def _samples(count: int) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(count)
        for member in (
            (f"{i:04}.jpg", b"j" * (i * 37 % 1500)),
            (f"{i:04}.txt", f"caption {i}".encode()),
            (f"{i:04}.cls", b"%d\n" % (i % 3)),
        )
    ]


@pytest.mark.parametrize("shard_rows", [16, 100, 1000])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_with_one_key_are_a_record_whatever_the_unit(tmp_path: Path, shard_rows: int, form: int) -> None:
    got = _read(_tar(tmp_path / "a.tar", _samples(100), form), shard_rows=shard_rows)
    for i, record in enumerate(got):
        data = b"j" * (i * 37 % 1500)
        assert record == {
            "__key__": f"{i:04}",
            "image": data,
            "txt": f"caption {i}",
            "text": f"caption {i}",
            "cls": str(i % 3),
        }
    assert len(got) == 100


def test_a_unit_reads_its_own_bytes_only(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", _samples(64))
    expected = _read(path)[32:48]
    config = _config(path, shard_rows=16)
    with open(path, "rb") as handle:
        first, count, offset, length = webdataset.scan(
            str(path), handle, source=config.sources[0], config=config
        ).pieces[2]
    data = path.read_bytes()
    path.write_bytes(b"x" * offset + data[offset : offset + length] + b"x" * (len(data) - offset - length))
    unit = Unit(0, 0, str(path), "a", "a.tar", "webdataset", first, count, offset, length)
    assert list(webdataset.records(unit, source=config.sources[0], config=config)) == expected


def test_json_keys_become_columns_and_members_come_first(tmp_path: Path) -> None:
    about = {"caption": "of the json", "class": "cat", "jpg": "never", "nested": {"a": [1]}}
    path = _tar(
        tmp_path / "a.tar",
        [("d/x.jpg", b"j"), ("d/x.json", json.dumps(about).encode()), ("y.json", b"[1]"), ("y.txt", b"t")],
    )
    x, y = _read(path)
    assert x == {"__key__": "d/x", "json": about, "text": "of the json", **about, "image": b"j"}
    assert y == {"__key__": "y", "json": [1], "txt": "t", "text": "t"}


def test_names_split_at_the_first_dot_and_the_first_image_is_the_image(tmp_path: Path) -> None:
    members = [("a.b/x.SEG.png", b"s"), ("a.b/x.jpg", b"j"), ("a.b/x.wav", b"w"), ("a.b/y.jpg", b"k")]
    x, y = _read(_tar(tmp_path / "a.tar", members), audio="audio")
    assert x == {"__key__": "a.b/x", "image": b"s", "audio": b"w"}
    assert y == {"__key__": "a.b/y", "image": b"k"}
    (x, _) = _read(tmp_path / "a.tar", image="jpg")
    assert x == {"__key__": "a.b/x", "jpg": b"j"}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read_in_both_dialects(tmp_path: Path, form: int) -> None:
    names = ["d" * 150 + "/" + "f" * 150, "猫/图" * 40, "ü x"]
    path = _tar(
        tmp_path / "a.tar",
        [member for name in names for member in ((f"{name}.png", b"p"), (f"{name}.txt", b"t"))],
        form,
    )
    for shard_rows in (16, 1000):
        got = _read(path, shard_rows=shard_rows)
        assert [record["__key__"] for record in got if isinstance(record, dict)] == names


def test_units_begin_before_a_long_names_own_header(tmp_path: Path) -> None:
    names = [f"{i:03}" + "n" * 200 for i in range(40)]
    path = _tar(tmp_path / "a.tar", [(f"{name}.txt", name.encode()) for name in names])
    assert [record["txt"] for record in _read(path, shard_rows=16) if isinstance(record, dict)] == names


def test_a_shard_of_the_tar_command_with_folders_links_and_hidden_files(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("no tar command")
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/a.txt", "sub/b.txt", "sub/._b.txt", "README", ".DS_Store"):
        (folder / name).write_text(name)
    (folder / "sub/c.txt").symlink_to("a.txt")
    (folder / "sub/d.txt").hardlink_to(folder / "sub/a.txt")
    subprocess.run(["tar", "--sort=name", "-cf", tmp_path / "a.tar", "-C", folder, "."], check=True)
    assert [record["txt"] for record in _read(tmp_path / "a.tar") if isinstance(record, dict)] == [
        "sub/a.txt",
        "sub/b.txt",
    ]


def test_shards_joined_end_to_end_are_read_through(tmp_path: Path) -> None:
    one, two = _tar(tmp_path / "1.tar", _samples(20)), _tar(tmp_path / "2.tar", [("z.txt", b"last")])
    (tmp_path / "3.tar").write_bytes(one.read_bytes() + two.read_bytes())
    got = _read(tmp_path / "3.tar", shard_rows=16)
    assert len(got) == 21
    assert got[20] == {"__key__": "z", "txt": "last", "text": "last"}


def test_bad_samples_are_named_and_their_neighbours_unharmed(tmp_path: Path) -> None:
    members = [
        *(("a.jpg", b"1"), ("a.txt", b"\xff\xfe"), ("a.cls", b"0")),
        *(("b.json", b"{nope"), ("b.jpg", b"2")),
        *(("c.jpg", b"3"), ("c.JPG", b"4"), ("c.txt", b"t")),
        *(("d.txt", b"t"), ("d.jpg", b"x" * 1000)),
        *(("e.jpg", b"x" * 10**6), ("e.txt", b"t")),
        *(("f.jpg", b""), ("f.txt", b"good")),
    ]
    got = _read(_tar(tmp_path / "a.tar", members), max_record_bytes=1000)
    assert got[:5] == ["not valid UTF-8", "not valid JSON", "two members of one name in a sample", TOO_LONG, TOO_LONG]
    assert got[5] == {"__key__": "f", "image": b"", "txt": "good", "text": "good"}


def test_a_member_that_nobody_asked_for_is_not_read(tmp_path: Path) -> None:
    members = [("a.mp4", b"x" * 5000), ("a.txt", b"t"), ("a.jpg", b"j")]
    (record,) = _read(_tar(tmp_path / "a.tar", members), max_record_bytes=1000, image=None, text="text")
    assert record == {"__key__": "a", "txt": "t", "text": "t"}


def test_a_key_that_comes_again_later_is_another_record(tmp_path: Path) -> None:
    got = _read(_tar(tmp_path / "a.tar", [("a.txt", b"1"), ("b.txt", b"2"), ("a.jpg", b"3")]))
    assert [record["__key__"] for record in got if isinstance(record, dict)] == ["a", "b", "a"]


@pytest.mark.parametrize("where", ["data", "header", "long name"])
def test_a_truncated_shard_is_an_error_that_names_it(tmp_path: Path, where: str) -> None:
    name = "n" * 200 if where == "long name" else "b"
    path = _tar(tmp_path / "a.tar", [("a.txt", b"1"), (f"{name}.jpg", b"x" * 2000)])
    end = {"data": 1024 + 512 + 700, "header": 1024 + 300, "long name": 1024 + 512 + 100}[where]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=r"a\.tar.*behind [12] samples"):
        _read(path)


def test_missing_padding_and_end_marks_are_no_harm(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [("a.txt", b"1"), ("b.txt", b"22")])
    path.write_bytes(path.read_bytes()[: 1024 + 512 + 2])
    assert [record["txt"] for record in _read(path) if isinstance(record, dict)] == ["1", "22"]


def test_damaged_headers_and_lying_sizes_are_errors(tmp_path: Path) -> None:
    good = bytearray(_tar(tmp_path / "a.tar", [("a.txt", b"1"), ("b.txt", b"2")], tarfile.USTAR_FORMAT).read_bytes())
    broken = good.copy()
    broken[1024 + 3] ^= 0xFF  # a name without its checksum
    lying = tarfile.TarInfo("c.txt")
    lying.size = 10**15
    huge = lying.tobuf(tarfile.GNU_FORMAT) + b"1"
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 10**12
    cases = {
        "damaged at byte 1024": bytes(broken),
        "too early": huge,
        "a name of": long_name.tobuf(tarfile.GNU_FORMAT),
        "compressed": gzip.compress(bytes(good)),
        "not a tar file": b"just text in a file named .tar, " * 20,
        "empty file": b"",
    }
    for said, content in cases.items():
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(DataError, match=said):
            _read(tmp_path / "x.tar")


def test_a_shard_that_changed_since_it_was_scanned_is_an_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [("a.jpg", b"1" * 3000)])
    config = _config(path)
    with open(path, "rb") as handle:
        first, count, offset, length = webdataset.scan(
            str(path), handle, source=config.sources[0], config=config
        ).pieces[0]
    path.write_bytes(path.read_bytes()[:2000])
    unit = Unit(0, 0, str(path), "a.tar", "a.tar", "webdataset", first, count, offset, length)
    with pytest.raises(DataError, match="changed while it was read"):
        list(webdataset.records(unit, source=config.sources[0], config=config))


def test_a_shard_behind_a_url_reads_the_same(tmp_path: Path) -> None:
    import fsspec

    from orchestration.data.files import open_binary

    local = _tar(tmp_path / "a.tar", _samples(40))
    config = _config(local, shard_rows=16)
    source = config.sources[0]
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/shards/a.tar", local.read_bytes())
        with open_binary("memory://shards/a.tar") as handle:
            found = webdataset.scan("memory://shards/a.tar", handle, source=source, config=config)
        got: list[Record] = []
        for piece in found.pieces:
            unit = Unit(0, 0, "memory://shards/a.tar", "a", "a.tar", "webdataset", *piece)
            got += webdataset.records(unit, source=source, config=config)
    finally:
        fs.rm("/shards", recursive=True)
    assert got == _read(local)

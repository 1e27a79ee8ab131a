"""Sealed folders on a file system and on an object store (fsspec's memory://): old state or new state, never a part."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from orchestration.errors import DamagedError, UserError
from orchestration.storage import MANIFEST, Storage, digest


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    return Storage(str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def fill(storage: Storage, text: str = "hello") -> Path:
    folder = storage.staging()
    (folder / "a.txt").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.bin").write_bytes(bytes(1000))
    return folder


def test_a_committed_folder_reads_back_and_verifies(storage: Storage) -> None:
    storage.commit("things/one", fill(storage), {"made": "here"})
    assert storage.verify("things/one").meta == {"made": "here"}
    assert (storage.fetch("things/one") / "sub" / "b.bin").read_bytes() == bytes(1000)
    assert storage.list("things") == ["one"]


def test_files_without_a_manifest_do_not_exist_for_readers(storage: Storage) -> None:
    storage.write("things/half/a.txt", b"hello")
    assert storage.manifest("things/half") is None
    with pytest.raises(DamagedError, match=MANIFEST):
        storage.verify("things/half")


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_found_and_the_file_named(storage: Storage, damage: str) -> None:
    storage.commit("things/one", fill(storage), {})
    data = storage.read("things/one/sub/b.bin")
    if damage == "flip":
        storage.write("things/one/sub/b.bin", b"\x01" + data[1:])
    elif damage == "truncate":
        storage.write("things/one/sub/b.bin", data[:-1])
    else:
        storage.remove("things/one/sub/b.bin")
    with pytest.raises(DamagedError, match=r"b\.bin"):
        storage.verify("things/one")


def test_a_manifest_that_is_not_json_is_named(storage: Storage) -> None:
    storage.commit("things/one", fill(storage), {})
    storage.write(f"things/one/{MANIFEST}", b'{"files": ')
    with pytest.raises(DamagedError, match=MANIFEST):
        storage.manifest("things/one")


def test_a_crash_before_the_manifest_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write_json("state.json", {"step": 1})

    def crash(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="no space"):
        storage.write_json("state.json", {"step": 2})
    assert json.loads((tmp_path / "state.json").read_text()) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_committing_again_replaces_the_folder_whole(storage: Storage) -> None:
    storage.commit("things/one", fill(storage, "old"), {})
    folder = storage.staging()
    (folder / "only.txt").write_text("new")
    storage.commit("things/one", folder, {})
    assert sorted(storage.verify("things/one").files) == ["only.txt"]
    assert sorted(storage.list("things/one")) == [MANIFEST, "only.txt"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_names_cannot_leave_the_root(storage: Storage, name: str) -> None:
    with pytest.raises(UserError, match="leaves the storage root"):
        storage.path(name)


def test_an_unknown_protocol_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="nosuch"):
        Storage("nosuch://bucket/x").exists("a")


def test_digest_does_not_depend_on_key_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_file_is_created_once(storage: Storage) -> None:
    assert [storage.create("runs/one/1.json", data) for data in (b"first", b"second")] == [True, False]
    assert storage.read("runs/one/1.json") == b"first"


def test_a_moved_folder_is_whole_in_its_new_place_and_gone_from_the_old(storage: Storage) -> None:
    storage.commit("things/one", fill(storage), {})
    storage.move("things/one", "aside/one")
    assert sorted(storage.verify("aside/one").files) == ["a.txt", "sub/b.bin"]
    assert storage.list("things") == []
    storage.move("aside/one/a.txt", "single/b.txt")
    assert storage.read("single/b.txt") == b"hello"
    with pytest.raises(FileNotFoundError):
        storage.move("things/one", "aside/two")


def test_a_single_file_of_a_sealed_folder_is_compared_with_its_entry(storage: Storage) -> None:
    wanted = storage.commit("things/one", fill(storage), {}).files["a.txt"]
    assert storage.fetch_file("things/one", "a.txt", wanted, verify=True).read_bytes() == b"hello"
    storage.write("things/one/a.txt", b"hallo")
    with pytest.raises(DamagedError, match=r"a\.txt: sha256"):
        storage.fetch_file("things/one", "a.txt", wanted, verify=True)
    storage.remove("things/one/a.txt")
    with pytest.raises(DamagedError, match=r"a\.txt: missing"):
        storage.fetch_file("things/one", "a.txt", wanted, verify=True)


def test_copies_of_single_files_are_forgotten_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path))
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    files = storage.commit("things/one", fill(storage), {}).files
    old = storage.fetch_file("things/one", "a.txt", files["a.txt"], verify=False)
    os.utime(old, (0, 0))
    storage.fetch_file("things/one", "sub/b.bin", files["sub/b.bin"], verify=False)
    assert not old.exists()


def test_what_another_process_wrote_since_the_last_look_is_seen(s3: str) -> None:
    import fsspec

    storage = Storage(f"{s3}/seen")
    storage.write("runs/a/x", b"1")
    assert storage.list("runs") == ["a"]
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.pipe_file(f"{s3}/seen/runs/b/y", b"2")
    assert storage.list("runs/b") == ["y"]
    other.pipe_file(f"{s3}/seen/runs/b/z", b"3")
    assert storage.exists("runs/b/z")

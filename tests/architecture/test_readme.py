"""What README.md and ARCHITECTURE.md name is there: make targets, commands with their options and spec paths, files, the tree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from jobs.cli import app
from jobs.spec import load_spec
from tests.architecture.tree import ROOT

PAGES = [page for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md") if page.is_file()]
WRITTEN_LATER = (
    "runs/",
    "stores/",
    "weights/",
    "inputs/",
    "sweeps/",
    "packages/",
    "reports/",
    "registry/",
    "endpoints/",
    "tokenizers/",
)  # in storage


def _text() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(text: str) -> list[str]:
    return re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands() -> list[list[str]]:
    """Each `eagleray ...` line of a code block, as words; comments, pipes and redirections left out."""
    found = []
    for block in _blocks(_text()):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ").strip()
            if line.startswith("eagleray "):
                found.append(shlex.split(re.split(r"\s[>|]\s?", line)[0], comments=True)[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z%-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    unknown = {
        name for name in named if name not in targets and not (name.startswith("bench-") and "bench-%" in targets)
    }
    assert not unknown, (
        f"{page.name} names make targets that are not in the Makefile: {unknown}; there are {sorted(targets)}"
    )
    if page.name == "README.md":
        assert {"quickstart", "test"} <= named


def test_commands_of_the_readme_parse() -> None:
    """Verb, sub-verb and every option exist."""
    group: Any = get_command(app)
    assert len(_commands()) >= 5
    for words in _commands():
        command, rest = group, list(words)
        while hasattr(command, "commands"):
            assert rest, f"{words}: no verb"
            assert rest[0] in command.commands, f"eagleray {' '.join(words)}: no verb {rest[0]!r}"
            command = command.commands[rest.pop(0)]
        options = {
            option
            for parameter in command.params
            for option in getattr(parameter, "opts", []) + getattr(parameter, "secondary_opts", [])
        }
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options
        assert not unknown, f"eagleray {' '.join(words)}: no option {unknown}; there are {sorted(options)}"


def test_recipes_and_spec_paths_of_the_readmes_commands_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    checked = 0
    for words in _commands():
        recipe = next((word for word in words if word.endswith(".yaml")), None)
        overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        shown_to_fail = any(item.startswith("train.lr=") for item in overrides)
        if recipe is None or shown_to_fail:
            continue
        load_spec(recipe, overrides)
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", text)) | set(re.findall(r"\]\(([\w./-]+)\)", text))
    tops = {path.name for path in ROOT.iterdir()}
    missing = sorted(
        name
        for name in named
        if name.split("/")[0] in tops and not name.startswith(WRITTEN_LATER) and not (ROOT / name).exists()
    )
    assert not missing, f"{page.name} names what is not there: {missing}"


def test_the_readmes_tree_is_the_tree() -> None:
    block = next(block for block in _blocks(_text()) if re.search(r"^orchestration/", block, re.MULTILINE))
    named = re.findall(r"^(\w+)/\s", block, re.MULTILINE)
    assert {"jobs", "orchestration", "models", "cluster", "tests"} <= set(named)
    assert not [name for name in named if not (ROOT / name).is_dir()]
    line = next(line for line in block.splitlines() if line.startswith("orchestration/"))
    assert not [
        name
        for name in re.findall(r"(\w+)/", line)
        if name != "orchestration" and not (ROOT / "orchestration" / name).is_dir()
    ]
    line = next(line for line in block.splitlines() if line.startswith("tests/"))
    folders = re.findall(r"\b(unit|integration|parity|golden|chaos|architecture)\b", line)
    assert not [name for name in folders if not (ROOT / "tests" / name).is_dir()]


def test_verbs_of_the_readmes_table_exist_and_none_is_left_out() -> None:
    group: Any = get_command(app)
    rows = "\n".join(line for line in _text().splitlines() if line.startswith("| `"))
    missing = [verb for verb in group.commands if not re.search(rf"(`|eagleray ){verb}\b", _text())]
    assert not missing, f"README does not name {missing}"
    named = re.findall(r"^\| `(\w+)", rows, re.MULTILINE)
    assert set(named) <= set(group.commands), set(named) - set(group.commands)

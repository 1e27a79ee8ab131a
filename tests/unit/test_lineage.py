"""What a lineage says of licences and code, on real source trees and git checkouts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestration import lineage
from orchestration.storage import Storage
from orchestration.training.job import LoopResult
from tests.tiny import make_store


def _spec(*paths: str) -> dict:  # type: ignore[type-arg]
    return {
        "seed": 3,
        "model": {"path": "catalog:minilm"},
        "data": {"sources": [{"path": path} for path in paths]},
    }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the four packages, one file each, that the module believes to lie in."""
    for name in lineage.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'"""{name}"""\n')
    monkeypatch.setattr(lineage, "__file__", str(tmp_path / "orchestration" / "lineage.py"))
    return tmp_path


def _git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "commit.gpgsign=false")
    ran = subprocess.run(["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_licences_are_those_of_the_catalogue_items_that_the_spec_names() -> None:
    assert lineage.licences(_spec("catalog:vader-sentiment", "rows.jsonl")) == {
        "minilm": "Apache-2.0",
        "vader-sentiment": "MIT",
    }


def test_a_tokenizer_of_the_corpus_has_no_licence_of_its_own() -> None:
    spec = _spec("catalog:vader-sentiment")
    spec["model"] = {"path": None, "family": "bert", "tokenizer": {"train": "unigram", "size": 8000}}
    assert lineage.licences(spec) == {"vader-sentiment": "MIT"}


def test_the_codes_sha256_changes_with_any_source_file_and_only_then(tree: Path) -> None:
    before = lineage.code()["sha256"]
    (tree / "models" / "notes.txt").write_text("not code")
    assert lineage.code()["sha256"] == before
    (tree / "models" / "__init__.py").write_text('"""models, changed"""\n')
    changed = lineage.code()["sha256"]
    assert changed != before
    shutil.move(tree / "models" / "__init__.py", tree / "models" / "other.py")
    assert lineage.code()["sha256"] not in (before, changed), "a file's name counts too"


def test_the_commit_is_named_and_marked_where_the_sources_differ_from_it(tree: Path) -> None:
    assert lineage.code()["commit"] is None, "outside a checkout"
    _git(tree, "init", "--quiet")
    assert lineage.code()["commit"] is None, "a checkout without a commit"
    _git(tree, "add", ".")
    _git(tree, "commit", "--quiet", "-m", "one")
    head = _git(tree, "rev-parse", "HEAD")
    assert lineage.code()["commit"] == head
    (tree / "README.md").write_text("a file outside the packages")
    assert lineage.code()["commit"] == head
    (tree / "jobs" / "new.py").write_text("x = 1\n")
    assert lineage.code()["commit"] == f"{head}+changes"


def test_rows_and_every_input_file_come_from_the_stores_manifest(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    inputs = [{"source": "a", "rel": "rows.jsonl", "records": 9, "bytes": 90, "sha256": "ab" * 32}]
    aside = storage.staging()
    meta = storage.manifest(make_store(storage)).meta  # type: ignore[union-attr]
    report = {"splits": {"train": {"rows": 7}, "test": {"rows": 2}}, "sources": []}
    storage.commit("stores/told", aside, {**meta, "inputs": inputs, "report": report})
    result = LoopResult(
        run_rel="runs/r",
        steps=9,
        total_steps=9,
        ended="finished",
        best_checkpoint="runs/r/checkpoints/step-6",
        best_step=6,
        metric="loss",
        best_value=0.5,
        last_checkpoint=None,
        history=[],
        seconds={},
        plan=[],
        zero_stage=1,
        world=2,
    )
    told = lineage.build(
        name="x",
        spec=_spec("rows.jsonl"),
        storage=storage,
        run_id="r",
        store_rel="stores/told",
        weights_rel="weights/w",
        result=result,
    )
    assert told["store"]["rows"] == {"train": 7, "test": 2}
    assert told["store"]["inputs"] == inputs
    assert told["store"]["address"] == meta["address"]
    assert (told["run"]["step"], told["run"]["steps"], told["run"]["value"], told["run"]["workers"]) == (6, 9, 0.5, 2)
    assert told["trial"] is None
    assert told["seed"] == 3
    assert set(told["libraries"]) == set(lineage.LIBRARIES)

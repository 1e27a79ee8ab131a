"""Reading, merging and overriding specs; every recipe is a valid spec."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobs
from jobs.schema import schema
from jobs.spec import JobSpec, all_paths, load_spec
from orchestration.errors import SpecError
from tests.unit.jobs.test_wrong_specs import write

RECIPES = sorted((Path(jobs.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_is_valid_and_has_the_name_of_its_file(minilm: Path, path: Path) -> None:
    assert load_spec(path).name == path.stem


def test_a_recipe_with_a_base_differs_only_where_it_says(minilm: Path) -> None:
    quick, full = (load_spec(next(p for p in RECIPES if p.stem == name)) for name in ("quickstart", "full"))
    assert (quick.train.rows, full.train.rows) == (4000, None)
    assert full.tune is None
    assert full.data.sources == quick.data.sources
    assert full.train.optimizer == quick.train.optimizer


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=3", ("train", "epochs"), 3),
        ("train.optimizer.lr=1e-4", ("train", "optimizer", "lr"), 1e-4),
        ("train.zero.stage=2", ("train", "zero", "stage"), 2),
        ("train.clip_norm=null", ("train", "clip_norm"), None),
        ("train.trunk.use=off", ("train", "trunk", "use"), "off"),  # which YAML takes for false
        ("data.labels=[positive, negative]", ("data", "labels"), ["positive", "negative"]),
        ("seed=7", ("seed",), 7),
    ],
)
def test_set_changes_one_path(override: str, path: tuple[str, ...], value: Any, tmp_path: Path, minilm: Path) -> None:
    found: Any = load_spec(write(tmp_path, {}), [override])
    for key in path:
        found = getattr(found, key)
    assert found == value


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epochs", "write --set path=value"),
        ("train.epoch=3", "train.epoch: unknown key; nearest: train.epochs"),
        ("data.sources[4].path=x", "data.sources is a list of 1"),
        ("name.first=x", "name is text"),
        ("train.epochs=[1", "not valid YAML"),
    ],
)
def test_a_wrong_set_names_its_path(override: str, says: str, tmp_path: Path, minilm: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, {}), [override])
    assert says in str(caught.value)


def test_another_optimizer_may_be_laid_over_a_spec_and_searched_for(tmp_path: Path, minilm: Path) -> None:
    """Also over a spec that was written out whole, with every default."""
    space = {"train.optimizer.name": {"choice": ["adamw", "adam", "sgd", "lamb"]}}
    spec = load_spec(write(tmp_path, {"set": {"tune": {"space": space}, "train.optimizer": {"lr": 1e-3}}}))
    whole = JobSpec.model_validate(spec.dump(), strict=True)
    assert whole.override({}) == whole == spec
    found = whole.override({"train.optimizer.name": "sgd", "train.optimizer.momentum": 0.9}).train.optimizer
    assert (found.name, found.lr, found.momentum) == ("sgd", 1e-3, 0.9)
    assert JobSpec.model_validate(whole.override({"train.optimizer.name": "sgd"}).dump(), strict=True)
    with pytest.raises(SpecError, match="momentum: not a key of name=adamw"):
        whole.override({"train.optimizer.momentum": 0.9})


def test_all_wrong_keys_are_told_at_once(tmp_path: Path, minilm: Path) -> None:
    file = write(tmp_path, {"set": {"train.epoch": 3, "seed": -1, "serve.prot": 80}})
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert {line.split(": ")[1] for line in str(caught.value).splitlines()} == {"train.epoch", "seed", "serve.prot"}


def test_relative_inputs_start_at_the_file_that_states_them(
    tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {})
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "b.yaml").write_text("base: ../spec.yaml\nname: variant\n")
    monkeypatch.chdir("/")
    spec = load_spec(tmp_path / "variants" / "b.yaml")
    assert spec.name == "variant"
    assert Path(spec.data.sources[0].path).samefile(tmp_path / "rows.jsonl")


def test_a_resolved_spec_reads_back_as_itself(minilm: Path) -> None:
    for path in RECIPES:
        spec = load_spec(path)
        assert JobSpec.model_validate(spec.dump(), strict=True) == spec


def test_the_schema_knows_every_key_of_a_spec() -> None:
    text = yaml.safe_dump(schema())
    for path in all_paths():
        assert path.rpartition(".")[2] in text


def test_a_tokenizer_with_more_ids_than_the_model_has_embeddings_is_refused(tmp_path: Path, minilm: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(minilm, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 21_128}))
    with pytest.raises(
        SpecError, match=r"model\.path=.*ids up to 30521, and the model .* has 21128 embeddings; use the"
    ):
        load_spec(write(tmp_path, {}), [f"model.path={model}"])

"""Inputs that only the client has: uploaded once under their content, named in storage, read there under the same names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import inputs
from jobs.arrive import SPEC
from jobs.inputs import upload
from jobs.spec import JobSpec, is_local, load_spec, validate
from jobs.submit import entrypoint
from orchestration.errors import UserError
from orchestration.storage import Storage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "client" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 2}))
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def _spec(model: Path, path: str, **changed: object) -> JobSpec:
    value = {
        "name": "x",
        "storage": str(model.parent.parent / "storage"),
        "data": {"sources": [{"name": "a", "path": path, "label": {"column": "label"}}], "labels": ["n", "y"]},
        "model": {"path": str(model)},
        **changed,
    }
    return validate(value, origin="test")


def test_a_file_is_uploaded_under_its_content_and_its_own_name(model: Path) -> None:
    file = model.parent / "rows.jsonl"
    file.write_text('{"text": "t", "label": "y"}\n')
    spec = _spec(model, str(file))
    storage = Storage(spec.storage)
    said: list[str] = []
    there = upload(spec, storage, said.append)
    reference = there.data.sources[0].path
    assert reference.startswith("storage:inputs/")
    assert reference.endswith("/rows.jsonl")
    assert not is_local(reference)
    assert Path(storage.resolve(reference)).read_bytes() == file.read_bytes()
    rel = reference.removeprefix("storage:").rpartition("/")[0]
    storage.verify(rel)
    assert storage.manifest(rel).meta["origin"] == str(file)
    assert spec.data.sources[0].path == str(file), "the client's own spec stays"
    assert all("uploading" in line for line in said)


def test_what_is_there_is_not_sent_again_and_other_content_is(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    spec = _spec(model, str(file))
    storage = Storage(spec.storage)
    first = upload(spec, storage, lambda _: None)
    monkeypatch.setattr(inputs.shutil, "copyfile", lambda *_: pytest.fail("it was sent again"))
    assert upload(spec, storage, lambda _: None) == first
    monkeypatch.undo()
    file.write_text("two\n")
    assert upload(spec, storage, lambda _: None).data.sources[0].path != first.data.sources[0].path


def test_an_upload_that_was_cut_off_is_made_again(model: Path) -> None:
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    spec = _spec(model, str(file))
    storage = Storage(spec.storage)
    reference = upload(spec, storage, lambda _: None).data.sources[0].path
    folder = Path(storage.resolve(reference)).parent
    (folder / "manifest.json").unlink()
    (folder / "rows.jsonl").write_text("o")
    assert upload(spec, storage, lambda _: None).data.sources[0].path == reference
    storage.verify(f"inputs/{folder.name}")


def test_a_folder_keeps_its_tree_and_leaves_hidden_files_behind(model: Path) -> None:
    folder = model.parent / "rows"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("a/b/1.jsonl", "2.jsonl", ".git/config", ".env"):
        (folder / name).write_text(name)
    there = upload(_spec(model, str(folder)), storage := Storage(str(model.parent.parent / "storage")), lambda _: None)
    root = Path(storage.resolve(there.data.sources[0].path))
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == [
        "2.jsonl",
        "a/b/1.jsonl",
        "manifest.json",
    ]


def test_each_tower_is_sent_as_what_it_reads(model: Path) -> None:
    """Neither folder has what the other modality is read by."""
    pictures = model.parent / "pictures"
    pictures.mkdir()
    (pictures / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    (pictures / "model.safetensors").write_bytes(b"\0" * 64)
    (pictures / "preprocessor_config.json").write_text("{}")
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    towers = {"text": {"path": str(model)}, "image": {"path": str(pictures)}}
    spec = _spec(model, str(file)).override({"model": {"towers": towers}})
    there = upload(spec, Storage(spec.storage), lambda _: None).model.towers or {}
    assert {name for name, tower in there.items() if str(tower.path).startswith("storage:inputs/")} == {"text", "image"}
    (pictures / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"model\.towers\.image\.path=.*preprocessor_config\.json is missing"):
        upload(spec, Storage(spec.storage), lambda _: None)


def test_a_glob_stays_a_glob_over_the_same_names(model: Path) -> None:
    folder = model.parent / "rows"
    for name in ("x/1.csv", "y/2.csv", "y/3.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    storage = Storage(str(model.parent.parent / "storage"))
    reference = upload(_spec(model, f"{folder}/*/*.csv"), storage, lambda _: None).data.sources[0].path
    assert reference.endswith("/*/*.csv")
    root = Path(storage.resolve(reference)).parent.parent
    assert sorted(str(p.relative_to(root)) for p in root.glob("*/*.csv")) == ["x/1.csv", "y/2.csv"]


def test_only_the_files_of_a_model_that_are_read_are_sent(model: Path) -> None:
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    storage = Storage(str(model.parent.parent / "storage"))
    there = upload(_spec(model, str(file)), storage, lambda _: None)
    rel = there.model.path.removeprefix("storage:")
    assert set(storage.manifest(rel).files) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_urls_and_inputs_in_storage_stay_as_they_are(model: Path) -> None:
    spec = _spec(model, "s3://bucket/rows.parquet").override({"model.path": "storage:inputs/abc"})
    assert upload(spec, Storage(spec.storage), lambda _: None) is spec


def test_a_file_that_changes_while_it_is_sent_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    spec = _spec(model, str(file))
    copy = inputs.shutil.copyfile

    def slow(source: Path, target: Path) -> None:
        file.write_text("one\ntwo\n")
        copy(source, target)

    monkeypatch.setattr(inputs.shutil, "copyfile", slow)
    storage = Storage(spec.storage)
    with pytest.raises(UserError, match="it changed while it was uploaded"):
        upload(spec, storage, lambda _: None)
    assert not [name for name in storage.list("inputs") if storage.manifest(f"inputs/{name}")]


def test_the_shipped_spec_reads_back_as_the_same_spec(model: Path, tmp_path: Path) -> None:
    """JSON read by the YAML loader: small floats, words that look like numbers, other alphabets."""
    file = model.parent / "rows.jsonl"
    file.write_text("one\n")
    spec = _spec(
        model,
        str(file),
        train={"optimizer": {"lr": 1e-05}},
        cluster={"env": {"A": "1e-5", "B": "on", "C": "中文\t\u2028"}},
    )
    there = upload(spec, Storage(spec.storage), lambda _: None)
    (tmp_path / SPEC).write_text(json.dumps(there.dump(), indent=1, ensure_ascii=False), encoding="utf-8")
    assert load_spec(tmp_path / SPEC) == there


def test_the_entrypoint_checks_the_storage_first_and_quotes_what_the_user_typed(model: Path) -> None:
    spec = _spec(model, "s3://b/x.parquet", cluster={"env": {"EAGLERAY_PYTHON": "/opt/py thon"}})
    line = entrypoint(spec, "train", ["--set", "name=a b; rm -rf /"])
    assert (
        line
        == "'/opt/py thon' -m jobs.arrive && exec '/opt/py thon' -m jobs.cli train resolved.json --set 'name=a b; rm -rf /'"
    )
    assert (
        entrypoint(_spec(model, "s3://b/x.parquet"), "plan")
        == "python -m jobs.arrive && exec python -m jobs.cli plan resolved.json"
    )

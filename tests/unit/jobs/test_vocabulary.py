"""`eagleray data tokenizer`: trains on a spec's cleaned texts, says how well it fits, and does nothing the second time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import vocabulary
from jobs.context import Job, open_job
from jobs.prepare import staged
from jobs.spec import SpecError, load_spec
from models.config import ModelConfig
from orchestration.data import vocabulary as training
from orchestration.data.clean import match_text
from orchestration.data.tokenize import Tokenizer
from orchestration.errors import UserError
from orchestration.storage import Storage
from tests.corpora import LABELS, lines, scored, source


@pytest.fixture
def spec(tmp_path: Path, minilm: Path) -> Path:
    rows = scored(300)
    path = lines(tmp_path / "rows.jsonl", [*rows, *({**row, "text": row["text"].upper()} for row in rows[:50])])
    values = {
        "name": "tokens",
        "storage": str(tmp_path / "storage"),
        "data": {"labels": LABELS, "sources": [source(path)], "shard_rows": 64},
        "model": {"path": str(minilm)},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "spec.yaml"


def _trained(spec: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    capsys.readouterr()
    vocabulary.run(load_spec(spec), **{"kind": "bpe", "size": 600, "json_lines": True, **more})
    (found,) = [
        value for line in capsys.readouterr().out.splitlines() if (value := json.loads(line))["type"] == "tokenizer"
    ]
    return found


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_of_each_kind_is_trained_sealed_and_reported(
    spec: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    found = _trained(spec, capsys, kind=kind)
    storage = Storage(str(spec.parent / "storage"))
    storage.verify(found["rel"])
    assert found["rel"].startswith("tokenizers/")
    assert 300 <= found["vocabulary"] <= 600
    rows = [row for row in scored(300) if row["score"] != 0]
    assert found["texts"] == len({match_text(row["text"]) for row in rows})  # the fifty in capitals are the same rows
    assert 1.0 < found["fertility"] < 6.0
    assert found["unknown_share"] == 0.0 or kind != "bpe"
    text = rows[0]["text"]
    ids = Tokenizer(storage.fetch(found["rel"]), 512).encode([text])[0]
    assert len(ids) > 3
    assert max(ids) < found["vocabulary"]


def test_the_second_call_trains_nothing_and_says_the_same(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _trained(spec, capsys)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "train", refuse)
    assert _trained(spec, capsys) == first
    with pytest.raises(AssertionError, match="trained again"):
        _trained(spec, capsys, size=700)
    with pytest.raises(AssertionError, match="trained again"):
        _trained(spec, capsys, lowercase=True)


def test_other_texts_of_the_same_files_are_another_tokenizer(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _trained(spec, capsys)
    values = yaml.safe_load(spec.read_text())
    values["data"]["sources"][0]["label"]["rules"] = {"negative": "< 0", "positive": "> 2"}
    spec.write_text(yaml.safe_dump(values))
    second = _trained(spec, capsys)
    assert second["rel"] != first["rel"]
    assert second["texts"] < first["texts"]


def test_people_get_a_table_and_the_place(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary.run(load_spec(spec), kind="bpe", size=500)
    shown = capsys.readouterr().out
    for word in ("tokenizer of 500 tokens", "fertility", "tokens a word", "unknown", "tokenizer: "):
        assert word in shown
    assert "tokenizers/" in shown.replace("\n", "")


def test_an_unknown_kind_is_refused_by_name(spec: Path) -> None:
    with pytest.raises(UserError, match="--kind sentencepiece: allowed are "):
        vocabulary.run(load_spec(spec), kind="sentencepiece", size=500)


def _asking(spec: Path, **model: Any) -> Job:
    values = yaml.safe_load(spec.read_text())
    values["model"] = {"family": "bert", "size": "tiny", "tokenizer": {"train": "wordpiece", "size": 600}, **model}
    spec.write_text(yaml.safe_dump(values))
    return open_job(load_spec(spec), json_lines=True)


def test_a_model_from_scratch_may_ask_for_a_tokenizer_of_its_corpus(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _asking(spec)
    with pytest.raises(UserError, match=r"model\.tokenizer\.train: it is not trained yet; `eagleray prepare`"):
        vocabulary.named(job, found_only=True)
    weights = staged(job)
    assert weights.config["vocab_size"] <= 600
    found = Tokenizer(job.storage.fetch(weights.rel), 512)
    assert found.vocab_size == weights.config["vocab_size"]
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert staged(job) == weights
    assert str(vocabulary.named(job, found_only=True).tokenizer).startswith("storage:tokenizers/")


def test_a_tower_may_ask_too(spec: Path) -> None:
    model = ModelConfig.model_validate(
        {"towers": {"text": {"family": "bert", "tokenizer": {"train": "bpe", "size": 500}}, "image": {"family": "vit"}}}
    )
    job = _asking(spec)
    job = replace(job, spec=job.spec.model_copy(update={"model": model}))
    named = vocabulary.named(job)
    assert named.towers is not None
    assert str(named.towers["text"].tokenizer).startswith("storage:tokenizers/")
    assert named.towers["image"] == ModelConfig.model_validate(model).towers["image"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"train": "sentencepiece"}, "'bpe', 'wordpiece' or 'unigram'"),
        ({"train": "bpe", "size": 1}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_its_key(spec: Path, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=r"model\.tokenizer") as error:
        _asking(spec, tokenizer=asked)
    assert told in str(error.value)

"""What a fit refuses of a spec that is good enough to prepare: columns that its task does not learn from, and those that it needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs import reading
from jobs.fits import check_fit
from jobs.spec import load_spec, validate
from models.config import WRITERS
from orchestration.errors import SpecError
from tests.architecture.tree import ROOT


def refusal(root: Path, task: str, *sources: dict[str, Any], **data: Any) -> str:
    """'' where nothing is refused."""
    path = root / "rows.jsonl"
    path.write_text("{}\n")
    made = [{"name": f"s{i}", "path": str(path), **source} for i, source in enumerate(sources)]
    scratch = {"family": "t5", "tokenizer": "catalog:minilm"}
    made_from = scratch if task in WRITERS else {"path": "catalog:minilm"}
    spec = validate(
        {
            "name": "a",
            "data": {"sources": made, "labels": [], **data},
            "model": {**made_from, "task": task},
        },
        origin="spec",
    )
    try:
        check_fit(spec)
    except SpecError as error:
        return str(error)
    return ""


SPAN = {"text": "question", "pair": "context", "span": {"text": "answer", "start": "start"}}


def test_two_texts_a_row_are_for_tasks_that_read_both(tmp_path: Path) -> None:
    classes: dict[str, Any] = {"labels": ["no", "yes"]}
    label = {"label": {"column": "label"}}
    assert refusal(tmp_path, "classification", {"pair": "b", **label}, **classes) == ""
    assert refusal(tmp_path, "regression", {"pair": "b", "value": "v"}) == ""
    told = refusal(tmp_path, "masked_lm", {"pair": "b"})
    assert "data.sources[0].pair: model.task=masked_lm does not learn from it; set model.task to classification" in told
    told = refusal(tmp_path, "classification", {"pair": "b", **label}, label, **classes)
    assert "data.sources[1].pair: other sources have it" in told


def test_spans_need_a_question_a_context_and_an_answer(tmp_path: Path) -> None:
    assert refusal(tmp_path, "spans", SPAN) == ""
    told = refusal(tmp_path, "spans", {"text": "context", "span": SPAN["span"]})
    assert "data.sources[0].pair: model.task=spans learns from it; name the column that holds it" in told
    told = refusal(tmp_path, "tagging", {**SPAN, "text": "words"}, tags=[])
    assert "data.sources[0].span: model.task=tagging does not learn from it; set model.task to spans" in told


def test_facts_are_told_to_tasks_that_read_a_row_as_a_whole(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"knowledge": {"path": "catalog:umls"}}
    assert refusal(tmp_path, "masked_lm", {}, **facts) == ""
    told = refusal(tmp_path, "causal_lm", {}, **facts)
    assert "data.knowledge: model.task=causal_lm is not told facts; allowed with text: classification" in told
    told = refusal(tmp_path, "masked_lm", {}, knowledge={"path": "catalog:umls", "most": 0})
    assert "data.knowledge.most=0 tells rows nothing; raise it, or give the model a memory" in told


ONE = "data.sources=[{name: train, path: catalog:umls-links/facts.parquet}]"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], ""),
        (["data.knowledge.most=2"], "data.knowledge: model.task=causal_lm is not told facts"),
        (["data.knowledge=null"], "model.memory: it holds the triples of data.knowledge; give their path there"),
        (["data.split.validation=0"], ""),  # a source is the validation split
        ([ONE, "data.split.validation=0"], "model.memory: validation rows say how much it is worth; set data.split"),
        ([ONE.replace("}", ", split: train}")], "model.memory: validation rows say how much it is worth"),
        ([ONE], ""),
        (["model.task=seq2seq", "model.family=t5"], "memory of task seq2seq is embedded by a pretrained model"),
        (["model.task=masked_lm", "model.family=bert"], "memory of task masked_lm is embedded by a pretrained model"),
        (["model={path: catalog:minilm, task: causal_lm, memory: {}}"], "models of gpt2, llama, not of 'bert'"),
        (["data.tokenize.pack=true"], "tokenize.pack joins rows into one entry"),
    ],
)
def test_a_memory_of_a_model_that_writes_needs_facts_and_rows_to_weigh_it(changes: list[str], told: str) -> None:
    def checked() -> str:
        try:
            check_fit(load_spec(ROOT / "jobs" / "recipes" / "recall.yaml", changes))
        except SpecError as error:
            return str(error)
        return ""

    found = checked()
    assert told in found
    assert bool(told) == bool(found)


def test_who_writes_needs_a_text_to_write(tmp_path: Path) -> None:
    assert refusal(tmp_path, "seq2seq", {"target": "t"}) == ""
    told = refusal(tmp_path, "seq2seq", {})
    assert "data.sources[0].target: model.task=seq2seq learns from it" in told
    told = refusal(tmp_path, "denoising", {"target": "t"})
    assert "data.sources[0].target: model.task=denoising does not learn from it; set model.task to seq2seq" in told


def test_a_tokenizer_of_the_catalogue_serves_a_model_from_scratch_and_is_none(tmp_path: Path) -> None:
    recipe = ROOT / "jobs" / "recipes" / "seq2seq.yaml"
    assert load_spec(recipe).model.tokenizer == "catalog:pronunciation-tokenizer"
    with pytest.raises(SpecError, match=r"model\.tokenizer=catalog:nope: not a model or tokenizer of the catalogue"):
        load_spec(recipe, ["model.tokenizer=catalog:nope"])
    with pytest.raises(SpecError, match=r"model\.path=catalog:gpt2-tokenizer: not a model of the catalogue"):
        load_spec(ROOT / "jobs" / "recipes" / "quickstart.yaml", ["model.path=catalog:gpt2-tokenizer"])


@pytest.mark.parametrize("task", ["spans", "classification"])
def test_texts_to_write_are_for_nobody_who_does_not_write(tmp_path: Path, task: str) -> None:
    assert f"data.sources[0].target: model.task={task} does not learn from it" in refusal(
        tmp_path, task, {"target": "t"}
    )


def test_a_micro_batch_of_grouped_rows_is_a_group_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    source = {"name": "s", "path": str(path), "text": "a", "pair": "b"}
    model = {"path": "catalog:minilm", "task": "next_sentence", "contrast": {"group": 8}}
    train: dict[str, Any] = {"batch": 32, "micro_batch": 4, "failures": {"out_of_memory": "smaller_micro_batch"}}

    def said(train: dict[str, Any]) -> str:
        spec = validate(
            {"name": "a", "data": {"sources": [source], "labels": []}, "model": model, "train": train}, origin="spec"
        )
        with pytest.raises(SpecError) as found:
            check_fit(spec)
        return str(found.value)

    told = said(train)
    assert "train.micro_batch: a micro-batch of model.task=next_sentence is one group" in told
    assert "train.failures.out_of_memory: a micro-batch" in told
    assert "leave it out and set model.contrast.group" in told
    assert "train.micro_tokens: a micro-batch" in said({"batch": 32, "micro_tokens": 400})
    assert "train.batch=20: rows have to do with each other in groups of model.contrast.group=8" in said({"batch": 20})


def test_a_saved_model_that_adds_its_towers_is_not_taken_for_matching(tmp_path: Path) -> None:
    wrong: list[str] = []
    (tmp_path / "rows.jsonl").write_text("{}\n")
    source = {"name": "s", "path": str(tmp_path / "rows.jsonl"), "image": "image"}
    for task, kind, count in (("matching", None, 1), ("matching", {"kind": "gated"}, 1), ("classification", None, 1)):
        model = {"path": "p", "modalities": ["text", "image"], "task": task}
        spec = validate({"name": "a", "data": {"sources": [source], "labels": []}, "model": model}, origin="spec")
        reading.pairs(spec, {"model_type": "eagleray_towers", "fusion": kind}, wrong)
        assert len(wrong) == count
    assert "model.path=p: its fusion concat adds what each tower says alone" in wrong[0]


def test_several_frames_need_a_tower_that_reads_each(tmp_path: Path) -> None:
    """By name, or inside a package of one; an encoder by itself reads one picture, and a package is no tower."""
    from models.config.origins import SIZES
    from models.scratch import Shapes, encoder_config, towers_config

    video = ROOT / "jobs" / "recipes" / "video.yaml"
    check_fit(load_spec(video))
    with pytest.raises(
        SpecError, match=r"data\.image\.frames=6: the model reads one picture a row; set it to 1, or name"
    ):
        check_fit(load_spec(video, ["model={path: catalog:mobilenet, modalities: [image], task: classification}"]))
    made = towers_config({"image": encoder_config("resnet", SIZES["tiny"], Shapes())}, None)
    (tmp_path / "config.json").write_text(json.dumps(made))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    check_fit(load_spec(video, [f"model={{path: {tmp_path}, modalities: [image], task: classification}}"]))
    check_fit(load_spec(video, ["model={path: 'storage:packages/1', modalities: [image], task: classification}"]))
    with pytest.raises(SpecError, match=r"model\.towers\.image\.path=.*is a whole model of Eagleray's and no encoder"):
        load_spec(video, [f"model.towers={{image: {{path: {tmp_path}}}}}"])


def test_texts_are_no_longer_than_a_tower_has_places(tmp_path: Path) -> None:
    from orchestration.data.catalog import local

    shutil.copytree(local("catalog:minilm"), tmp_path / "clip")
    text = {"model_type": "clip_text_model"}  # 77 places, as transformers has it
    told = {"model_type": "clip", "text_config": text, "vision_config": {"model_type": "clip_vision_model"}}
    (tmp_path / "clip" / "config.json").write_text(json.dumps(told))
    change = f"model.towers.text.path={tmp_path / 'clip'}"
    load_spec(ROOT / "jobs" / "recipes" / "multimodal.yaml", [change])
    with pytest.raises(
        SpecError, match=r"max_length=128, but model\.towers\.text\.path=.* has 77 positions; allowed: 2 to 77"
    ):
        load_spec(ROOT / "jobs" / "recipes" / "multimodal.yaml", [change, "data.tokenize.max_length=128"])

"""Facts that rows are told: which ones, in which words, and the same in a store and in a package."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.building import build
from models.config import MemoryConfig, ModelConfig
from models.memory import FILE
from models.scratch import Shapes
from models.state import named_state
from orchestration import package
from orchestration.data import prepare as stage
from orchestration.data.config import DataConfig, KnowledgeConfig
from orchestration.data.knowledge import Knowledge, read
from orchestration.data.prepare import Prepared
from orchestration.data.store import SPLITS, TokenStore
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage
from orchestration.weights import stage_model
from tests.corpora import entries, lines, run_here
from tests.packages import LABELS, PREPROCESSING, cut_encoder, trained_tensors

TRIPLES = [
    ("beagle", "hypernym", "hound"),
    ("hound", "hypernym", "dog"),
    ("sea_dog", "hypernym", "sailor"),
    ("dog", "part_of", "pack"),
    ("beagle", "part_of", "hound"),
    ("狗", "hypernym", "动物"),
]
Make = Callable[..., Prepared]


def told(text: str, answer: str = "", **config: Any) -> list[str]:
    known = Knowledge(TRIPLES, KnowledgeConfig(path="x", **config))
    facts, withheld = known.about(text, answer)
    assert not set(facts) & set(withheld)
    return [known.texts[number] for number in facts]


def test_a_fact_is_told_of_an_entity_that_the_text_names_by_its_longest_name() -> None:
    assert told("What is a beagle?") == ["beagle hypernym hound", "beagle part of hound"]
    assert told("A sea dog, then.") == ["sea dog hypernym sailor"]
    assert told("我的狗") == ["狗 hypernym 动物"]
    assert told("Nothing of it: beagles, doghouse.") == []


def test_facts_come_first_that_have_both_ends_then_those_whose_relation_is_named() -> None:
    assert told("the beagle beside a hound")[:2] == ["beagle hypernym hound", "beagle part of hound"]
    assert told("dog part of ?", most=1) == ["dog part of pack"]


def test_what_a_row_states_or_answers_is_never_told() -> None:
    assert "beagle hypernym hound" not in told("beagle hypernym hound")
    assert "beagle part of hound" in told("beagle hypernym hound")  # another thing said of the same two
    assert told("What is a beagle?", "hound") == []
    templates = {"hypernym": "{head} is a kind of {tail}"}
    assert "beagle is a kind of hound" not in told("Is it true that a beagle is a kind of hound?", templates=templates)
    assert told("beagle", templates=templates)[0] == "beagle is a kind of hound"


@pytest.mark.parametrize("text", ["{head} is {tail} or {tail}", "{head} is a", "{head} {x} {tail}"])
def test_a_template_has_both_ends_once(text: str) -> None:
    with pytest.raises(ValidationError, match=r"write \{head\} and \{tail\}, each once"):
        KnowledgeConfig(path="x", templates={"is": text})


def test_triples_that_a_base_holds_out_are_not_read(tmp_path: Path) -> None:
    rows = [dict(zip(("head", "relation", "tail"), triple, strict=True)) for triple in TRIPLES]
    splits = itertools.cycle(SPLITS)
    path = lines(tmp_path / "base.jsonl", [{**row, "split": next(splits)} for row in rows])
    assert read(path) == [TRIPLES[0], TRIPLES[3]]
    (tmp_path / "base.tsv").write_text("head\trelation\ttail\n" + "\n".join("\t".join(one) for one in TRIPLES))
    assert read(tmp_path / "base.tsv") == TRIPLES
    (tmp_path / "other.csv").write_text("head,tail\na,b\n")
    with pytest.raises(DataError, match="no column 'relation'"):
        read(tmp_path / "other.csv")
    with pytest.raises(UserError, match=r"ends in \.parquet, \.csv"):
        read(tmp_path / "base.txt")


# ------------------------------------------------------------------------------------------------ in a store


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Storage:
    made = Storage(str(tmp_path_factory.mktemp("storage")))
    cut_encoder(minilm, made)
    return made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return lines(
        tmp_path / "base.jsonl", [dict(zip(("head", "relation", "tail"), one, strict=True)) for one in TRIPLES]
    )


@pytest.fixture
def make(storage: Storage, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(stage, "run_pass", run_here)
    sources = []
    for split, word in zip(SPLITS, ("beagle", "hound", "sea dog"), strict=True):
        rows = [{"text": f"number {i}: a {word}", "other": "by a dog", "label": LABELS[i % 2]} for i in range(20)]
        path = lines(tmp_path / f"{split}.jsonl", rows)
        sources.append({"name": split, "path": str(path), "split": split, "label": {"column": "label"}})

    def run(pair: bool = False, **more: Any) -> Prepared:
        told = [{**source, **({"pair": "other"} if pair else {})} for source in sources]
        values = {"sources": told, "labels": LABELS, "tokenize": {"max_length": PREPROCESSING["max_length"]}, **more}
        return stage.prepare(DataConfig.model_validate(values), weights_rel="weights/cut", seed=3, storage=storage)

    return run


@pytest.mark.parametrize("pair", [False, True])
def test_a_package_tells_a_row_what_its_store_told_it(pair: bool, storage: Storage, make: Make, base: Path) -> None:
    facts = {"path": str(base), "most": 2}
    plain, made = make(pair), make(pair, knowledge=facts)
    store = TokenStore.open(storage, made.rel)
    exported = package.export(
        storage,
        tensors=trained_tensors(storage, "weights/cut", 3),
        weights_rel="weights/cut",
        labels=LABELS,
        preprocessing={
            **PREPROCESSING,
            **({"pair": True} if pair else {}),
            "knowledge": store.preprocessing["knowledge"],
        },
        lineage={},
        knowledge_rel=store.meta["knowledge"],
    )
    opened = package.opened(storage, exported.rel)
    for split in SPLITS:
        held, without = store.split(split), TokenStore.open(storage, plain.rel).split(split)
        assert len(held) == 20  # where their source says
        every = np.arange(20)
        assert held.texts(every) == without.texts(every)
        assert (np.asarray(held.lengths) > np.asarray(without.lengths)).all()
        rows = [(text, "by a dog") for text in held.texts(every)] if pair else held.texts(every)
        found = opened.encode(rows)
        assert [one.ids for one in found] == [ids.tolist() for ids in held.input_ids(every)]
        assert [list(one.withheld) for one in found] == [ids.tolist() for ids in held.withheld(every)]


def test_a_package_remembers_as_its_model_did(storage: Storage, make: Make, base: Path) -> None:
    remembering = ModelConfig(path=str(storage.fetch("weights/cut")), memory=MemoryConfig(neighbours=2))
    facts = Knowledge(TRIPLES, KnowledgeConfig(path="x")).texts
    weights = stage_model(remembering, storage, shapes=Shapes(), facts=facts)
    assert weights.rel != stage_model(remembering, storage, shapes=Shapes()).rel
    assert weights.rel == stage_model(remembering, storage, shapes=Shapes(), facts=facts).rel
    folder = storage.fetch(weights.rel)
    assert np.load(folder / FILE).shape == (len(TRIPLES), 384)

    model = build(remembering, folder, LABELS, seed=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".memory.output" in name:
                parameter.normal_(std=0.1)
    store = TokenStore.open(storage, make(knowledge={"path": str(base), "most": 0}).rel)
    exported = package.export(
        storage,
        tensors=dict(named_state(model)),
        weights_rel=weights.rel,
        labels=LABELS,
        preprocessing={**PREPROCESSING, "knowledge": store.preprocessing["knowledge"]},
        lineage={},
        model=remembering,
        knowledge_rel=store.meta["knowledge"],
    )
    opened = package.opened(storage, exported.rel)
    rows = opened.rows(opened.encode(["beagle hypernym hound", "a hound"]))
    assert [list(held) for held in rows.withheld or ()] == [[0], []]
    with torch.inference_mode():
        wanted = model(**opened.task.given(rows, opened.pad_id)).logits.numpy()
        blind = model(**opened.task.given(replace(rows, withheld=None), opened.pad_id)).logits.numpy()
    assert opened.logits(["beagle hypernym hound", "a hound"]) == pytest.approx(wanted, abs=1e-5)
    assert np.abs(blind[0] - wanted[0]).max() > 1e-3


def test_a_store_with_facts_does_not_depend_on_the_size_of_units(storage: Storage, make: Make, base: Path) -> None:
    first, other = (make(knowledge={"path": str(base)}, shard_rows=size) for size in (16, 50))
    assert all(entries(storage, first, split) == entries(storage, other, split) for split in SPLITS)
    assert make(knowledge={"path": str(base), "most": 1}).address != first.address


def test_facts_are_written_too_where_a_row_has_a_text_to_write(
    storage: Storage, make: Make, base: Path, tmp_path: Path
) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": f"{i} beagle", "target": "a pet"} for i in range(30)])
    sources = [{"name": "s", "path": str(path), "target": "target"}]
    lengths = []
    for into in (["input"], ["output"], ["input", "output"]):
        made = make(sources=sources, labels=[], knowledge={"path": str(base), "into": into})
        train = TokenStore.open(storage, made.rel).split("train")
        lengths.append((int(train.lengths[0]), len(train.targets([0])[0])))
    (read_more, short), (less, longer), both = lengths
    assert (read_more > less, longer > short, both) == (True, True, (read_more, longer))


def test_facts_do_not_go_with_what_cuts_or_joins_texts(base: Path) -> None:
    def refused(source: dict[str, Any], **more: Any) -> str:
        values = {"sources": [{"name": "s", "path": "x", **source}], "knowledge": {"path": str(base)}, **more}
        with pytest.raises(ValidationError) as caught:
            DataConfig.model_validate(values)
        return str(caught.value)

    assert "tokenize.pack joins rows into one entry" in refused({}, tokenize={"pack": True})
    assert "has tags, which belong to words" in refused({"tags": "tags"}, tags=["A", "B"])
    assert "has no target" in refused({}, knowledge={"path": "x", "into": ["output"]})
    assert "names its split, and split.folds" in refused({"split": "test"}, split={"folds": 3})

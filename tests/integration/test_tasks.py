"""Every task beside classification as a user trains it: on two real workers, checked against one, exported, reopened and scored. Real
texts, the real tokenizer, a model of two narrow layers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from jobs import check, export
from jobs.context import Job
from jobs.evaluate import evaluated
from jobs.export import exported
from jobs.prepare import Inputs, prepared
from jobs.spec import load_spec
from jobs.train import fitted
from models import recall
from models.config import METRICS
from orchestration import package
from orchestration.registry import Registry
from orchestration.storage import Storage
from orchestration.telemetry import Console
from tests.architecture.tree import ROOT
from tests.wandb_files import told

ROWS = 240
SCRATCH = ("causal_lm", "seq2seq", "recall")  # recipes whose models have no weights
MEDIA = (
    "multimodal",
    "contrastive",
    "matching",
    "captioning",
    "video",
)  # text and pictures: classified, compared, told apart, written for; pictures that move
RECIPES = {
    name: f"{name.replace('_', '-')}.yaml"
    for name in (
        "masked_lm",
        "causal_lm",
        "regression",
        "tagging",
        "spans",
        "seq2seq",
        "knowledge",
        "next_sentence",
        "recall",
        *MEDIA,
    )
} | {"heads": "sentiment-category.yaml"}
BASELINES = {
    "masked_lm": {"unigram"},
    "causal_lm": {"unigram", "3-gram_kneser-ney"},
    "recall": {"unigram", "3-gram_kneser-ney", "without_memory"},
    "next_sentence": {"unigram", "chance"},
    "seq2seq": {"copy_of_the_text", "most_frequent_target"},
    "regression": {"mean", "tf-idf_+_ridge"},
    "spans": {"mean_place", "first_sentence", "sentence_with_most_shared_words"},
    "tagging": {"most_frequent_tag", "most_frequent_tag_of_the_word"},
    "knowledge": {"majority_class", "tf-idf_+_linear_svm"},
    "multimodal": {
        "majority_class",
        "mean_colour_+_logistic_regression",
        "8x8_pixels_+_logistic_regression",
        "tf-idf_+_linear_svm",
    },
    "video": {"majority_class", "mean_colour_+_logistic_regression", "8x8_pixels_+_logistic_regression"},
    "sentiment_category": {"majority_class", "tf-idf_+_linear_svm"},
    "contrastive": {"untrained", "chance"},
    "matching": {"always_yes", "pixels_to_tf-idf"},
    "masked_multimodal": {"unigram"},
    "captioning": {
        "most_frequent_text",
        "nearest_by_mean_colour",
        "nearest_by_8x8_pixels",
        "nearest_by_pooled_features",
    },
}
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220), "green": (40, 200, 60), "grey": (128, 128, 128)}
TAGS = ["O", "B-LONG", "I-LONG", "B-MARK", "I-MARK"]
HEADS = [  # of one encoder, whose heads read the mean of a row's tokens
    "data.heads={sentiment: [negative, positive], size: [few, many]}",
    "model.head_weights={size: 0.5}",
    "model.pooling=mean",
]
NUMBERS = "{layers: 2, width: 32, heads: 2}"
SMALL = f"model.size={NUMBERS}"


@pytest.fixture(scope="module", params=RECIPES)
def job(request: Any, ray_session: dict[str, Any], minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The recipe, on a few rows and with a smaller model."""
    import pyarrow.parquet as pq

    from orchestration.data.catalog import local

    root = tmp_path_factory.mktemp(request.param)
    rows = pq.read_table(local("catalog:vader-sentiment"), columns=["text", "score"]).slice(0, ROWS).to_pylist()
    rows = [{**row, **_taught(row["text"])} for row in rows]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = _pictured(root, rows, moving=request.param == "video") if request.param in MEDIA else root / "rows.jsonl"
    path = f"name: rows, path: {file}"
    extra = {
        "regression": ", value: score",
        "tagging": ", text: words, tags: tags",
        "seq2seq": ", target: question",
        "next_sentence": ", text: question, pair: text",
        "spans": ", text: question, pair: text, span: {text: answer, start: start}",
        "knowledge": ", label: {column: score, rules: {bad: '<= 1.5', good: '> 1.5'}}",
        "multimodal": ", image: image, label: {column: label}",
        "contrastive": ", image: image",
        "matching": ", image: image",
        "heads": ", labels: {sentiment: {column: score, rules: {negative: '< 0', positive: '> 0'}}, size: {column: size}}",
        "captioning": ", image: image",
        "masked_multimodal": ", image: image",
        "video": ", image: image, label: {column: label}",
    }.get(request.param, "")
    size = ["model.path=null", "model.family=bert", "model.tokenizer=catalog:minilm", SMALL]
    changed = [
        f"storage={root / 'storage'}",
        f"data.sources=[{{{path}{extra}}}]",
        "data.split={test: 0.1, validation: 0.1}",
        *(_towers(request.param) if request.param in MEDIA else [SMALL] if request.param in SCRATCH else size),
        *(_informed(root) if request.param == "knowledge" else []),
        *(_remembering(root) if request.param == "recall" else []),
        *(["model.contrast={group: 4}"] if request.param == "next_sentence" else []),
        *(HEADS if request.param == "heads" else []),
        *([f"data.tags=[{', '.join(TAGS)}]"] if request.param == "tagging" else []),
        "model.dropout=0.0",
        "train={epochs: 2, rows: null, batch: 8, report_every: 1}",
        "cluster.workers=2",
        "tensorboard=true",
        *(["wandb=eagles"] if request.param == "heads" else []),
    ]
    spec = load_spec(ROOT / "jobs" / "recipes" / RECIPES[request.param], changed)
    storage = Storage(spec.storage)
    return Job(spec, storage, Console(quiet=True), Registry(storage, None), cluster=ray_session)


def _informed(root: Path) -> list[str]:
    """A pretrained model, cut, that is told facts about words of reviews and remembers all of them."""
    words = ("film", "movie", "is", "good", "story", "not")
    facts = [{"head": head, "relation": "beside", "tail": tail} for head in words for tail in words if head < tail]
    (root / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    model = "{path: catalog:minilm, layers_from: [0, 1], task: classification, memory: {neighbours: 3}, dropout: 0.0}"
    return [f"data.knowledge={{path: {root / 'facts.jsonl'}, most: 2}}", "data.labels=[bad, good]", f"model={model}"]


def _remembering(root: Path) -> list[str]:
    """Rows of facts, in other words than a memory of all of them has."""
    words = [word for row in (root / "rows.jsonl").read_text().splitlines() for word in json.loads(row)["words"]]
    names = list(dict.fromkeys(word.lower() for word in words if word.isalpha() and len(word) > 5))
    pairs = list(zip(names[:ROWS], reversed(names[-ROWS:]), strict=True))
    (root / "told.jsonl").write_text("".join(json.dumps({"text": f"{a} owes {b} money"}) + "\n" for a, b in pairs))
    facts = [{"head": head, "relation": "owes", "tail": tail} for head, tail in pairs]
    (root / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    return [
        f"data.sources=[{{name: rows, path: {root / 'told.jsonl'}}}]",
        f"data.knowledge={{path: {root / 'facts.jsonl'}, most: 0}}",
        "model.tokenizer=catalog:minilm",
        "model.memory={neighbours: 16}",
    ]


def _pictured(root: Path, rows: list[dict[str, Any]], *, moving: bool) -> Path:
    """Each row begins with a colour and has a noisy picture of it; or a video, which shows it behind a grey one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from orchestration.probes import png, video

    draw, names, made = np.random.Generator(np.random.PCG64(1)), list(COLOURS), []
    for number, row in enumerate(rows):
        name = names[number % 4]
        noisy = np.array(COLOURS[name]) + draw.normal(0, 40, (40, 40, 3))
        shown = noisy.clip(0, 255).astype(np.uint8)
        picture = video(np.stack([np.full_like(shown, 128), shown, shown])) if moving else png(shown)
        made.append({"text": f"{name} {row['text']}", "image": picture, "label": "warm" if name == "red" else "cold"})
    pq.write_table(pa.Table.from_pylist(made), root / "rows.parquet")
    return root / "rows.parquet"


def _towers(name: str) -> list[str]:
    """Two small encoders."""
    family = "gpt2" if name == "captioning" else "bert"
    text = f"{{family: {family}, size: {NUMBERS}, tokenizer: catalog:minilm}}"
    grouped = ["model.contrast={width: 16, group: 4}"]
    classes = ["data.labels=[warm, cold]", "model.fusion.modality_dropout=0.4"]  # both draws are the rows' own
    compared = {"multimodal": classes, "captioning": [], "masked_multimodal": [], "video": classes[:1]}.get(
        name, grouped
    )
    beside = "" if name == "video" else f"text: {text}, "
    return [
        f"model.towers={{{beside}image: {{family: resnet, size: {NUMBERS}}}}}",
        f"data.image={{size: 32, frames: {3 if name == 'video' else 1}}}",
        *compared,
    ]


def events_of(folder: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> value of the losses that TensorBoard would show, read from the file's records."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the record, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            at += size + 16
    return {key: value for key, value in found.items() if key[0].endswith("/loss")}


def steps_of(fit: Any) -> list[dict[str, Any]]:
    return [event for event in fit.result.history if event["type"] == "step"]


def _taught(text: str) -> dict[str, Any]:
    """Words with tags; a question with its answer: the first word asks for the second one."""
    words = text.split()
    first, answer = words[0], words[1] if len(words) > 1 else ""
    start = text.index(answer, text.index(first) + len(first)) if answer else 0
    kinds = ["MARK" if not word.isalpha() else "LONG" if len(word) > 4 else "" for word in words]
    marks = ["I" if kind == before else "B" for kind, before in zip(kinds, ["", *kinds], strict=False)]
    return {
        "words": words,
        "size": "many" if len(words) > 12 else "few",
        "tags": [f"{mark}-{kind}" if kind else "O" for mark, kind in zip(marks, kinds, strict=True)],
        "question": f"What follows {first}?",
        "answer": answer,
        "start": start,
    }


@pytest.fixture(scope="module")
def inputs(job: Job) -> Inputs:
    return prepared(job)


def test_two_workers_give_the_numbers_of_one(job: Job, inputs: Inputs) -> None:
    """Ranks have unequal numbers of targets: the mean over all of them is what must come out."""
    found = check.checked(job, inputs, check_id="equal", steps=2)
    assert found.ok, found.worst()


def test_a_model_is_trained_exported_and_scored_beside_its_baselines(
    job: Job, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit = fitted(job, inputs, run_id="one")
    losses = [event["loss"] for event in fit.result.validations]
    assert losses[-1] < losses[0]
    assert fit.result.metric == METRICS[job.spec.model.task][0]
    wanted = {
        (f"{kind}/loss", event["step"]): event["loss"]
        for kind, events in (("train", steps_of(fit)), ("validation", fit.result.validations))
        for event in events
    }
    assert events_of(Path(job.storage.path("runs/one/tensorboard"))) == pytest.approx(wanted, rel=1e-6)
    if job.spec.wandb:
        rows = told(Path(job.storage.path("runs/one")))
        assert {(key, row["step"]): row[key] for row in rows for key in row if key.endswith("/loss")} == wanted
    model = exported(job, fit, store_rel=inputs.store.rel, weights_rel=inputs.weights.rel)
    opened = package.load(job.storage.fetch(model.package_rel))
    assert opened.task.config.task == job.spec.model.task
    report = evaluated(job, store_rel=inputs.store.rel, package_rel=model.package_rel, report_id="one")
    assert {*METRICS[job.spec.model.task], "rows"} - {"loss"} <= set(report)
    assert set(report["baselines"]) == BASELINES[job.spec.name.replace("-", "_")]
    shared = [key for key in report if key in next(iter(report["baselines"].values()))]
    assert all(math.isfinite(report[key]) for key in shared)
    assert shared
    assert job.storage.exists("reports/one/test.png")
    _check_report(job, report)
    if job.spec.name == "recall":
        _check_other_facts(job, opened)
    if job.spec.model.task == "heads":  # two workers with a teacher give the numbers of one, too
        taught = job.changed({"train.distill": {"teacher": f"storage:{model.package_rel}", "weight": 0.5}})
        found = check.checked(taught, inputs, check_id="taught", steps=2)
        assert found.ok, found.worst()


def _check_other_facts(job: Job, opened: package.Package) -> None:
    """The same run, exported with other facts: nothing is trained again, and what is remembered is theirs."""
    file = Path(job.storage.path("other.jsonl"))
    file.write_text('{"head": "nobody", "relation": "owes", "tail": "everybody"}\n')
    export.run(job.spec.override({"data.knowledge": {"path": str(file), "most": 0}}), run_id="one")
    newest = max(job.registry.versions(job.spec.name), key=lambda one: one.version)
    other = package.load(job.storage.fetch(newest.package_rel))
    assert other.knowledge is not None
    assert other.knowledge.texts == ["nobody owes everybody"]
    assert other.lineage["knowledge"]["path"] == str(file)
    assert other.lineage["knowledge"]["rel"] != opened.lineage["knowledge"]["rel"]
    assert recall.told(other.folder)["places"] < 10 < recall.told(opened.folder)["places"]
    weights = [(one.folder / "model.safetensors").read_bytes() for one in (opened, other)]
    assert weights[0] == weights[1]


def _check_report(job: Job, report: dict[str, Any]) -> None:
    """What decides has an interval; tags in BIO are scored by whole entities."""
    ranges = report["intervals"]
    low, high = ranges[METRICS[job.spec.model.task][0]]
    assert math.isfinite(low)
    assert low < high
    if job.spec.model.task == "tagging":
        assert {"entity_f1", "entity_MARK_f1"} <= {*report} & {*ranges} & {*report["baselines"]["most_frequent_tag"]}
    if job.spec.model.task == "spans":
        assert "text_f1" in ranges
    if job.spec.name == "recall":  # what the test rows say is in no training row
        assert report["memory"]["share"] > 0.1
        assert report["perplexity"] < 0.5 * report["baselines"]["without_memory"]["perplexity"]
    if job.spec.model.task == "seq2seq":
        assert "rouge_l" in ranges

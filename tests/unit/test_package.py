"""The package: written, reopened, refused. A real encoder cut to two layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration import inference, package_weights
from orchestration import package as packages
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage
from tests.packages import LABELS, PREPROCESSING, cut_encoder, task_package, trained_tensors

TEXTS = [
    "Lovely.",
    "A dull film, and far too long for what it has to say.",
    "fine " * 60,
    "The re\u0301sume\u0301 was fine.",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, Any]:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    weights_rel = cut_encoder(minilm, storage)
    tensors = trained_tensors(storage, weights_rel, seed=1)
    arguments = {
        "tensors": tensors,
        "weights_rel": weights_rel,
        "labels": LABELS,
        "preprocessing": PREPROCESSING,
        "lineage": {"run": "r1", "seed": 1},
    }
    return {"storage": storage, "arguments": arguments, "exported": packages.export(storage, **arguments)}


@pytest.fixture
def copy(made: dict[str, Any], tmp_path: Path) -> Path:
    """A package folder that a test may damage."""
    return Path(shutil.copytree(made["storage"].fetch(made["exported"].rel), tmp_path / "package"))


def test_package_opens_with_transformers_alone_and_gives_the_training_time_logits(made: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = made["storage"].fetch(made["exported"].rel)
    trained = packages.trained_model(
        made["storage"].fetch(made["arguments"]["weights_rel"]), made["arguments"]["tensors"], LABELS
    )
    model = AutoModelForSequenceClassification.from_pretrained(str(folder))
    batch = AutoTokenizer.from_pretrained(str(folder))(TEXTS[:2], padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.allclose(model.eval()(**batch).logits, trained(**batch).logits, atol=1e-5, rtol=0)
        ours_NC = packages.load(folder).logits(TEXTS[:2])
        assert np.allclose(model(**batch).logits.numpy(), ours_NC, atol=1e-5, rtol=0)
    assert model.config.id2label == dict(enumerate(LABELS))


def test_same_inputs_give_the_same_address_and_another_lineage_another(made: dict[str, Any]) -> None:
    assert packages.export(made["storage"], **made["arguments"]) == made["exported"]
    other = packages.export(made["storage"], **{**made["arguments"], "lineage": {"run": "r2", "seed": 1}})
    assert other.address != made["exported"].address


def test_logits_do_not_depend_on_company_order_or_batch_size(made: dict[str, Any]) -> None:
    package = packages.load(made["storage"].fetch(made["exported"].rel))
    alone_NC = np.concatenate([package.logits([text]) for text in TEXTS])
    assert alone_NC.dtype == np.float32
    assert alone_NC.shape == (4, 2)
    assert np.ptp(alone_NC[:, 0]) > 1e-3  # the texts do differ
    for micro_batch in (1, 2, 32):
        assert np.allclose(package.logits(TEXTS[::-1], micro_batch=micro_batch)[::-1], alone_NC, atol=1e-5, rtol=0)


def test_labels_scores_and_lineage_come_out_as_they_went_in(made: dict[str, Any]) -> None:
    package = packages.load(made["storage"].fetch(made["exported"].rel))
    assert package.labels == LABELS
    assert package.lineage == {"run": "r1", "seed": 1}
    for found, logits_C in zip(package.answer(TEXTS), package.logits(TEXTS), strict=True):
        assert found["label"] == LABELS[int(logits_C.argmax())]
        assert sum(found["scores"].values()) == pytest.approx(1.0)
        assert found["score"] == max(found["scores"].values())
        assert np.log(found["scores"][LABELS[0]] / found["scores"][LABELS[1]]) == pytest.approx(
            logits_C[0] - logits_C[1], abs=1e-5
        )


def test_a_text_is_called_truncated_only_where_tokens_were_lost(made: dict[str, Any]) -> None:
    package = packages.load(made["storage"].fetch(made["exported"].rel))
    room = PREPROCESSING["max_length"] - 2  # special tokens
    exact, over = package.encode(["fine " * room, "fine " * (room + 1)])
    assert (len(exact.ids), exact.truncated) == (PREPROCESSING["max_length"], False)
    assert (len(over.ids), over.truncated) == (PREPROCESSING["max_length"], True)


def test_cleaning_of_training_is_applied_when_serving(made: dict[str, Any]) -> None:
    package = packages.load(made["storage"].fetch(made["exported"].rel))
    composed, decomposed = package.encode(["caf\u00e9 \u212b", "  cafe\u0301 A\u030a\x00 "])
    assert composed.ids == decomposed.ids


def test_a_changed_byte_of_the_weights_is_refused_by_name(copy: Path) -> None:
    with open(copy / "model.safetensors", "r+b") as handle:
        handle.seek(-3, 2)
        handle.write(b"\x7f")
    with pytest.raises(DamagedError, match=r"model\.safetensors: sha256"):
        packages.load(copy)


def test_a_file_added_after_sealing_is_refused_by_name(copy: Path) -> None:
    (copy / "modeling_extra.py").write_text("raise SystemExit")
    with pytest.raises(DamagedError, match=r"modeling_extra\.py not in manifest\.json"):
        packages.load(copy)


def test_a_package_whose_files_agree_but_whose_logits_do_not_is_refused(copy: Path) -> None:
    from orchestration.storage import describe

    probe = json.loads((copy / "probe.json").read_text())
    probe["logits"][1][0] += 5e-4
    (copy / "probe.json").write_text(json.dumps(probe))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["probe.json"] = describe(copy / "probe.json")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="probe text 1"):
        packages.load(copy)


def test_a_package_that_reopens_with_other_weights_is_never_sealed(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that loses precision (here: half) must not get a package into storage."""
    written = package_weights.write
    monkeypatch.setattr(
        package_weights, "write", lambda folder, model, *a, **k: written(folder, _halved(model), *a, **k)
    )
    before = made["storage"].list("packages")
    with pytest.raises(UserError, match="must agree within 1e-05"):
        packages.export(made["storage"], **{**made["arguments"], "lineage": {"run": "r3"}})
    assert made["storage"].list("packages") == before


def _halved(model: Any) -> Any:
    import copy

    return copy.deepcopy(model).half()


def test_tensors_of_another_model_are_refused_with_their_names(made: dict[str, Any]) -> None:
    tensors = dict(made["arguments"]["tensors"])
    tensors["classifier.stray"] = tensors.pop("classifier.bias")
    with pytest.raises(UserError, match=r"classifier\.bias"):
        packages.export(made["storage"], **{**made["arguments"], "tensors": tensors})


def test_wrong_preprocessing_is_refused_with_what_is_expected(made: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"preprocessing.json.*expected"):
        packages.export(made["storage"], **{**made["arguments"], "preprocessing": {"clean": {}}})


def test_micro_batches_hold_every_row_once_and_waste_little_padding() -> None:
    lengths = [5, 120, 6, 7, 118, 5, 64, 6]
    groups = inference.micro_batches(lengths, 4)
    assert sorted(row for group in groups for row in group) == list(range(8))
    assert max(map(len, groups)) <= 4
    padded = sum(len(group) * max(lengths[row] for row in group) for group in groups)
    assert padded < 1.1 * sum(lengths)
    assert inference.micro_batches([], 4) == []


def test_the_torch_threads_of_the_process_are_left_as_they_were(made: dict[str, Any]) -> None:
    import torch

    package = packages.load(made["storage"].fetch(made["exported"].rel), threads=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        package.logits(TEXTS[:1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_that_ties_its_output_layer_to_the_embeddings_can_go_on_with_another_head(
    minilm: Path, tmp_path: Path, family: str
) -> None:
    import torch

    from models.config import ModelConfig
    from models.text import build

    storage = Storage(str(tmp_path))
    folder = storage.fetch(task_package("causal_lm", minilm, storage, family=family))
    whole = packages.load(folder).model
    going_on = build(ModelConfig(path=str(folder), task="classification"), folder, LABELS)
    assert torch.equal(going_on.get_input_embeddings().weight, whole.get_input_embeddings().weight)


def test_layers_that_share_weights_are_stored_once_and_shared_again_when_opened(minilm: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from models.config import ModelConfig
    from models.state import named_state
    from models.text import build

    storage = Storage(str(tmp_path))
    rel = cut_encoder(minilm, storage)
    config = ModelConfig(path=str(storage.fetch(rel)), share_layers=1)
    tensors = {
        name: value.detach().clone() for name, value in named_state(build(config, storage.fetch(rel), LABELS)).items()
    }
    made = packages.export(storage, tensors=tensors, weights_rel=rel, labels=LABELS, preprocessing=PREPROCESSING, lineage={}, model=config)  # fmt: skip
    folder = storage.fetch(made.rel)
    assert not [name for name in load_file(str(folder / "model.safetensors")) if ".layer.1." in name]
    first, second = packages.load(folder).model.bert.encoder.layer
    assert first.output.dense.weight is second.output.dense.weight
    again = build(ModelConfig(path=str(folder)), folder, LABELS)  # a spec whose model.path is the package
    assert again.bert.encoder.layer[1].output.dense.weight is again.bert.encoder.layer[0].output.dense.weight  # type: ignore[union-attr,index]

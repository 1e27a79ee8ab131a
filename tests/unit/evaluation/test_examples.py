from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

from models import attribution, tokens
from models.families import ModelError
from orchestration import package
from orchestration.evaluation import examples
from orchestration.storage import Storage
from tests.families import IMAGES, SMALL
from tests.packages import LABELS, PREPROCESSING, cut_encoder, trained_tensors


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_attributions_add_up_to_what_the_row_changes(family: str) -> None:
    torch.manual_seed(0)
    settings = AutoConfig.for_model(family, **SMALL[family], num_labels=3)
    model = AutoModelForSequenceClassification.from_config(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10.0 if parameter.ndim > 1 else 1.0)  # far from linear
    ids = torch.tensor([[2, 7, 9, 11, 5, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    score_L, gap = attribution.attribute(model, inputs, 1, blank_id=4)
    blank = torch.tensor([[2, 4, 4, 4, 4, 3]])
    with torch.no_grad():
        change = float((model(input_ids=ids).logits - model(input_ids=blank).logits)[0, 1])
    assert abs(change) > 1e-3
    assert float(score_L.sum()) + gap == pytest.approx(change, abs=1e-5)
    assert abs(gap) < 0.05 * float(score_L.abs().sum())
    assert score_L[0] == score_L[-1] == 0, "what begins and ends each row is in the blank row too"
    finer = attribution.attribute(model, inputs, 1, blank_id=4, steps=256)[1]
    assert abs(finer) <= abs(gap) + 1e-6


def test_patches_add_up_to_what_the_picture_changes() -> None:
    torch.manual_seed(0)
    settings = AutoConfig.for_model("vit", **{**IMAGES["vit"], "image_size": 32, "patch_size": 8}, num_labels=3)
    model = AutoModelForImageClassification.from_config(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0 if parameter.ndim > 1 else 1.0)
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 8:16, 16:24] = torch.randn(1, 3, 8, 8)  # one patch has something to see
    score_GG, gap = attribution.attribute_patches(model, {"pixel_values": pixels}, 2, side=8)
    with torch.no_grad():
        change = float((model(pixels).logits - model(torch.zeros_like(pixels)).logits)[0, 2])
    assert score_GG.shape == (4, 4)
    assert float(score_GG.sum()) + gap == pytest.approx(change, abs=1e-5)
    assert score_GG[1, 2] != 0
    assert score_GG.count_nonzero() == 1
    odd = attribution.attribute_patches(model, {"pixel_values": pixels}, 2, side=10)[0]
    assert odd.shape == (3, 3), "the rest counts to the last patches"
    shown = examples.page(
        [{"row_id": "a" * 32, "true": "x", "given": "x", "patches": score_GG.tolist(), "picture": "data:,"}], title="t"
    )
    assert shown.count("<i ") == 16


def test_a_model_without_input_embeddings_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no table of input embeddings"):
        attribution.attribute(torch.nn.Linear(2, 2), {"input_ids": torch.ones(1, 2)}, 0, blank_id=0)


def test_the_surest_mistakes_come_first_then_the_surest_right_answers() -> None:
    logits_NC = np.array([[5.0, 0.0], [0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.0, 9.0]], np.float32)
    assert examples.choose(logits_NC, np.array([0, 0, 0, 0, 1])) == [2, 1, 4, 0, 3]


def test_words_are_told_with_all_their_tokens_and_the_page_shows_them(tmp_path: Path, minilm: Path) -> None:
    storage = Storage(str(tmp_path))
    weights_rel = cut_encoder(minilm, storage)
    made = package.export(
        storage,
        tensors=trained_tensors(storage, weights_rel, 1),
        weights_rel=weights_rel,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        lineage={},
    )
    opened = package.load(storage.fetch(made.rel))
    assert examples.readable(opened)
    ids = np.asarray(opened.encode_clean(["An unforgettably <b>lovely film"])[0].ids)
    told = examples.words(opened.tokenizer.library, ids, [1.0] * len(ids), tokens.read(opened.folder))
    assert [text for text, _ in told] == ["an", "unforgettably", "<", "b", ">", "lovely", "film"]
    assert told[1][1] > 1.0, "a word has what its pieces have together"
    example = {"row_id": "ab" * 16, "true": "positive", "given": "negative", "words": told}
    shown = examples.page([example], title="t")
    assert "Surest mistakes" in shown
    assert "Surest right" not in shown
    assert "&lt;" in shown
    assert "<b>" not in shown

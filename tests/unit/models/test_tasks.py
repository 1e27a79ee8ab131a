"""What a model is fed, asked for and scored by, task by task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForTokenClassification

from models import loss, tasks, tokens
from models.config import METRICS, PAIRED, ModelConfig
from models.families import ModelError
from models.loss import IGNORED
from models.tasks import TASKS
from models.tasks.base import Rows
from orchestration.data import rng
from tests.families import SMALL

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)), *(f"##p{i}" for i in range(19))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece tokenizer of 64 entries."""
    made = tmp_path_factory.mktemp("tokenizer")
    special = [{"id": i, "content": word, "special": True} for i, word in enumerate(WORDS[:5])]
    model = {
        "type": "WordPiece",
        "continuing_subword_prefix": "##",
        "vocab": {word: i for i, word in enumerate(WORDS)},
    }
    (made / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": special}))
    (made / "config.json").write_text(json.dumps({"model_type": "bert", "decoder_start_token_id": 0}))
    return made


def _task(folder: Path, task: str, **model: Any) -> Any:
    return tasks.make(ModelConfig(path="tiny", task=task, **model), ["a", "b", "c"], folder)


def _rows(task: Any, *, count: int = 200, length: int = 60, epoch: int = 0) -> Rows:
    draw = np.random.Generator(np.random.PCG64(5))
    ids = [np.array([2, *draw.integers(5, 64, length - 2), 3], np.int32) for _ in range(count)]
    numbers = [
        rng.mix_array(rng.key("task", epoch, i), np.arange(task.draws * length)).reshape(-1, length)
        for i in range(count)
    ]
    return Rows(ids, random=numbers)


def test_every_task_of_the_spec_can_be_made_and_measures_what_the_spec_may_ask_for(folder: Path) -> None:
    assert set(TASKS) == set(METRICS)
    for name in TASKS:
        more: dict[str, Any] = {
            "contrastive": {"modalities": ["text", "image"]},
            "matching": {"modalities": ["text", "image"]},
            "captioning": {"modalities": ["text", "image"]},
            "denoising": {"denoising": {"style": "infilling"}},
        }.get(name, {})
        made = _task(folder, name, **more)
        found = made.scores(torch.ones(made.tallies, dtype=torch.float64), 1.0)
        assert {"loss", *found} == set(METRICS[name])


# ------------------------------------------------------------------------------------------------ masked language model


def test_masks_hide_the_share_that_the_spec_names_and_ask_for_just_those(folder: Path) -> None:
    task = _task(folder, "masked_lm")
    rows = _rows(task)
    inputs, targets = task.batch(rows, 0)
    asked_BL = targets["tokens"] != IGNORED
    ids_BL = torch.from_numpy(np.stack(rows.ids)).long()
    assert asked_BL.sum(1).tolist() == [9] * 200  # 15% of 58, rounded
    assert torch.equal(targets["tokens"][asked_BL], ids_BL[asked_BL])
    assert torch.equal(inputs["input_ids"][~asked_BL], ids_BL[~asked_BL])
    seen = inputs["input_ids"][asked_BL]
    masked, same = (seen == 4).float().mean(), (seen == ids_BL[asked_BL]).float().mean()
    assert 0.77 < masked < 0.83
    assert 0.08 < same < 0.13  # a random token may be the same by chance
    assert not torch.isin(seen[seen != 4], torch.arange(5)).any()  # no special token in its place
    assert not torch.isin(ids_BL[asked_BL], torch.arange(5)).any()
    assert task.count(rows) == int(asked_BL.sum())


def test_masks_are_the_same_whatever_rows_stand_beside_and_others_in_another_epoch(folder: Path) -> None:
    task = _task(folder, "masked_lm")
    rows = _rows(task)
    whole, _ = task.batch(rows, 0)
    part, _ = task.batch(Rows(rows.ids[7:9], random=rows.random[7:9]), 0)  # type: ignore[index]
    assert torch.equal(part["input_ids"], whole["input_ids"][7:9])
    other, _ = task.batch(_rows(task, epoch=1), 0)
    assert (other["input_ids"] != whole["input_ids"]).float().mean() > 0.15


def test_whole_words_are_hidden_whole(folder: Path) -> None:
    task = _task(folder, "masked_lm", masking={"whole_words": True})
    rows = _rows(task)
    _, targets = task.batch(rows, 0)
    asked_BL = (targets["tokens"] != IGNORED).numpy()
    for row, asked in zip(rows.ids, asked_BL, strict=True):
        for at in range(2, len(row)):
            if WORDS[row[at]].startswith("##") and not WORDS[row[at - 1]].startswith("["):
                assert asked[at] == asked[at - 1]
    assert 0.14 < asked_BL[:, 1:-1].mean() < 0.20
    assert task.count(rows) == asked_BL.sum()


def test_a_row_of_special_tokens_alone_asks_for_nothing(folder: Path) -> None:
    for whole in (False, True):
        task = _task(folder, "masked_lm", masking={"whole_words": whole})
        rows = Rows([np.array([2, 3], np.int32)], random=[np.ones((3, 2), np.uint64)])
        inputs, targets = task.batch(rows, 0)
        assert inputs["input_ids"].tolist() == [[2, 3]]
        assert (targets["tokens"] == IGNORED).all()
        assert task.count(rows) == 0


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}}))
    with pytest.raises(ModelError, match=r"model\.task=masked_lm needs a mask token, and the tokenizer has none"):
        tasks.make(ModelConfig(path="tiny", task="masked_lm"), [], tmp_path)


# ------------------------------------------------------------------------------------------------ causal language model


def test_a_causal_model_is_asked_for_the_next_token_of_the_same_text(folder: Path) -> None:
    task = _task(folder, "causal_lm")
    ids = [np.array([5, 6, 7, 8], np.int32), np.array([9, 10], np.int32)]
    targets = task.targets(Rows(ids))["tokens"]
    assert targets.tolist() == [[6, 7, 8, IGNORED], [10, IGNORED, IGNORED, IGNORED]]
    assert task.count(Rows(ids)) == 4
    packed = Rows(ids, segments=[[3, 1], [1, 1]])
    assert task.targets(packed)["tokens"].tolist() == [[6, 7, IGNORED, IGNORED], [IGNORED] * 4]
    assert task.count(packed) == 2


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "masked_lm"),
        ("roberta", "masked_lm"),
        ("distilbert", "masked_lm"),
        ("bert", "sentence_order"),
        ("bert", "next_sentence"),
        ("albert", "sentence_order"),
    ],
)
def test_an_output_at_the_hidden_tokens_alone_changes_neither_loss_nor_gradients_nor_scores(
    folder: Path, family: str, name: str
) -> None:
    import transformers

    torch.manual_seed(0)
    size = {**SMALL["bert" if family == "albert" else family], "vocab_size": 64, "max_position_embeddings": 70}
    settings = AutoConfig.for_model(family, **size)
    model = getattr(transformers, tasks.auto_class(name)).from_config(settings).eval()
    found = []
    for adapt in (False, True):
        task = _task(folder, name)
        if adapt:
            task.adapt(model)
        rows = _rows(task, count=4, length=12)
        pairs = [3, 5, 6, 4] if name in PAIRED else None
        rows = Rows([rows.ids[0][:7], *rows.ids[1:]], random=[rows.random[0][:, :7], *rows.random[1:]], pair_at=pairs)
        inputs, targets = task.batch(rows, 0)
        assert ("asked" in inputs) == adapt
        model.zero_grad()
        logits = task.read(model(**inputs))
        weight_B = torch.tensor([1.0, 1.0, 0.0, 1.0])
        summed, count = task.loss(logits, targets, weight_B)
        summed.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((summed.detach(), count, task.tally(logits, targets, weight_B), gradients))
    (one, one_count, one_tally, one_gradients), (two, two_count, two_tally, two_gradients) = found
    assert one_count == two_count > 0
    assert torch.equal(one_tally, two_tally)
    torch.testing.assert_close(two, one)
    for a, b in zip(one_gradients, two_gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    whole = task.read(model(input_ids=torch.tensor([[2, 4, 3]])))
    assert (whole[0] if name in PAIRED else whole).shape == (1, 3, 64), "who asks for nothing gets all"
    other = AutoModelForTokenClassification.from_config(settings)
    assert not _task(folder, "masked_lm").adapt(other), "a head that is not known is left alone"


@pytest.mark.parametrize(("family", "task"), [("gpt2", "causal_lm"), ("llama", "causal_lm"), ("bert", "masked_lm")])
def test_a_packed_row_gives_the_losses_of_its_texts_alone(folder: Path, family: str, task: str) -> None:
    import transformers
    from transformers import AutoConfig

    from tests.families import SMALL

    torch.manual_seed(0)
    made = _task(folder, task)
    config = AutoConfig.for_model(family, **{**SMALL[family], "vocab_size": 64})
    model = getattr(transformers, TASKS[task][0]).from_config(config).eval()
    texts = [np.array(row, np.int32) for row in ([9, 8, 7, 6, 5], [20, 21, 22], [30, 31, 32, 33])]
    numbers = [rng.mix_array(i, np.arange(3 * len(row))).reshape(3, -1) for i, row in enumerate(texts)]

    def losses(rows: Rows) -> tuple[float, float]:
        inputs, targets = made.batch(rows, 0)
        with torch.no_grad():
            summed, count = made.loss(model(**inputs).logits, targets, torch.ones(len(rows)))
        assert int(count) == made.count(rows)
        return float(summed), float(count)

    alone = np.sum([losses(Rows([row], random=[one])) for row, one in zip(texts, numbers, strict=True)], axis=0)
    if task == "masked_lm":  # masks of a packed row are drawn for the row: hide the same tokens by hand
        hidden = [made.batch(Rows([row], random=[one]), 0) for row, one in zip(texts, numbers, strict=True)]
        seen = np.concatenate([inputs["input_ids"][0].numpy() for inputs, _ in hidden])
        asked = torch.cat([targets["tokens"][0] for _, targets in hidden])[None]
        inputs = super(type(made), made).inputs(Rows([seen], segments=[[5, 3, 4]]), 0)
        with torch.no_grad():
            summed, count = made.loss(model(**inputs).logits, {"tokens": asked}, torch.ones(1))
        found = (float(summed), float(count))
    else:
        found = losses(Rows([np.concatenate(texts)], segments=[[5, 3, 4]]))
    assert found == pytest.approx(tuple(alone), rel=1e-5)


# ------------------------------------------------------------------------------------------------ losses and scores


def test_the_loss_of_tokens_is_torchs_and_a_row_of_weight_zero_moves_nothing() -> None:
    logits = torch.randn(3, 5, 7, requires_grad=True)
    targets = torch.randint(0, 7, (3, 5))
    targets[0, 2:] = IGNORED
    weight_B = torch.tensor([1.0, 1.0, 0.0])
    summed, count = loss.tokens(logits, targets, weight_B, smoothing=0.1)
    wanted = torch.nn.functional.cross_entropy(
        logits[:2].reshape(-1, 7), targets[:2].reshape(-1), ignore_index=IGNORED, reduction="sum", label_smoothing=0.1
    )
    assert float(summed) == pytest.approx(float(wanted), rel=1e-6)
    assert int(count) == 7
    summed.backward()
    assert logits.grad is not None
    assert not logits.grad[2].any()
    nothing, none = loss.tokens(logits, torch.full((3, 5), IGNORED), weight_B)
    assert (float(nothing), int(none)) == (0.0, 0)
    nothing.backward()  # every rank's backward pass runs


def test_scores_of_numbers_are_numpys_however_they_are_added_up(folder: Path) -> None:
    task = _task(folder, "regression")
    found, wanted = torch.randn(50, 1), torch.randn(50)
    weight_B = torch.ones(50)
    weight_B[40:] = 0
    parts = [
        task.tally(found[at : at + 10], {"values": wanted[at : at + 10]}, weight_B[at : at + 10])
        for at in range(0, 50, 10)
    ]
    scores = task.scores(torch.stack(parts).sum(0), 0.0)
    x, y = found[:40, 0].double().numpy(), wanted[:40].double().numpy()
    assert scores["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert scores["mae"] == pytest.approx(np.abs(x - y).mean())
    assert scores["rmse"] == pytest.approx(np.sqrt(((x - y) ** 2).mean()))


def test_tags_are_counted_at_the_words_alone(folder: Path) -> None:
    task = _task(folder, "tagging")
    rows = Rows([np.arange(4), np.arange(2)], {"targets": [np.array([IGNORED, 0, 2, IGNORED]), np.array([1, 1])]})
    targets = task.targets(rows)
    assert targets["tags"].tolist() == [[IGNORED, 0, 2, IGNORED], [1, 1, IGNORED, IGNORED]]
    assert task.count(rows) == 4
    logits = torch.zeros(2, 4, 3)
    logits[..., 1] = 1.0
    scores = task.scores(task.tally(logits, targets, torch.ones(2)), 0.0)
    assert scores["accuracy"] == 0.5


def test_what_goes_on_a_word_is_known_for_every_kind_of_tokenizer(tmp_path: Path) -> None:
    def vocabulary(model: dict[str, Any], **more: Any) -> tokens.Vocabulary:
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, **more}))
        return tokens.read(tmp_path)

    byte = vocabulary({"type": "BPE", "vocab": {"Ġthe": 0, "se": 1, "!": 2}}, pre_tokenizer={"type": "ByteLevel"})
    assert byte.continues_V.tolist() == [False, True, False]
    unigram = vocabulary({"type": "Unigram", "vocab": [["▁the", -1.0], ["se", -2.0]]})
    assert unigram.continues_V.tolist() == [False, True]

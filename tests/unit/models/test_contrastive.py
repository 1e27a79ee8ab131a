"""The contrastive task: its loss is CLIP's, and groups make it the same for any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from models import tasks
from models.config import ModelConfig
from orchestration.data import order
from orchestration.evaluation.retrieval import chance, recalls

CONFIG = {"path": "p", "modalities": ["text", "image"], "task": "contrastive", "contrast": {"width": 8, "group": 4}}


def _task() -> Any:
    return tasks.make(ModelConfig.model_validate(CONFIG), [], Path("p"))


def _logits(rows: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(rows, 2, 8, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=-1) * torch.tensor([14.3, 1.0])[:, None]


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_loss_and_its_gradient_are_those_of_transformers_clip(rows: int) -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    ours, theirs = (_logits(rows).requires_grad_() for _ in range(2))
    summed, count = _task().loss(ours, {}, torch.ones(rows))
    wanted = image_text_contrastive_loss(theirs[:, 0] @ theirs[:, 1].T)
    (summed / count).backward()
    wanted.backward()
    assert float((summed / count).detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)  # type: ignore[arg-type]


def test_a_group_that_only_fills_a_rank_counts_nothing() -> None:
    task = _task()
    summed, count = task.loss(_logits(1), {}, torch.zeros(1))
    assert (float(summed), float(count)) == (0.0, 0.0)
    assert task.tally(_logits(1), {}, torch.zeros(1)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [3, 8, 12, 13])
def test_groups_are_the_same_for_any_number_of_workers(world: int, rows: int) -> None:
    batch = np.random.Generator(np.random.PCG64(1)).permutation(rows)
    dealt = [order.rank_groups(batch, rank=rank, world=world, group=4) for rank in range(world)]
    assert len({len(parts) for parts in dealt}) == 1
    found = {tuple(part.tolist()) for parts in dealt for part in parts if len(part)}
    assert found == {tuple(batch[at : at + 4].tolist()) for at in range(0, rows, 4)}


def test_recall_counts_how_far_down_the_other_side_is() -> None:
    units = np.eye(4)
    second = units[[0, 1, 3, 2]]  # rows 2 and 3 have each other's picture
    found = recalls(np.concatenate([units, second], axis=1), ("text", "image"), 2)
    assert found["recall_at_1"] == 0.5  # rows 2 and 3 make one of two groups
    assert found["text_to_image_recall_at_1"] == found["image_to_text_recall_at_1"] == 0.5
    assert found["text_to_image_recall_at_5"] == 1.0
    by_chance = chance(4, ("text", "image"), 2)
    assert (by_chance["text_to_image_recall_at_1"], by_chance["recall_at_1"]) == (0.25, 0.5)
    assert set(by_chance) == set(found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modalities": ["image"]}, "compares two towers"),
        ({"task": "classification"}, "contrast belongs to the tasks contrastive, matching, next_sentence"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig.model_validate({**CONFIG, **values})


# ------------------------------------------------------------------------------------------------ matching


@pytest.mark.parametrize("fusion", [None, {"kind": "concat"}, {"kind": "decision"}])
def test_matching_refuses_a_fusion_that_adds(fusion: dict[str, Any] | None) -> None:
    towers = {"text": {"path": "p"}, "image": {"family": "vit"}}
    with pytest.raises(ValueError, match=r"set fusion\.kind to product, gated"):
        ModelConfig.model_validate({"towers": towers, "fusion": fusion, "task": "matching"})
    ModelConfig.model_validate({"towers": towers, "fusion": {"kind": "product"}, "task": "matching"})


def _matching(tmp_path: Path) -> Any:
    from tests.tiny import make_tokenizer

    make_tokenizer(tmp_path, "bert")
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    values = {"path": str(tmp_path), "modalities": ["text", "image"], "task": "matching", "contrast": {"group": 4}}
    return tasks.make(ModelConfig.model_validate(values), [], tmp_path)


def _rows(texts: list[int]) -> Any:
    from models.inputs import Rows

    pictures = [np.full((1, 8, 8, 3), number, np.uint8) for number in range(len(texts))]
    return Rows([np.array([2, text, 3], np.int32) for text in texts], media={"image": pictures})


def test_each_row_is_shown_with_its_own_text_and_with_the_next_one_s(tmp_path: Path) -> None:
    task = _matching(tmp_path)
    inputs, targets = task.batch(_rows([10, 11, 12]), 0)
    assert inputs["input_ids"][:, 1].tolist() == [10, 11, 12, 11, 12, 10]
    assert torch.equal(inputs["pixel_values"][:3], inputs["pixel_values"][3:])
    assert targets["match"].tolist() == [1, 1, 1, 0, 0, 0]
    given = task.given(_rows([10, 11, 12]), 0)
    assert given["input_ids"][:, 1].tolist() == [10, 11, 12]


def test_a_borrowed_text_that_is_the_row_s_own_asks_for_nothing_and_counts_agree(tmp_path: Path) -> None:
    """The count of a whole batch is what the losses of its groups count."""
    task, texts = _matching(tmp_path), [10, 10, 12, 13, 14, 15, 16, 17, 18]  # the last stands alone in its group
    assert task.targets(_rows([10, 10, 12]))["match"].tolist() == [1, 1, 1, -100, 0, 0]
    counts = []
    for at in range(0, len(texts), 4):
        group = _rows(texts[at : at + 4])
        logits = torch.randn(2 * len(group), 2)
        summed, count = task.loss(logits, task.targets(group), torch.ones(len(group)))
        assert torch.isfinite(summed)
        assert task.tally(logits, task.targets(group), torch.ones(len(group))).sum() == count
        counts.append(float(count))
    assert task.count(_rows(texts)) == sum(counts) == 16
    assert float(task.loss(torch.randn(2, 2), task.targets(_rows([10])), torch.zeros(1))[1]) == 0.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.loss import classification
from models.processing import collate

LOGITS_BC = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 4.0]])
LABELS_B = torch.tensor([0, 2, 1])


def _by_hand(row: int) -> float:
    scores = LOGITS_BC[row].tolist()
    return math.log(sum(map(math.exp, scores))) - scores[int(LABELS_B[row])]


def test_loss_is_a_sum_over_rows_and_their_count() -> None:
    summed, count = classification(LOGITS_BC, LABELS_B, torch.ones(3))
    assert float(summed) == pytest.approx(sum(map(_by_hand, range(3))))
    assert float(count) == 3.0


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    whole, _ = classification(LOGITS_BC, LABELS_B, torch.ones(3))
    parts = [classification(LOGITS_BC[i : i + 1], LABELS_B[i : i + 1], torch.ones(1))[0] for i in range(3)]
    assert float(sum(parts)) == pytest.approx(float(whole))


def test_a_row_of_weight_zero_changes_neither_the_sum_nor_the_count_nor_a_gradient() -> None:
    logits_BC = LOGITS_BC.clone().requires_grad_()
    summed, count = classification(logits_BC, LABELS_B, torch.tensor([1.0, 0.0, 0.5]))
    assert float(summed.detach()) == pytest.approx(_by_hand(0) + 0.5 * _by_hand(2))
    assert float(count) == 1.5
    summed.backward()
    assert logits_BC.grad is not None
    assert logits_BC.grad[1].abs().max() == 0.0
    assert logits_BC.grad[2].abs().max() > 0.0


def test_smoothing_spreads_its_share_evenly_over_all_classes() -> None:
    summed, _ = classification(LOGITS_BC[:1], LABELS_B[:1], torch.ones(1), smoothing=0.3)
    minus_log = (-LOGITS_BC[0].log_softmax(-1)).tolist()
    assert float(summed) == pytest.approx(0.8 * minus_log[0] + 0.1 * minus_log[1] + 0.1 * minus_log[2])


def test_loss_is_taken_in_fp32_whatever_the_logits() -> None:
    assert classification(LOGITS_BC.bfloat16(), LABELS_B, torch.ones(3))[0].dtype == torch.float32


def test_rows_are_padded_on_the_right_to_the_longest_and_masked() -> None:
    ids_BL, mask_BL = collate([[5, 6, 7], np.array([8], dtype=np.int32)], pad_id=3)
    assert ids_BL.tolist() == [[5, 6, 7], [8, 3, 3]]
    assert mask_BL.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids_BL.dtype == mask_BL.dtype == torch.int64


def test_a_row_without_tokens_is_all_padding_and_no_rows_are_refused() -> None:
    ids_BL, mask_BL = collate([[]], pad_id=0)
    assert (ids_BL.tolist(), mask_BL.tolist()) == ([[0]], [[0]])
    with pytest.raises(ValueError, match="at least one row"):
        collate([], pad_id=0)

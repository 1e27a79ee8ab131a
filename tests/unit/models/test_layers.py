from __future__ import annotations

import math

import pytest
import torch

from models.families import ModelError
from models.layers import Attention, Block, Stack, length_mask, masked_mean, masked_softmax
from models.reference import MultiHead


def test_attention_is_that_of_the_reference() -> None:
    torch.manual_seed(1)
    fast, slow = Attention(12, 3), MultiHead(12, 3)
    slow.load_state_dict(fast.state_dict())
    query_BQD, key_BKD = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    mask_BK = length_mask(torch.tensor([6, 2]), 6)
    wanted = slow(query_BQD, key_BKD, mask_BK[:, None, None, :])
    assert torch.allclose(fast(query_BQD, key_BKD, mask_BK), wanted, atol=1e-6)


def test_attention_takes_keys_of_another_width() -> None:
    found = Attention(12, 3, key_width=5)(
        torch.randn(2, 4, 12), torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool)
    )
    assert found.shape == (2, 4, 12)


@pytest.mark.parametrize("train", [False, True])
def test_a_row_without_keys_sees_nothing_whatever_stands_there(train: bool) -> None:
    torch.manual_seed(2)
    layer = Attention(8, 2, dropout=0.1).train(train)
    mask_BK = torch.tensor([[False, False], [True, False]])
    query_BQD = torch.randn(2, 3, 8)
    found = layer(query_BQD, torch.randn(2, 2, 8), mask_BK)
    assert torch.allclose(found[0], layer.output.bias.expand(3, 8), atol=1e-7)
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


def test_a_stack_gives_a_row_the_same_alone_and_padded_and_zero_on_padding() -> None:
    torch.manual_seed(3)
    stack = Stack(8, 2, depth=3).eval()
    hidden_BLD = torch.randn(3, 7, 8)
    mask_BL = length_mask(torch.tensor([7, 4, 0]), 7)
    hidden_BLD[~mask_BL] = float("nan")
    found = stack(hidden_BLD, mask_BL.long())
    assert torch.allclose(found[1, :4], stack(hidden_BLD[1:2, :4], mask_BL[1:2, :4])[0], atol=1e-6)
    assert not found[~mask_BL].any()
    assert float(found[mask_BL].detach().std()) > 0.5


def test_blocks_write_their_own_tokens_and_read_the_others() -> None:
    torch.manual_seed(4)
    block = Block(8, 2, 16, cross=True).eval()
    hidden_BLD, other_BKD = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    mask_BK = length_mask(torch.tensor([4]), 5)
    before = block(hidden_BLD, mask_BK, other_BKD)
    assert before.shape == (1, 3, 8)
    other_BKD[:, 4] += 1.0
    assert torch.equal(block(hidden_BLD, mask_BK, other_BKD), before)
    other_BKD[:, 3] += torch.randn(8)
    assert not torch.allclose(block(hidden_BLD, mask_BK, other_BKD), before, atol=1e-4)


def test_the_mean_counts_what_is_there() -> None:
    hidden_BLD = torch.tensor([[[1.0], [3.0], [float("nan")]], [[float("nan")]] * 3])
    assert masked_mean(hidden_BLD, torch.tensor([[1, 1, 0], [0, 0, 0]])).tolist() == [[2.0], [0.0]]


def test_shares_add_up_to_one_over_what_is_there_and_to_nothing_where_nothing_is() -> None:
    mask_BL = torch.tensor([[True, False, True], [False, False, False]])
    found = masked_softmax(torch.tensor([[[0.0], [9.0], [1.0]], [[1.0], [2.0], [3.0]]]), mask_BL)
    assert torch.allclose(found[0, :, 0], torch.tensor([1 / (1 + math.e), 0.0, math.e / (1 + math.e)]))
    assert not found[1].any()


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ModelError, match="width of 8 cannot be split into 3 heads"):
        Attention(8, 3)

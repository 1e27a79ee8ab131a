from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from models.families import ModelError
from models.reference import MultiHead, Seq2Seq, Transformer, attention, causal_mask, from_torch, positions

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of the peer: a fast path it does not take

SMALL: dict[str, Any] = {
    "d_model": 16,
    "nhead": 4,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "dim_feedforward": 24,
}


def _peer(**changes: Any) -> nn.Transformer:
    torch.manual_seed(1)
    peer = nn.Transformer(**{**SMALL, "batch_first": True, **changes})
    with torch.no_grad():  # biases and gains that differ from 0 and 1, so that a copy forgotten shows
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return peer.eval()


def _mask(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_with_copied_weights_it_gives_what_torch_gives(norm_first: bool, batch_first: bool) -> None:
    peer = _peer(norm_first=norm_first, batch_first=batch_first)
    source_BSD, target_BTD = torch.randn(3, 7, 16), torch.randn(3, 5, 16)
    source_mask_BS, target_mask_BT = _mask([7, 2, 5]), _mask([3, 5, 1])
    swap = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    wanted = swap(
        peer(
            swap(source_BSD),
            swap(target_BTD),
            tgt_mask=~causal_mask(5),
            src_key_padding_mask=~source_mask_BS,
            memory_key_padding_mask=~source_mask_BS,
            tgt_key_padding_mask=~target_mask_BT,
        )
    )
    found = from_torch(peer)(source_BSD, target_BTD, source_mask_BS, target_mask_BT)
    assert torch.allclose(found, wanted, atol=1e-5)
    plain = swap(peer(swap(source_BSD), swap(target_BTD), tgt_mask=~causal_mask(5)))
    assert torch.allclose(from_torch(peer)(source_BSD, target_BTD), plain, atol=1e-5)
    assert not torch.allclose(plain, wanted, atol=0.01)  # the masks did something


def test_gradients_are_those_of_torch() -> None:
    peer = _peer()
    mine = from_torch(peer)
    source_BSD, target_BTD = torch.randn(2, 6, 16), torch.randn(2, 4, 16)
    weight_BTD = torch.randn(2, 4, 16)
    (peer(source_BSD, target_BTD, tgt_mask=~causal_mask(4)) * weight_BTD).sum().backward()
    (mine(source_BSD, target_BTD) * weight_BTD).sum().backward()
    theirs = peer.decoder.layers[1].multihead_attn.in_proj_weight.grad
    ours = mine.decoder[1].source_attention
    assert torch.allclose(
        torch.cat([ours.query.weight.grad, ours.key.weight.grad, ours.value.weight.grad]), theirs, atol=1e-5
    )
    assert torch.allclose(mine.encoder[0].feed.first.weight.grad, peer.encoder.layers[0].linear1.weight.grad, atol=1e-5)


def test_attention_is_its_formula_written_as_loops() -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 4)
    mask = torch.tensor([True, False, True, True, False])
    found = attention(query, key, value, mask[None, None, None])
    for i in range(3):
        weights = [
            math.exp(sum(float(a * b) for a, b in zip(query[0, 0, i], key[0, 0, j], strict=True)) / 2.0)
            if mask[j]
            else 0.0
            for j in range(5)
        ]
        for column in range(4):
            wanted = sum(w * float(value[0, 0, j, column]) for j, w in enumerate(weights)) / sum(weights)
            assert float(found[0, 0, i, column]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("width", [6, 7])
def test_positions_are_the_papers_sinusoids(width: int) -> None:
    found = positions(50, width)
    assert found.shape == (50, width)
    for place in (0, 1, 7, 49):
        for column in range(width):
            angle = place / 10000 ** ((column - column % 2) / width)
            assert float(found[place, column]) == pytest.approx((math.cos if column % 2 else math.sin)(angle), abs=1e-6)


def test_a_shift_of_positions_is_a_rotation_that_does_not_depend_on_the_place() -> None:
    """Why the paper chose sinusoids: PE(p + k) is a linear function of PE(p)."""
    place_LD = positions(60, 8).double()
    fit = torch.linalg.lstsq(place_LD[:40], place_LD[5:45]).solution
    assert torch.allclose(place_LD[15:55] @ fit, place_LD[20:60], atol=1e-3)


def test_what_comes_later_in_the_target_changes_nothing_before() -> None:
    torch.manual_seed(3)
    model = Seq2Seq(20, Transformer(width=16, heads=2, inner=16, encoder_layers=1, decoder_layers=2)).eval()
    source_BS, target_BT = torch.randint(20, (2, 6)), torch.randint(20, (2, 5))
    before = model(source_BS, target_BT)
    target_BT[:, 3] = (target_BT[:, 3] + 1) % 20
    after = model(source_BS, target_BT)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)
    source_BS[:, 5] = (source_BS[:, 5] + 1) % 20
    assert not torch.allclose(model(source_BS, target_BT)[:, 0], after[:, 0], atol=1e-4)


def test_an_embedding_is_scaled_by_the_root_of_the_width_and_its_place_added() -> None:
    model = Seq2Seq(20, Transformer(width=16, heads=2, inner=16, encoder_layers=1, decoder_layers=1)).eval()
    wanted = 4 * model.embedding.weight[[7, 7]] + positions(2, 16)
    assert torch.allclose(model.embed(torch.tensor([[7, 7]]))[0], wanted, atol=1e-6)


def test_padding_of_source_and_target_changes_no_logit() -> None:
    torch.manual_seed(4)
    model = Seq2Seq(20, Transformer(width=16, heads=2, inner=16, encoder_layers=2, decoder_layers=2)).eval()
    source_BS, target_BT = torch.randint(20, (1, 4)), torch.randint(20, (1, 3))
    alone = model(source_BS, target_BT)
    padded = model(
        nn.functional.pad(source_BS, (0, 3), value=9),
        nn.functional.pad(target_BT, (0, 2), value=9),
        _mask([4, 7])[:1],
        _mask([3, 5])[:1],
    )
    assert torch.allclose(padded[:, :3], alone, atol=1e-5)


def test_it_learns_to_write_a_sequence_backwards() -> None:
    torch.manual_seed(5)
    model = Seq2Seq(
        8, Transformer(width=32, heads=4, inner=64, encoder_layers=1, decoder_layers=1, dropout=0.0), dropout=0.0
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        source_BS = torch.randint(1, 8, (64, 4))
        wanted_BT = source_BS.flip(1)
        logits_BTV = model(source_BS, nn.functional.pad(wanted_BT[:, :-1], (1, 0)))  # 0 begins a target
        loss = nn.functional.cross_entropy(logits_BTV.flatten(0, 1), wanted_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source_BS = torch.randint(1, 8, (100, 4))
    written_BT = torch.zeros(100, 1, dtype=torch.int64)
    for _ in range(4):
        written_BT = torch.cat([written_BT, model.eval()(source_BS, written_BT)[:, -1:].argmax(-1)], dim=1)
    assert float((written_BT[:, 1:] == source_BS.flip(1)).all(1).float().mean()) > 0.9


def test_what_the_paper_does_not_have_is_refused() -> None:
    with pytest.raises(ModelError, match="16 cannot be split into 3 heads"):
        MultiHead(16, 3)
    with pytest.raises(ModelError, match="norm='both'"):
        Transformer(norm="both")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="relu"):
        from_torch(_peer(activation="gelu"))
    with pytest.raises(ModelError, match="bias=True"):
        from_torch(nn.Transformer(**SMALL, bias=False))
    with pytest.raises(ModelError, match="makes itself"):
        from_torch(nn.Transformer(**SMALL, custom_encoder=nn.Identity()))

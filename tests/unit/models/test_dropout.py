from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from models import dropout
from tests.families import SMALL

SHAPE = (2, 3, 5, 4)  # B, H, Q, E


def ask(keys: int = 7, heads: int = 3) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    query = torch.randn(SHAPE, requires_grad=True)
    key, value = (torch.randn(2, heads, keys, 4, requires_grad=True) for _ in range(2))
    return query, key, value


def by_formula(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, rate: float
) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2) / 2.0  # the root of 4
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    share = scores.softmax(-1)
    torch.manual_seed(11)
    return share * dropout.kept((6, 5, key.shape[2]), rate).view(2, 3, 5, -1) @ value


def small(family: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = AutoConfig.for_model(family, **{**SMALL[family], **more})
    return AutoModel.from_config(settings, attn_implementation="sdpa").train()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_met_and_the_mean_stays_one(rate: float) -> None:
    torch.manual_seed(1)
    kept = dropout.kept((400, 1000), rate)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate), abs=1e-3)]
    assert float((kept == 0).float().mean()) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 400_000) ** 0.5)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)


def test_masks_follow_torchs_seed_and_differ_from_call_to_call() -> None:
    torch.manual_seed(5)
    first, second = dropout.kept((3, 7), 0.5), dropout.kept((3, 7), 0.5)
    torch.manual_seed(5)
    assert torch.equal(first, dropout.kept((3, 7), 0.5))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("masked", ["not", "bool", "added", "causal"])
def test_attention_and_its_gradients_are_those_of_the_formula(masked: str) -> None:
    seen = torch.rand(2, 1, 5, 7) > 0.3
    seen[..., 0] = True
    masks = {"bool": seen, "added": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}
    wanted_by = {**masks, "causal": torch.ones(5, 7, dtype=torch.bool).tril()}
    found, wanted = [], []
    for results, causal in ((found, masked == "causal"), (wanted, False)):
        query, key, value = ask()
        if results is found:
            torch.manual_seed(11)
            out = dropout.attend(query, key, value, masks.get(masked), rate=0.25, causal=causal)
        else:
            out = by_formula(query, key, value, wanted_by.get(masked), 0.25)
        (out * torch.arange(4.0)).sum().backward()
        results += [out.detach(), query.grad, key.grad, value.grad]
    for ours, formula in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-5, atol=1e-6)


def test_a_learned_bias_keeps_its_gradient() -> None:
    query, key, value = ask()
    bias = torch.zeros(5, 7, requires_grad=True)
    dropout.attend(query, key, value, bias, rate=0.25).sum().backward()
    assert bias.grad is not None


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "llama", "bart", "t5"])
def test_a_quickened_model_evaluates_as_before_and_drops_in_training(family: str) -> None:
    more = {"num_key_value_heads": 1, "attention_dropout": 0.1} if family == "llama" else {}
    plain, quick = small(family, **more), small(family, **more)
    dropout.quicken(quick)
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    asked = {"input_ids": ids, "attention_mask": mask}
    asked |= {"decoder_input_ids": ids} if family in ("t5", "bart") else {}
    with torch.no_grad():
        plain.eval(), quick.eval()
        torch.testing.assert_close(quick(**asked)[0], plain(**asked)[0], rtol=0, atol=0)
        quick.train()
        torch.manual_seed(2)
        once, again = quick(**asked)[0], quick(**asked)[0]
        torch.manual_seed(2)
        assert torch.equal(once, quick(**asked)[0])
        assert not torch.equal(once, again)


def test_activation_checkpoints_replay_the_same_masks() -> None:
    gradients = []
    for kept in (True, False):
        model = small("bert")
        dropout.quicken(model)
        if not kept:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(4)
        model(input_ids=torch.arange(3, 15).view(2, 6))[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_attention_in_half_precision_is_computed_in_full() -> None:
    query, key, value = ask()
    half = [one.detach().bfloat16().requires_grad_() for one in (query, key, value)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(11)
        out = dropout.attend(*half, rate=0.25)
        out.float().sum().backward()
    wanted = by_formula(*[one.detach().float().requires_grad_() for one in half], None, 0.25)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=1e-2, atol=1e-2)
    assert all(one.grad is not None and torch.isfinite(one.grad).all() for one in half)

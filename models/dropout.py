"""Dropout on a CPU at the price of its arithmetic. Takes any model; its dropout and the attention of its transformers parts draw their
masks here from then on, where they run on a CPU. Called when a model is made ready for training; evaluation never comes here.

torch asks a Mersenne Twister for each element, 10 ns apiece in one thread: an eighth of a training step of MiniLM on one core. Here 64
bits of SFC64 (Doty-Humphrey, PractRand), 1 ns apiece, decide four elements. A rate is met within 1 / 131,072, and what is kept is scaled by the rate that
is met. The generator of each mask is seeded from torch's own, so whatever seeds, saves or replays that one (activation checkpointing)
does the same to masks. Shapes: B rows, H heads, Q queries, K keys, E width of a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STEPS = 2**16  # 16 bits decide an element
NAME = "eagleray"  # of our attention among transformers'


def quicken(model: nn.Module) -> None:
    """Change the model in place; parameters, names and state stay what they are."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = Dropout
        set_attention = getattr(module, "set_attn_implementation", None)
        if set_attention and getattr(module.config, "_attn_implementation", None) == "sdpa":
            _register()
            set_attention(NAME)


def kept(shape: Sequence[int], rate: float) -> torch.Tensor:
    """0 in place of what is dropped, else 1 / (1 - rate); fp32."""
    count, cut = math.prod(shape), round(rate * STEPS)
    seed = int(torch.randint(2**63 - 1, ()))
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
    return torch.from_numpy(np.multiply(bits >= cut, np.float32(STEPS / (STEPS - cut)), dtype=np.float32)).view(*shape)


def here(tensor: torch.Tensor, rate: float) -> bool:
    """Whether a mask for this tensor is drawn here. Compiled code has its own generator, drawn from while it computes."""
    return tensor.device.type == "cpu" and 0 < round(rate * STEPS) < STEPS and not torch.compiler.is_compiling()


class Dropout(nn.Dropout):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not here(input, self.p):
            return super().forward(input)
        return input * kept(input.shape, self.p).to(input.dtype)


def attend(
    query_BHQE: torch.Tensor,
    key_BHKE: torch.Tensor,
    value_BHKE: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    rate: float = 0.0,
    scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention, (B, H, Q, E), with dropout of its probabilities. `mask`: which keys a query sees (bool), or what is
    added to its scores; broadcasts to (B, H, Q, K). `causal` counts without a mask alone. Without a key to see, a query sees all alike."""
    learned = mask is not None and mask.requires_grad
    if learned or not here(query_BHQE, rate):
        return functional.scaled_dot_product_attention(
            query_BHQE, key_BHKE, value_BHKE, attn_mask=mask, dropout_p=rate, scale=scale, is_causal=causal
        )
    if causal:
        mask = torch.ones(query_BHQE.shape[2], key_BHKE.shape[2], dtype=torch.bool).tril()
    scale = query_BHQE.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast("cpu", enabled=False):  # in fp32 throughout: a twentieth of a layer's products
        parts = (query_BHQE.float(), key_BHKE.float(), value_BHKE.float())
        attended: torch.Tensor = _Attend.apply(
            *parts, mask if mask is None or mask.dtype == torch.bool else mask.float(), scale, rate
        )
    return attended.to(query_BHQE.dtype)


class _Attend(torch.autograd.Function):
    """torch's own path with dropout keeps three matrices of Q x K a head, checks each row for emptiness and draws slowly; this keeps two."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        rate: float,
    ) -> torch.Tensor:
        shape = query.shape
        query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
        if mask is not None:
            by_head = scores.view(*shape[:2], *scores.shape[1:])
            if mask.dtype == torch.bool:
                by_head.masked_fill_(~mask, torch.finfo(scores.dtype).min)
            else:
                by_head.add_(mask)
        share = torch.softmax(scores, -1)
        kept_share = kept(share.shape, rate)
        ctx.save_for_backward(query, key, value, share, kept_share)
        ctx.scale, ctx.heads = scale, shape[:2]
        return torch.bmm(share * kept_share, value).view(*shape[:3], value.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.autocast("cpu", enabled=False)
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, share, kept_share = ctx.saved_tensors
        grad = grad.flatten(0, 1)
        value_grad = torch.bmm((share * kept_share).transpose(1, 2), grad)
        share_grad = torch.bmm(grad, value.transpose(1, 2)).mul_(kept_share)
        score_grad = torch._softmax_backward_data(share_grad, share, -1, share.dtype).mul_(ctx.scale)
        found = torch.bmm(score_grad, key), torch.bmm(score_grad.transpose(1, 2), query), value_grad
        return (*(part.view(*ctx.heads, *part.shape[1:]) for part in found), None, None, None)


def _register() -> None:
    """Our attention and the masks it takes, under NAME among transformers'."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface. What we do not know of (biases, caches, capped scores) goes its usual way."""
    from transformers.integrations import sdpa_attention

    unknown = any(others.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    if unknown or not here(query, dropout):
        found: tuple[torch.Tensor, None] = sdpa_attention.sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **others,
        )
        return found
    repeats = getattr(module, "num_key_value_groups", 1)
    key, value = sdpa_attention.repeat_kv(key, repeats), sdpa_attention.repeat_kv(value, repeats)
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal = causal and attention_mask is None and query.shape[2] > 1
    seen = attend(query, key, value, attention_mask, rate=dropout, scale=scaling, causal=causal)
    return seen.transpose(1, 2).contiguous(), None

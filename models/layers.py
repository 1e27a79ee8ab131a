"""Transformer layers for padded sequences, shared by the audio and series encoders and by fusion. `models.reference` says the same slowly.
Takes hidden states and a mask, true where there is something; gives hidden states that are 0 where there is nothing.

What stands on padding never matters: a row gives the same alone and in a longer batch, and a row without any token gives 0, not NaN.
B rows, L tokens, Q queries, K keys, D width, H heads, E = D / H."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from models.dropout import attend
from models.families import ModelError


@dataclass
class EncoderOutput(ModelOutput):
    """What the encoders of audio, series and video give: tokens for fusion, a vector a row, and which tokens there are."""

    last_hidden_state: torch.Tensor | None = None  # (B, L, D), 0 where the mask is false
    pooler_output: torch.Tensor | None = None  # (B, D), the mean of the row's tokens; 0 for a row without
    attention_mask: torch.Tensor | None = None  # (B, L), bool: shorter than the input's, since encoders shorten


def masked_mean(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are there, `mean_BD`; 0 for a row that has none."""
    mask_BL1 = mask_BL.bool()[:, :, None]
    total_BD = hidden_BLD.masked_fill(~mask_BL1, 0.0).sum(1)
    return total_BD / mask_BL1.sum(1).clamp(min=1)


def masked_softmax(scores_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Softmax over L among what is there, `share_BLD`; 0 for the rest, and for all of a row that has none."""
    least = torch.finfo(scores_BLD.dtype).min  # not -inf: a row that has none would be NaN, backwards too
    share_BLD = scores_BLD.masked_fill(~mask_BL[:, :, None], least).softmax(1)
    return share_BLD * mask_BL[:, :, None]


def length_mask(lengths_B: torch.Tensor, longest: int) -> torch.Tensor:
    """`mask_BL`, true for the first tokens of each row."""
    return torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]


def draw(module: nn.Module) -> None:
    """Fresh weights of one module, for `_init_weights`: Glorot and Bengio 2010 by its own size, where transformers' constant 0.02 suits
    widths near 1000 and leaves small models almost still. Tensors that came from a folder are left as they are."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of queries to keys that may have another width and length. A query whose row has no key
    gets 0 before the output layer. Raises ModelError where the heads do not divide the width."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, key_width: int | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ModelError(f"a width of {width} cannot be split into {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(key_width or width, width)
        self.value = nn.Linear(key_width or width, width)
        self.output = nn.Linear(width, width)

    def forward(self, query_BQD: torch.Tensor, key_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        any_B111 = mask_BK.any(1)[:, None, None, None]
        # A row without keys looks at all, then loses what it saw: what softmax makes of nothing differs by device
        mask_B11K = mask_BK[:, None, None, :] | ~any_B111
        context_BHQE = attend(
            self._split(self.query(query_BQD)),
            self._split(self.key(key_BKD)),
            self._split(self.value(key_BKD)),
            mask_B11K,
            rate=self.dropout if self.training else 0.0,
        )
        context_BHQE = context_BHQE.masked_fill(~any_B111, 0.0)
        return self.output(context_BHQE.transpose(1, 2).flatten(2))

    def _split(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        return hidden_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm layer (Xiong et al. 2020, arXiv 2002.04745) with GELU: attention to oneself, or to other tokens where `forward` gets them."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0, *, cross: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.other_norm = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, heads, dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden_BLD: torch.Tensor, mask_BK: torch.Tensor, other_BKD: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`mask_BK` is of the keys: the tokens themselves, or `other_BKD`."""
        query_BLD = self.attention_norm(hidden_BLD)
        if self.other_norm is None:
            seen_BLD = self.attention(query_BLD, query_BLD, mask_BK)
        else:
            seen_BLD = self.attention(query_BLD, self.other_norm(other_BKD), mask_BK)
        hidden_BLD = hidden_BLD + self.dropout(seen_BLD)
        return hidden_BLD + self.dropout(self.feed(self.feed_norm(hidden_BLD)))


class Stack(nn.Module):
    """`depth` blocks of self-attention and a last LayerNorm; `hidden_BLD`, 0 where the mask is false."""

    def __init__(self, width: int, heads: int, depth: int, inner: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, inner or 4 * width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        mask_BL = mask_BL.bool()
        hidden_BLD = hidden_BLD.masked_fill(~mask_BL[:, :, None], 0.0)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD, mask_BL)
        return self.norm(hidden_BLD).masked_fill(~mask_BL[:, :, None], 0.0)

"""The Transformer from its formulas: "Attention Is All You Need" (Vaswani et al. 2017, arXiv 1706.03762), sections 3.1 to 3.5. Written to be
read beside the paper and to check faster code against; nothing is fused, nothing is cached. Takes token ids, or embedded sequences;
gives hidden states or logits. Checked against `torch.nn.Transformer`, whose weights `from_torch` copies.

B rows, S source positions, T target positions, Q queries, K keys, D width, H heads, E = D / H, F feed-forward width, V tokens.
Masks are true where there is something to see. A query that may see nothing has no defined output (NaN), as in torch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from models.families import ModelError

Norm = Literal["post", "pre"]


def attention(
    query_BHQE: torch.Tensor, key_BHKE: torch.Tensor, value_BHKE: torch.Tensor, mask_BHQK: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(E)) V, equation 1: `context_BHQE`. `mask_BHQK` (bool) may have 1 in place of B, H or Q."""
    scores_BHQK = query_BHQE @ key_BHKE.transpose(-2, -1) / math.sqrt(query_BHQE.shape[-1])
    if mask_BHQK is not None:
        scores_BHQK = scores_BHQK.masked_fill(~mask_BHQK, -math.inf)
    return scores_BHQK.softmax(dim=-1) @ value_BHKE


def positions(length: int, width: int) -> torch.Tensor:
    """Sinusoids of section 3.5, `position_LD`: sin(p / 10000^(2i/D)) in column 2i, the cosine in column 2i + 1. Any width, any length."""
    place_L1 = torch.arange(length, dtype=torch.float64)[:, None]
    rate_I = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle_LI = place_L1 * rate_I  # in fp64: an angle of 10,000 in fp32 is off by 1e-3
    return torch.stack([angle_LI.sin(), angle_LI.cos()], dim=-1).flatten(1)[:, :width].float()


def causal_mask(length: int) -> torch.Tensor:
    """`mask_TT`, row = the position that looks: true for itself and what came before."""
    return torch.ones(length, length, dtype=torch.bool).tril()


class MultiHead(nn.Module):
    """Concat(head_1 .. head_H) W^O, section 3.2.2; head_h = attention(x W_h^Q, y W_h^K, y W_h^V). ModelError where H does not divide D."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"a width of {width} cannot be split into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)  # W_1^Q .. W_H^Q side by side
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BQD: torch.Tensor, y_BKD: torch.Tensor, mask_BHQK: torch.Tensor | None = None) -> torch.Tensor:
        query_BHQE = self._split(self.query(x_BQD))
        key_BHKE = self._split(self.key(y_BKD))
        value_BHKE = self._split(self.value(y_BKD))
        context_BHQE = attention(query_BHQE, key_BHKE, value_BHKE, mask_BHQK)
        return self.output(context_BHQE.transpose(1, 2).flatten(2))  # (B, H, Q, E) -> (B, Q, H, E) -> (B, Q, D)

    def _split(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        return hidden_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, L, D) -> (B, L, H, E) -> (B, H, L, E)


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2, equation 2, for each position alone."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, width)

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        inner_BLF = self.first(hidden_BLD).relu()
        return self.second(inner_BLF)


class Residual(nn.Module):
    """What stands around each sub-layer f. post: LayerNorm(x + f(x)), the paper's. pre: x + f(LayerNorm(x)), which trains without
    warm-up (Xiong et al. 2020, arXiv 2002.04745). Dropout on f's output, section 5.4."""

    def __init__(self, width: int, norm: Norm, dropout: float, eps: float) -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def before(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """What f takes."""
        return self.norm(hidden_BLD) if self.pre else hidden_BLD

    def after(self, hidden_BLD: torch.Tensor, change_BLD: torch.Tensor) -> torch.Tensor:
        """The sum, given what f gave."""
        sum_BLD = hidden_BLD + self.dropout(change_BLD)
        return sum_BLD if self.pre else self.norm(sum_BLD)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward: the left box of figure 1."""

    def __init__(self, width: int, heads: int, inner: int, norm: Norm, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = MultiHead(width, heads)
        self.feed = FeedForward(width, inner)
        self.around_attention = Residual(width, norm, dropout, eps)
        self.around_feed = Residual(width, norm, dropout, eps)

    def forward(self, hidden_BSD: torch.Tensor, mask_BHSS: torch.Tensor | None) -> torch.Tensor:
        x_BSD = self.around_attention.before(hidden_BSD)
        hidden_BSD = self.around_attention.after(hidden_BSD, self.attention(x_BSD, x_BSD, mask_BHSS))
        x_BSD = self.around_feed.before(hidden_BSD)
        return self.around_feed.after(hidden_BSD, self.feed(x_BSD))


class DecoderLayer(nn.Module):
    """Self-attention over what is written, attention to the source, feed-forward: the right box of figure 1."""

    def __init__(self, width: int, heads: int, inner: int, norm: Norm, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = MultiHead(width, heads)
        self.source_attention = MultiHead(width, heads)
        self.feed = FeedForward(width, inner)
        self.around_attention = Residual(width, norm, dropout, eps)
        self.around_source = Residual(width, norm, dropout, eps)
        self.around_feed = Residual(width, norm, dropout, eps)

    def forward(
        self,
        hidden_BTD: torch.Tensor,
        source_BSD: torch.Tensor,
        mask_BHTT: torch.Tensor | None,
        source_mask_BHTS: torch.Tensor | None,
    ) -> torch.Tensor:
        x_BTD = self.around_attention.before(hidden_BTD)
        hidden_BTD = self.around_attention.after(hidden_BTD, self.attention(x_BTD, x_BTD, mask_BHTT))
        x_BTD = self.around_source.before(hidden_BTD)
        hidden_BTD = self.around_source.after(hidden_BTD, self.source_attention(x_BTD, source_BSD, source_mask_BHTS))
        x_BTD = self.around_feed.before(hidden_BTD)
        return self.around_feed.after(hidden_BTD, self.feed(x_BTD))


class Transformer(nn.Module):
    """Encoder and decoder over embedded sequences: `hidden_BTD`. The last LayerNorm of each half is torch's and pre norm needs it; the
    paper's post norm ends in one already. ModelError for a width that the heads do not divide, or another `norm`."""

    def __init__(
        self,
        *,
        width: int = 512,
        heads: int = 8,
        inner: int = 2048,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        norm: Norm = "post",
        dropout: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ModelError(f"norm={norm!r}; it is post or pre")
        self.encoder = nn.ModuleList(
            EncoderLayer(width, heads, inner, norm, dropout, eps) for _ in range(encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(width, heads, inner, norm, dropout, eps) for _ in range(decoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(width, eps=eps)
        self.decoder_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        source_BSD: torch.Tensor,
        target_BTD: torch.Tensor,
        source_mask_BS: torch.Tensor | None = None,
        target_mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """A target position sees the source and the target up to itself; nobody sees padding (false in the masks)."""
        return self.decode(target_BTD, self.encode(source_BSD, source_mask_BS), source_mask_BS, target_mask_BT)

    def encode(self, source_BSD: torch.Tensor, source_mask_BS: torch.Tensor | None = None) -> torch.Tensor:
        mask_B11S = None if source_mask_BS is None else source_mask_BS.bool()[:, None, None, :]
        hidden_BSD = source_BSD
        for layer in self.encoder:
            hidden_BSD = layer(hidden_BSD, mask_B11S)
        return self.encoder_norm(hidden_BSD)

    def decode(
        self,
        target_BTD: torch.Tensor,
        memory_BSD: torch.Tensor,
        source_mask_BS: torch.Tensor | None = None,
        target_mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        mask_B1TT = causal_mask(target_BTD.shape[1]).to(target_BTD.device)[None, None]
        if target_mask_BT is not None:
            mask_B1TT = mask_B1TT & target_mask_BT.bool()[:, None, None, :]
        source_mask_B11S = None if source_mask_BS is None else source_mask_BS.bool()[:, None, None, :]
        hidden_BTD = target_BTD
        for layer in self.decoder:
            hidden_BTD = layer(hidden_BTD, memory_BSD, mask_B1TT, source_mask_B11S)
        return self.decoder_norm(hidden_BTD)


class Seq2Seq(nn.Module):
    """The whole of figure 1: ids in, `logits_BTV` out. One matrix embeds source and target and gives the logits, section 3.4."""

    def __init__(self, vocabulary: int, transformer: Transformer, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.transformer = transformer
        self.width = transformer.encoder_norm.normalized_shape[0]
        self.embedding = nn.Embedding(vocabulary, self.width)
        nn.init.normal_(self.embedding.weight, std=self.width**-0.5)  # sqrt(D) in `embed` makes it 1 again
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        source_BS: torch.Tensor,
        target_BT: torch.Tensor,
        source_mask_BS: torch.Tensor | None = None,
        target_mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        hidden_BTD = self.transformer(self.embed(source_BS), self.embed(target_BT), source_mask_BS, target_mask_BT)
        return hidden_BTD @ self.embedding.weight.T

    def embed(self, ids_BL: torch.Tensor) -> torch.Tensor:
        hidden_BLD = self.embedding(ids_BL) * math.sqrt(self.width)
        return self.dropout(hidden_BLD + positions(ids_BL.shape[1], self.width).to(hidden_BLD))


@torch.no_grad()
def from_torch(peer: nn.Transformer) -> Transformer:
    """The reference with the peer's settings and weights, on its device, in evaluation mode; its own layout is (B, L, D) whatever the
    peer's `batch_first`. ModelError for what the paper does not have: an activation other than relu, no biases, parts of one's own."""
    if not isinstance(peer.encoder, nn.TransformerEncoder) or not isinstance(peer.decoder, nn.TransformerDecoder):
        raise ModelError("from_torch needs the encoder and decoder that torch.nn.Transformer makes itself")
    layers = [*peer.encoder.layers, *peer.decoder.layers]
    first = layers[0]
    if first.activation not in (nn.functional.relu, torch.relu) or first.linear1.bias is None:
        raise ModelError("from_torch needs activation=relu and bias=True")
    model = Transformer(
        width=peer.d_model,
        heads=peer.nhead,
        inner=first.linear1.out_features,
        encoder_layers=len(peer.encoder.layers),
        decoder_layers=len(peer.decoder.layers),
        norm="pre" if first.norm_first else "post",
        dropout=first.dropout1.p,
        eps=first.norm1.eps,
    ).to(first.linear1.weight)
    model.encoder_norm.load_state_dict(peer.encoder.norm.state_dict())
    model.decoder_norm.load_state_dict(peer.decoder.norm.state_dict())
    for mine, theirs in zip([*model.encoder, *model.decoder], layers, strict=True):
        _copy_layer(mine, theirs)
    return model.eval()


def _copy_layer(mine: nn.Module, theirs: nn.Module) -> None:
    decoder = isinstance(mine, DecoderLayer)
    _copy_attention(mine.attention, theirs.self_attn)
    mine.around_attention.norm.load_state_dict(theirs.norm1.state_dict())
    if decoder:
        _copy_attention(mine.source_attention, theirs.multihead_attn)
        mine.around_source.norm.load_state_dict(theirs.norm2.state_dict())
    mine.around_feed.norm.load_state_dict((theirs.norm3 if decoder else theirs.norm2).state_dict())
    mine.feed.first.load_state_dict(theirs.linear1.state_dict())
    mine.feed.second.load_state_dict(theirs.linear2.state_dict())


def _copy_attention(mine: nn.Module, theirs: nn.Module) -> None:
    """torch stacks W^Q, W^K and W^V in one matrix of 3 D rows."""
    names = (mine.query, mine.key, mine.value)
    for linear, weight, bias in zip(names, theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True):
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    mine.output.load_state_dict(theirs.out_proj.state_dict())

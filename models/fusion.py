"""Several modalities to one: takes `{name: (tokens_BLD, mask_BL)}`, as the encoders of text, images, sound, video and series give them,
each with its own width and length; gives fused tokens, their mask and a vector a row. `build` is the list of ways to do it.

A modality may be missing: its name not among the inputs, or no token of a row in its mask. Then nothing depends on what stands there, NaN
included, and a batch gives each row what the row alone gives. Knows nothing of encoders and heads.
B rows, M modalities, L tokens (of a modality, or of all side by side), D width, K classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.families import ModelError
from models.layers import Block, Stack, masked_mean, masked_softmax

Features = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Fused:
    """`tokens_BLD`: all modalities side by side, in the order of `widths`, 0 where the mask is false. `logits_BK`: of `decision` only."""

    tokens_BLD: torch.Tensor
    mask_BL: torch.Tensor
    pooled_BD: torch.Tensor
    logits_BK: torch.Tensor | None = None


def build(
    kind: str,
    widths: Mapping[str, int],
    width: int,
    *,
    heads: int = 4,
    depth: int = 2,
    dropout: float = 0.0,
    classes: int | None = None,
) -> Fusion:
    """A fusion of the modalities named in `widths` (name -> width of its tokens) into vectors of `width`. `heads`, `depth`, `dropout`: of
    the attention in interactive, transformer and cross. `classes`: of decision, which needs it.

    Raises ModelError for a kind that is not below, no modality, or a width that the heads do not divide."""
    kinds: dict[str, Callable[[], Fusion]] = {
        "concat": lambda: Concat(widths, width),
        "gated": lambda: Gated(widths, width),
        "product": lambda: Product(widths, width),
        "interactive": lambda: Interactive(widths, width, heads, depth, dropout),
        "transformer": lambda: Single(widths, width, heads, depth, dropout),
        "cross": lambda: Cross(widths, width, heads, depth, dropout),
        "decision": lambda: Decision(widths, width, classes),
    }
    if kind not in kinds:
        raise ModelError(f"fusion {kind!r} is not known; there are: {', '.join(kinds)}")
    return kinds[kind]()


class Fusion(nn.Module):
    """What all ways share: projections to one width, what is missing. A subclass says how to `fuse`."""

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__()
        if not widths or min(*widths.values(), width) < 1:
            raise ModelError(f"fusion needs modalities with widths of at least 1, and got {dict(widths)} into {width}")
        self.names = tuple(widths)
        self.widths = dict(widths)
        self.width = width
        self.projections = nn.ModuleList(nn.Linear(one, width) for one in widths.values())

    def forward(self, features: Features) -> Fused:
        """Raises ModelError for a name that was not built, no name at all, or tokens and masks of other shapes."""
        tokens, masks = self._complete(features)
        present_BM = torch.stack([mask_BL.any(1) for mask_BL in masks], dim=1)
        projected = []
        for project, tokens_BLD, mask_BL in zip(self.projections, tokens, masks, strict=True):
            clean_BLD = tokens_BLD.masked_fill(~mask_BL[:, :, None], 0.0)  # before the product: NaN times 0 is NaN
            projected.append(project(clean_BLD.to(project.weight.dtype)))
        return self.fuse(projected, masks, present_BM)

    @abstractmethod
    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        """`tokens` (B, L, D), finite where their mask is false, and `masks` (B, L), bool, of each modality in the order of `widths`."""

    def _complete(self, features: Features) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """All modalities in order; one that is not given has one token in each row that is not there. So all parameters take part in
        each step, whatever the batch holds: ranks whose parameters differ would wait for each other."""
        unknown = [name for name in features if name not in self.names]
        if unknown or not features:
            raise ModelError(
                f"fusion got {', '.join(unknown) or 'no modality'}; it was built for {', '.join(self.names)}"
            )
        tokens, masks = [], []
        some_BLD = next(iter(features.values()))[0]
        for name in self.names:
            absent_BLD = some_BLD.new_zeros(len(some_BLD), 1, self.widths[name])
            tokens_BLD, mask_BL = features.get(name, (absent_BLD, absent_BLD.new_zeros(len(some_BLD), 1)))
            wanted = (len(some_BLD), mask_BL.shape[-1], self.widths[name])
            if tokens_BLD.shape != wanted or mask_BL.shape != wanted[:2]:
                raise ModelError(
                    f"{name} has tokens {tuple(tokens_BLD.shape)} and mask {tuple(mask_BL.shape)}; they should be "
                    f"({wanted[0]}, L, {wanted[2]}) and ({wanted[0]}, L)"
                )
            tokens.append(tokens_BLD)
            masks.append(mask_BL.bool())
        return tokens, masks


class Concat(Fusion):
    """The means of the modalities side by side, through one layer. A missing one is a learned vector, not a mean of zero that a sound
    of silence could have too."""

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__(widths, width)
        self.join = Join(len(widths), width)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        return Fused(*_side_by_side(tokens, masks), self.join(_means(tokens, masks), present_BM))


class Gated(Fusion):
    """Gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992): each modality says tanh(W x), and gates that look at all of them share
    out each of the D values. A softmax over the modalities that are there: for two it is the paper's z and 1 - z."""

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__(widths, width)
        self.say = nn.ModuleList(nn.Linear(width, width) for _ in widths)
        self.gate = nn.Linear(len(widths) * width, len(widths) * width)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        mean_BMD = _means(tokens, masks)
        said_BMD = torch.stack([say(mean_BMD[:, i]).tanh() for i, say in enumerate(self.say)], dim=1)
        gate_BMD = masked_softmax(self.gate(mean_BMD.flatten(1)).view_as(mean_BMD), present_BM)
        return Fused(*_side_by_side(tokens, masks), (gate_BMD * said_BMD).sum(1))


class Product(Fusion):
    """Low-rank bilinear pooling (Kim et al. 2017, arXiv 1610.04325, equation 8; the head of ViLBERT's matching has the same product): each
    modality says tanh(W x), and the D values of all are multiplied. Whether two things belong together is no sum of what each says alone,
    which is all that a linear layer over `Concat` has. A missing one is a learned vector, 1 at first."""

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__(widths, width)
        self.missing = Table(len(widths), width)
        nn.init.ones_(self.missing.weight)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        said_BMD = torch.where(present_BM[:, :, None], _means(tokens, masks).tanh(), self.missing())
        return Fused(*_side_by_side(tokens, masks), said_BMD.prod(1))


class Interactive(Fusion):
    """Blocks of self-attention over the tokens of all modalities together, as single-stream encoders have (VisualBERT, Li et al. 2019, arXiv
    1908.03557), so that each token reads those of its own and of the others; then their means as in `Concat`."""

    def __init__(self, widths: Mapping[str, int], width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__(widths, width)
        self.kinds = Table(len(widths), width)  # which modality a token is of
        self.stack = Stack(width, heads, depth, dropout=dropout)
        self.join = Join(len(widths), width)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        all_BLD, mask_BL = _side_by_side([one + kind for one, kind in zip(tokens, self.kinds(), strict=True)], masks)
        all_BLD = self.stack(all_BLD, mask_BL)
        parts = list(all_BLD.split([one.shape[1] for one in tokens], dim=1))
        return Fused(all_BLD, mask_BL, self.join(_means(parts, masks), present_BM))


class Single(Fusion):
    """A Transformer over a learned CLS and the tokens of all modalities, with modality embeddings; the vector is what CLS became (as in
    ViLT, Kim et al. 2021, arXiv 2102.03334). CLS is not among the tokens given back."""

    def __init__(self, widths: Mapping[str, int], width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__(widths, width)
        self.kinds = Table(len(widths) + 1, width)  # the last is CLS
        self.stack = Stack(width, heads, depth, dropout=dropout)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        *kinds, cls = self.kinds()
        cls_B1D = cls.expand(len(present_BM), 1, -1)
        everything = [cls_B1D, *(one + kind for one, kind in zip(tokens, kinds, strict=True))]
        cls_mask_B1 = torch.ones_like(present_BM[:, :1])
        all_BLD, mask_BL = _side_by_side(everything, [cls_mask_B1, *masks])
        all_BLD = self.stack(all_BLD, mask_BL)
        return Fused(all_BLD[:, 1:], mask_BL[:, 1:], all_BLD[:, 0])


class Cross(Fusion):
    """Cross-modal attention, all directions at once (co-attention of ViLBERT, Lu et al. 2019, arXiv 1908.02265): the tokens of a modality ask,
    those of the others answer, and each keeps its length. With more than two modalities the others are side by side. Where no other is
    there, the answer is the same for all."""

    def __init__(self, widths: Mapping[str, int], width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__(widths, width)
        if len(widths) < 2:
            raise ModelError(f"cross-modal attention needs two modalities, and got {', '.join(widths)} alone")
        self.layers = nn.ModuleList(
            nn.ModuleList(Block(width, heads, 4 * width, dropout, cross=True) for _ in widths) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in widths)
        self.join = Join(len(widths), width)

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        for layer in self.layers:
            others = [_side_by_side(_without(tokens, i), _without(masks, i)) for i in range(len(tokens))]
            tokens = [
                block(mine_BLD, mask_BK, other_BKD)
                for block, mine_BLD, (other_BKD, mask_BK) in zip(layer, tokens, others, strict=True)
            ]
        tokens = [norm(one) for norm, one in zip(self.norms, tokens, strict=True)]
        return Fused(*_side_by_side(tokens, masks), self.join(_means(tokens, masks), present_BM))


class Decision(Fusion):
    """Late fusion: each modality has a classifier of its own, and the logits are their mean with learned weights, over those that are there.
    The vector is the mean of what the classifiers read, with the same weights. A row without any modality gets logits of 0."""

    def __init__(self, widths: Mapping[str, int], width: int, classes: int | None) -> None:
        super().__init__(widths, width)
        if not classes or classes < 1:
            raise ModelError(f"decision fusion needs classes, the number of logits, and got {classes}")
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in widths)
        self.weights = Table(len(widths), 1)
        nn.init.zeros_(self.weights.weight)  # equal at first

    def fuse(self, tokens: list[torch.Tensor], masks: list[torch.Tensor], present_BM: torch.Tensor) -> Fused:
        hidden_BMD = _means(tokens, masks).tanh()  # without it projection and classifier would be one linear layer
        logits_BMK = torch.stack([one(hidden_BMD[:, i]) for i, one in enumerate(self.classifiers)], dim=1)
        weight_BM1 = masked_softmax(self.weights().expand(len(present_BM), -1, -1), present_BM)
        return Fused(*_side_by_side(tokens, masks), (weight_BM1 * hidden_BMD).sum(1), (weight_BM1 * logits_BMK).sum(1))


class Table(nn.Embedding):
    """Learned vectors, all of them at each call. An embedding, so that sharded training gathers it where it is called and transformers'
    `_init_weights` knows it."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        nn.init.normal_(self.weight, std=0.02)

    def forward(self) -> torch.Tensor:
        return super().forward(torch.arange(self.num_embeddings, device=self.weight.device))


class Join(nn.Module):
    """One vector of the means of M modalities, a learned one in place of each that is missing: `mean_BMD, present_BM -> pooled_BD`."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.missing = Table(modalities, width)
        self.layer = nn.Linear(modalities * width, width)

    def forward(self, mean_BMD: torch.Tensor, present_BM: torch.Tensor) -> torch.Tensor:
        mean_BMD = torch.where(present_BM[:, :, None], mean_BMD, self.missing())
        return self.layer(mean_BMD.flatten(1))


def _means(tokens: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([masked_mean(*pair) for pair in zip(tokens, masks, strict=True)], dim=1)


def _side_by_side(tokens: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    mask_BL = torch.cat(list(masks), dim=1)
    return torch.cat(list(tokens), dim=1).masked_fill(~mask_BL[:, :, None], 0.0), mask_BL


def _without(values: Sequence[torch.Tensor], number: int) -> list[torch.Tensor]:
    return [value for i, value in enumerate(values) if i != number]

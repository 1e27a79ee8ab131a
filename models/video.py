"""Frames to tokens through any image encoder: a frame is a token, and a video the mean of its frames or their sum with learned shares
("Attention-based Deep Multiple Instance Learning", Ilse et al. 2018, arXiv 1802.04712, equation 8). Takes frames as the encoder takes
images, and which of them there are; gives tokens, their mask and a vector a row. Frames are not told their place: what orders them is
the user's (an encoder of sequences on the tokens).

Frames that are not there are never encoded: they cost nothing and do not enter a batch norm's statistics.
B rows, F frames, N frames that are there, D width; X the shape of an image, such as C, H, W."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from models.families import ModelError
from models.layers import EncoderOutput, masked_mean, masked_softmax


class VideoModel(nn.Module):
    """`encoder`: takes (N, X); gives vectors (N, D), or an output with `pooler_output` or `last_hidden_state`, as those of transformers.
    `width`: D. Raises ModelError for another way to pool."""

    def __init__(self, encoder: nn.Module, width: int, *, pool: Literal["mean", "attention"] = "mean") -> None:
        super().__init__()
        if pool not in ("mean", "attention"):
            raise ModelError(f"pool={pool!r}; it is mean or attention")
        self.encoder = encoder
        self.width = width
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)) if pool != "mean" else None

    def forward(self, frames: torch.Tensor, attention_mask: torch.Tensor | None = None) -> EncoderOutput:
        """`frames` (B, F, X), `attention_mask` (B, F); gives `last_hidden_state` (B, F, D), `pooler_output` (B, D) and the mask, bool.
        Raises ModelError for a mask of another shape, or an encoder whose vectors are not of `width`."""
        mask_BF = torch.ones(frames.shape[:2], device=frames.device) if attention_mask is None else attention_mask
        mask_BF = mask_BF.bool()
        if mask_BF.shape != frames.shape[:2]:
            raise ModelError(f"frames of shape {tuple(frames.shape)} came with a mask of {tuple(mask_BF.shape)}")
        hidden_BFD = self._encode(frames, mask_BF)
        if self.score is None:
            pooled_BD = masked_mean(hidden_BFD, mask_BF)
        else:
            pooled_BD = (masked_softmax(self.score(hidden_BFD), mask_BF) * hidden_BFD).sum(1)
        return EncoderOutput(hidden_BFD, pooled_BD, mask_BF)

    def _encode(self, frames_BFX: torch.Tensor, mask_BF: torch.Tensor) -> torch.Tensor:
        chosen_BF, images_NX = mask_BF, frames_BFX[mask_BF]
        if not len(images_NX):
            # One black frame, whose vector is wiped out below: sharded training needs every rank to run the same modules
            chosen_BF = torch.zeros_like(mask_BF)
            chosen_BF[0, 0] = True
            images_NX = torch.zeros_like(frames_BFX[:1, 0])
        vectors_ND = frame_vectors(self.encoder(images_NX))
        if vectors_ND.shape[1] != self.width:
            raise ModelError(f"the image encoder gives vectors of {vectors_ND.shape[1]}, and width={self.width}")
        hidden_BFD = vectors_ND.new_zeros(*mask_BF.shape, self.width).index_put((chosen_BF,), vectors_ND)
        return hidden_BFD.masked_fill(~mask_BF[:, :, None], 0.0)


def frame_vectors(output: Any) -> torch.Tensor:
    """`vectors_ND` of what an image encoder gave: itself, its pooler's output, or the mean of its patches (N, L, D) or places
    (N, D, H, W)."""
    if isinstance(output, torch.Tensor):
        return output.flatten(1)
    if getattr(output, "pooler_output", None) is not None:
        return output.pooler_output.flatten(1)  # (N, D, 1, 1) of convolutional ones
    hidden = output.last_hidden_state
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))

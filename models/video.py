"""Frames of a video to tokens, through any image encoder: a frame is a token, the mean of what the encoder says of its places. Takes frames as the
encoder takes images, and which rows have any; gives tokens and their mask, as every tower does, so that what pools or fuses towers does so
with videos (the mean over frames is the late fusion of Karpathy et al. 2014, "Large-scale Video Classification"). Frames are not told
their place. Rows without frames are never encoded: they cost nothing. B rows, F frames, N frames that are there, D width; X the shape of
an image, such as C, H, W."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TOGETHER = 64  # frames through the encoder at once where nothing is trained: rows of an answer may be many and long


def frames(
    encoder: nn.Module, pixels_BFX: torch.Tensor, there_B: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, F, D), 0 where a row has no frames, and their mask (B, F), bool. `there_B`: rows that have some; None: all."""
    rows, count = pixels_BFX.shape[:2]
    mask_B = torch.ones(rows, dtype=torch.bool, device=pixels_BFX.device) if there_B is None else there_B.bool()
    mask_BF = mask_B[:, None].expand(rows, count)
    chosen_BF, images_NX = mask_BF, pixels_BFX[mask_BF]
    if not len(images_NX):
        # One black frame, whose vector is wiped out below: sharded training needs every rank to run the same modules
        chosen_BF = torch.zeros_like(mask_BF)
        chosen_BF[0, 0] = True
        images_NX = torch.zeros_like(pixels_BFX[:1, 0])
    # By parts in evaluation and endpoints alone: in training and its validations ranks run the same modules equally often.
    size = TOGETHER if torch.is_inference_mode_enabled() else len(images_NX)
    vectors_ND = torch.cat([vectors(encoder(pixel_values=part_NX)) for part_NX in images_NX.split(size)])
    tokens_BFD = vectors_ND.new_zeros(rows, count, vectors_ND.shape[1]).index_put((chosen_BF,), vectors_ND)
    return tokens_BFD.masked_fill(~mask_BF[:, :, None], 0.0), mask_BF


def vectors(output: Any) -> torch.Tensor:
    """(N, D) of what an image encoder gave: the mean of its patches (N, L, D) or places (N, D, H, W)."""
    hidden = output.last_hidden_state
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))  # type: ignore[no-any-return]

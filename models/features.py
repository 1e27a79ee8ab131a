"""What a frozen encoder says of a text: one vector. Takes any transformers model of text; gives the part below its heads, and its hidden states
as vectors. Called by the export of features. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch

from models.families import ModelError


def encoder(model: Any) -> Any:
    """Of an encoder and a decoder the encoder. Raises ModelError for what has no such part."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    found = getattr(model, "base_model", None)
    if found is None:
        raise ModelError("this model has no one encoder whose hidden states could be kept (an ensemble has several)")
    return found


def pooled(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, D): `mean` over a row's own tokens, or of `cls` its first one."""
    if pooling == "cls":
        return hidden_BLD[:, 0]
    weight_BL1 = mask_BL.to(hidden_BLD.dtype)[:, :, None]
    return (hidden_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1)

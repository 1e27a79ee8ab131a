"""How hidden states are written: float32 as it is, bf16, or int8 with a scale a token. Takes and gives float32 tensors; numpy has no
bf16, so its bits travel as int16. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

import numpy as np
import torch


def encode(hidden_BLD: torch.Tensor, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored values of float32 ones; int8: the nearest of 255 steps between the token's largest magnitude and its negative."""
    if dtype == "fp32":
        return hidden_BLD.numpy(), None
    if dtype == "bf16":
        return hidden_BLD.bfloat16().view(torch.int16).numpy(), None
    scales_BL = hidden_BLD.abs().amax(-1).clamp_min(1e-12) / 127
    return (hidden_BLD / scales_BL[..., None]).round().to(torch.int8).numpy(), scales_BL.numpy()


def decode(values_BLD: np.ndarray, scales_BL: np.ndarray | None, dtype: str) -> torch.Tensor:
    """float32."""
    values = torch.from_numpy(values_BLD)
    if dtype == "bf16":
        return values.view(torch.bfloat16).float()
    return values if scales_BL is None else values * torch.from_numpy(scales_BL)[..., None]

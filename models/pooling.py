"""Mean pooling: the head of a classifier reads the mean over a row's tokens in place of its first token. Takes a model of a family in `TRUNKS`,
whose heads read the first token's output; `attach` puts the mean there, so head, task and trunk stay as they are. Called by `text.build`
and by a package when it is opened. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.families import TRUNKS


class Mean:
    """Two hooks of one model: the mask is seen where the encoder is called, the outputs where the layers end."""

    mask_BL: torch.Tensor | None = None

    def see(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.mask_BL = kwargs.get("attention_mask")

    def pool(self, _: nn.Module, __: Any, output: Any) -> Any:
        hidden_BLD, self.mask_BL, mask_BL = output.last_hidden_state, None, self.mask_BL
        if mask_BL is None:
            mean_BD = hidden_BLD.mean(1)
        else:
            weight_BL1 = mask_BL.to(hidden_BLD.dtype)[:, :, None]
            mean_BD = (hidden_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1)
        output.last_hidden_state = torch.cat([mean_BD[:, None], hidden_BLD[:, 1:]], 1)
        return output


def attach(model: nn.Module) -> None:
    """After any adapter: prompts are taken off before the mean, and do not count in it."""
    attribute, path = TRUNKS[str(model.config.model_type)]  # type: ignore[union-attr]
    encoder, mean = getattr(model, attribute), Mean()
    encoder.register_forward_pre_hook(mean.see, prepend=True, with_kwargs=True)
    encoder.get_submodule(path.rpartition(".")[0]).register_forward_hook(mean.pool)

"""Windows of numeric columns to tokens: steps are cut into patches, a patch is a token, Transformer layers follow ("A Time Series is Worth
64 Words", Nie et al. 2023, arXiv 2211.14730; its patches and its scaling of each window, but all columns of a patch in one token, so that
columns are seen together). Takes float windows as the store holds them, padded on the right; gives tokens, their mask and a vector a
row. Importing this file registers model_type `eagleray_series`.

What stands on padding never matters: a row gives the same alone and in a longer batch.
B rows, T steps, C columns, P steps of a patch, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from models.families import ModelError
from models.layers import EncoderOutput, Stack, draw, masked_mean
from models.reference import positions

TINY = 1e-5  # the least deviation: a column that stands still becomes 0, and its gradient is finite


class SeriesConfig(PreTrainedConfig):
    """`columns`: of a step. `patch`: steps of a token. Raises ModelError where one is below 1."""

    model_type = "eagleray_series"

    columns: int = 1
    patch: int = 8
    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    dropout: float = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        if self.columns < 1 or self.patch < 1:
            raise ModelError(f"series has columns={self.columns} and patch={self.patch}; both are at least 1")
        super().__post_init__(**kwargs)


class SeriesModel(PreTrainedModel):
    """Takes `series` (B, T, C), finite numbers of any size, and `attention_mask` (B, T), 1 where there is a step (a gap inside a window
    may be 0 too); gives `EncoderOutput`."""

    config_class = SeriesConfig
    base_model_prefix = "series"
    main_input_name = "series"

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.patches = nn.Linear(config.patch * config.columns, width)
        self.level = nn.Linear(2 * config.columns, width, bias=False)
        self.stack = Stack(
            width, config.num_attention_heads, config.num_hidden_layers, config.intermediate_size, config.dropout
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        draw(module)

    def forward(self, series: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> EncoderOutput:
        """`last_hidden_state` (B, L, D) with L = T / P rounded up, `pooler_output` (B, D), `attention_mask` (B, L): true where a patch has
        a step. Raises ModelError for another number of columns or a mask of another shape."""
        mask_BT = self._mask(series, attention_mask)
        scaled_BTC, level_BK = scale(series, mask_BT)
        patch_BLPC = _cut(scaled_BTC, self.config.patch)
        mask_BL = _cut(mask_BT, self.config.patch).any(2)
        hidden_BLD = self.patches(patch_BLPC.flatten(2).to(self.dtype))
        # The level, which scaling took away, can be what tells rows apart: every token gets it back
        hidden_BLD = hidden_BLD + self.level(level_BK.to(self.dtype))[:, None]
        hidden_BLD = hidden_BLD + positions(*hidden_BLD.shape[1:]).to(hidden_BLD)
        hidden_BLD = self.stack(hidden_BLD, mask_BL)
        return EncoderOutput(hidden_BLD, masked_mean(hidden_BLD, mask_BL), mask_BL)

    def _mask(self, series_BTC: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        if series_BTC.ndim != 3 or series_BTC.shape[2] != self.config.columns:
            raise ModelError(f"series takes (B, T, {self.config.columns}) and got {tuple(series_BTC.shape)}")
        if mask_BT is None:
            return torch.ones(series_BTC.shape[:2], dtype=torch.bool, device=series_BTC.device)
        if mask_BT.shape != series_BTC.shape[:2]:
            raise ModelError(f"series of shape {tuple(series_BTC.shape)} came with a mask of {tuple(mask_BT.shape)}")
        return mask_BT.bool()


def scale(series_BTC: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each column of each row by its own mean and deviation over the steps that are there (as Kim et al. 2022, "Reversible Instance
    Normalization"), 0 elsewhere; and `level_BK`, K = 2 C: what was taken away, as sign(mean) log(1 + |mean|) and log(1 + deviation),
    since sensors count in thousands or in thousandths. fp32; fp64 inside, or a still column of 123456.7 would become rounding noise."""
    there_BT1 = mask_BT[:, :, None]
    value_BTC = series_BTC.double().masked_fill(~there_BT1, 0.0)
    count_B11 = there_BT1.sum(1, keepdim=True).clamp(min=1)
    mean_B1C = value_BTC.sum(1, keepdim=True) / count_B11
    centred_BTC = (value_BTC - mean_B1C).masked_fill(~there_BT1, 0.0)
    deviation_B1C = (centred_BTC.square().sum(1, keepdim=True) / count_B11 + TINY**2).sqrt()
    level_B1K = torch.cat([mean_B1C.sign() * mean_B1C.abs().log1p(), deviation_B1C.log1p()], dim=2)
    return (centred_BTC / deviation_B1C).float(), level_B1K[:, 0].float()


def _cut(values_BT: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, T, ...) -> (B, L, P, ...), the last patch filled up with zeros (false)."""
    rows, steps = values_BT.shape[:2]
    missing = -steps % patch
    filled = torch.cat([values_BT, values_BT.new_zeros(rows, missing, *values_BT.shape[2:])], dim=1)
    return filled.unflatten(1, (-1, patch))


AutoConfig.register("eagleray_series", SeriesConfig, exist_ok=True)
AutoModel.register(SeriesConfig, SeriesModel, exist_ok=True)

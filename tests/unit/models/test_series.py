from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from models.families import ModelError
from models.layers import length_mask
from models.series import SeriesConfig, SeriesModel, scale

SMALL: dict[str, Any] = {
    "columns": 3,
    "patch": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def _model(**changes: Any) -> SeriesModel:
    torch.manual_seed(1)
    return SeriesModel(SeriesConfig(**{**SMALL, **changes})).eval()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 19])
def test_a_row_gives_the_same_alone_and_in_a_padded_batch(length: int) -> None:
    model = _model()
    series_BTC = torch.randn(3, 19, 3) * 5 + 2
    mask_BT = length_mask(torch.tensor([19, length, 0]), 19)
    series_BTC[~mask_BT] = float("nan")
    found = model(series_BTC, attention_mask=mask_BT.long())
    alone = model(series_BTC[1:2, :length])
    tokens = -(-length // 4)
    assert found.attention_mask.sum(1).tolist() == [5, tokens, 0]
    assert alone.last_hidden_state.shape == (1, tokens, 16)
    assert torch.allclose(found.last_hidden_state[1, :tokens], alone.last_hidden_state[0], atol=1e-5)
    assert torch.allclose(found.pooler_output[1], alone.pooler_output[0], atol=1e-5)
    assert not found.last_hidden_state[~found.attention_mask].any()
    assert not found.pooler_output[2].any()


def test_a_gap_inside_a_window_is_not_looked_at() -> None:
    model, series_BTC = _model(), torch.randn(1, 12, 3)
    mask_BT = torch.ones(1, 12, dtype=torch.bool)
    mask_BT[0, 3:9] = False
    before = model(series_BTC, attention_mask=mask_BT)
    series_BTC[0, 3:9] = 1e6
    after = model(series_BTC, attention_mask=mask_BT)
    assert before.attention_mask.tolist() == [[True, False, True]]
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)


def test_scaled_columns_have_mean_zero_and_deviation_one_and_the_level_says_what_they_were() -> None:
    series_BTC = torch.randn(2, 50, 2) * torch.tensor([1000.0, 0.5]) + torch.tensor([-300.0, 7.0])
    mask_BT = length_mask(torch.tensor([50, 30]), 50)
    scaled_BTC, level_BK = scale(series_BTC, mask_BT)
    for row, steps in ((0, 50), (1, 30)):
        assert scaled_BTC[row, :steps].mean(0).abs().max() < 1e-4
        assert (scaled_BTC[row, :steps].std(0, correction=0) - 1).abs().max() < 1e-3
        mean_C = series_BTC[row, :steps].mean(0)
        assert torch.allclose(level_BK[row, :2], mean_C.sign() * (1 + mean_C.abs()).log(), atol=1e-4)
        assert torch.allclose(level_BK[row, 2:], (1 + series_BTC[row, :steps].std(0, correction=0)).log(), atol=1e-4)


def test_the_order_of_patches_matters() -> None:
    model, series_BTC = _model(), torch.randn(1, 8, 3)
    swapped_BTC = series_BTC.roll(4, dims=1)
    assert not torch.allclose(model(series_BTC).pooler_output, model(swapped_BTC).pooler_output, atol=1e-3)


def test_windows_that_differ_only_in_level_are_told_apart_and_a_still_one_is_finite() -> None:
    model, series_BTC = _model(), torch.randn(1, 8, 3)
    low, high = model(series_BTC).pooler_output, model(series_BTC + 100).pooler_output
    assert not torch.allclose(low, high, atol=0.01)
    still = torch.full((1, 7, 3), 123456.7, requires_grad=True)
    assert scale(still, torch.ones(1, 7, dtype=torch.bool))[0].abs().max() < 1e-3
    model(still).pooler_output.sum().backward()
    assert torch.isfinite(still.grad).all()


def test_all_runs_on_the_inputs_device_and_in_bf16() -> None:
    """The meta device stands for a GPU: a tensor left on the CPU would be refused."""
    model, series_BTC = _model(), torch.randn(2, 9, 3)
    wanted = model(series_BTC).pooler_output
    found = model.bfloat16()(series_BTC).pooler_output
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted, atol=0.1)
    assert model.to("meta")(series_BTC.to("meta")).pooler_output.device.type == "meta"


def test_a_saved_folder_opens_with_the_auto_class_and_gives_the_same(tmp_path: Path) -> None:
    model, series_BTC = _model(), torch.randn(2, 10, 3)
    model.save_pretrained(tmp_path)
    opened = AutoModel.from_pretrained(tmp_path)
    assert type(opened) is SeriesModel
    assert torch.equal(opened.eval()(series_BTC).last_hidden_state, model(series_BTC).last_hidden_state)


def test_it_learns_the_direction_of_a_trend_and_every_parameter_gets_a_gradient() -> None:
    model = _model(dropout=0.0, columns=1).train()
    head = torch.nn.Linear(16, 2)
    labels_B = torch.tensor([0, 1] * 8)
    series_BTC = ((2.0 * labels_B - 1)[:, None] * torch.linspace(-1, 1, 12) + 0.3 * torch.randn(16, 12))[:, :, None]
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(model(series_BTC).pooler_output), labels_B)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_settings_columns_and_masks_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="columns=0 and patch=8"):
        SeriesConfig(columns=0)
    with pytest.raises(ModelError, match=r"takes \(B, T, 3\) and got \(2, 5, 4\)"):
        _model()(torch.zeros(2, 5, 4))
    with pytest.raises(ModelError, match=r"mask of \(2, 4\)"):
        _model()(torch.zeros(2, 5, 3), attention_mask=torch.ones(2, 4))

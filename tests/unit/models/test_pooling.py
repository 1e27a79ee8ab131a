"""Mean pooling in place of a row's first token, whole and above a frozen bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from models import text
from models.config import ModelConfig
from models.config.origins import SizeConfig
from models.families import TRUNKS, ModelError, new_config
from models.trunk import strip, trunk_output

IDS = torch.tensor([[5, 6, 7, 8, 9], [6, 8, 10, 0, 0]])
MASK = (IDS > 0).long()


def _build(folder: Path, family: str, **model: Any) -> Any:
    size = SizeConfig(layers=2, width=32, heads=2)
    config = new_config(family, size, vocab=40, positions=40, special={"pad": 0})
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    built = text.build(ModelConfig.model_validate({"path": family, **model}), folder, ["a", "b"], seed=3)
    return built.eval()


@pytest.mark.parametrize("family", TRUNKS)
def test_the_head_reads_the_mean_of_the_rows_own_tokens(family: str, tmp_path: Path) -> None:
    model, plain = _build(tmp_path, family, pooling="mean"), _build(tmp_path, family)
    found = model(input_ids=IDS, attention_mask=MASK).logits
    assert torch.allclose(found[1], model(input_ids=IDS[1:, :3]).logits[0], atol=1e-6)  # padding does not count
    hidden_BLD = getattr(plain, TRUNKS[family][0])(input_ids=IDS, attention_mask=MASK).last_hidden_state
    mean_B1D = (hidden_BLD * MASK[:, :, None]).sum(1, keepdim=True) / MASK.sum(1)[:, None, None]
    strip(plain, 3)  # the head alone
    assert torch.allclose(found, plain(hidden=mean_B1D, attention_mask=torch.ones(2, 1)).logits, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("family", TRUNKS)
def test_bottom_and_top_give_the_logits_of_the_whole(family: str, depth: int, tmp_path: Path) -> None:
    model = _build(tmp_path, family, pooling="mean")
    wanted = model(input_ids=IDS, attention_mask=MASK).logits
    hidden_BLD, mask = trunk_output(model, depth, IDS, MASK), MASK
    if depth == 3:  # below the head alone the first place, which holds the mean, is enough
        hidden_BLD, mask = hidden_BLD[:, :1], torch.ones(2, 1)
    strip(model, depth)
    assert torch.allclose(model(hidden=hidden_BLD, attention_mask=mask).logits, wanted, atol=1e-6)


def test_a_prompt_does_not_count_in_the_mean(tmp_path: Path) -> None:
    model = _build(tmp_path, "bert", pooling="mean", adapter={"kind": "prompt", "tokens": 2})
    seen: list[torch.Tensor] = []
    model.bert.encoder.register_forward_hook(lambda m, a, output: seen.append(output.last_hidden_state))
    model(input_ids=IDS[1:], attention_mask=MASK[1:])
    assert seen[0].shape[1] == IDS.shape[1]


def test_other_families_and_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pooling=mean: it can be chosen for models of bert, roberta, distilbert"):
        _build(tmp_path, "gpt2", pooling="mean")
    with pytest.raises(ValueError, match="pooling belongs to tasks with an answer a row"):
        ModelConfig(path="tiny", task="tagging", pooling="mean")

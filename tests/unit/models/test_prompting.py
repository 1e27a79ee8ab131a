from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from models.prompting import log_likelihoods
from tests.families import SMALL


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("shared", [[], [3, 9, 4]])
def test_likelihoods_are_those_of_each_whole_text_alone(family: str, shared: list[int]) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL[family])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    texts, endings = [[5, 6, 7, 8, 9], [11], [5, 6]], [[12], [13, 14, 15], [12, 13]]
    found = log_likelihoods(model, shared, texts, endings)
    assert found.shape == (3, 3)
    for row, text in enumerate(texts):
        for column, ending in enumerate(endings):
            ids = torch.tensor([[*shared, *text, *ending]])
            with torch.no_grad():
                losses = functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
            wanted = -losses[-len(ending) :].sum()
            assert float(found[row, column]) == pytest.approx(float(wanted), rel=1e-4, abs=1e-5)
    assert found.std() > 0.01

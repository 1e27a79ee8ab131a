from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from models.families import TRUNKS, ModelError
from models.optim import plan_groups
from models.trunk import below_the_head, frozen_depth, strip, trunk_output

BERT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
SMALL: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": BERT,
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16, "vocab_size": 20},
}
DEPTHS = [1, 2, 4]  # embeddings; and a layer; and all layers


def _model(family: str) -> Any:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, num_labels=3, **SMALL[family]))
    with torch.no_grad():  # large enough that a wrong mask shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids_BL = torch.randint(4, 20, (5, 9), generator=generator)
    mask_BL = (torch.arange(9) < torch.tensor([[9], [5], [1], [7], [8]])).long()
    return {"input_ids": ids_BL * mask_BL + (1 - mask_BL), "attention_mask": mask_BL}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("family", TRUNKS)
def test_bottom_and_top_give_the_logits_of_the_whole_model(family: str, depth: int) -> None:
    model, batch = _model(family), _batch()
    with torch.no_grad():
        wanted = model(**batch).logits
        hidden_BLD = trunk_output(model, depth, batch["input_ids"], batch["attention_mask"])
        assert torch.equal(model(**batch).logits, wanted)  # the model is whole as before
        strip(model, depth)
        found = model(hidden=hidden_BLD, attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(found, wanted, atol=1e-6)
        hidden_BLD[batch["attention_mask"] == 0] = 0.0  # what lies on padding is never looked at
        padded = model(hidden=hidden_BLD, attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(padded, wanted, atol=1e-6)
    assert float(wanted.std()) > 0.1


@pytest.mark.parametrize("family", TRUNKS)
def test_under_the_head_alone_the_first_token_is_enough(family: str) -> None:
    model, batch = _model(family), _batch()
    assert [below_the_head(model, depth) for depth in range(1, 5)] == [False, False, False, True]
    with torch.no_grad():
        wanted = model(**batch).logits
        hidden_B1D = trunk_output(model, 4, batch["input_ids"], batch["attention_mask"])[:, :1]
        strip(model, 4)
        found = model(hidden=hidden_B1D, attention_mask=torch.ones(5, 1, dtype=torch.int64)).logits
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("family", TRUNKS)
def test_what_stays_keeps_its_names_and_gradients_and_what_goes_is_freed(family: str, depth: int) -> None:
    model, batch = _model(family).train(), _batch()
    whole = copy.deepcopy(model)
    plan = plan_groups(model, lr=1.0, weight_decay=0.0, freeze=depth)
    assert frozen_depth(plan) == depth
    trainable = {name for row in plan if row.trainable for name in row.param_names}
    frozen = [weakref.ref(p) for name, p in model.named_parameters() if name not in trainable]
    hidden_BLD = trunk_output(model, depth, batch["input_ids"], batch["attention_mask"])
    assert not hidden_BLD.requires_grad
    strip(model, depth)
    gc.collect()
    assert frozen
    assert all(reference() is None for reference in frozen)
    assert {name for name, _ in model.named_parameters()} == trainable
    for one, inputs in ((model, {"hidden": hidden_BLD}), (whole, {"input_ids": batch["input_ids"]})):
        one.eval()
        one(**inputs, attention_mask=batch["attention_mask"]).logits.pow(2).sum().backward()
    wanted = dict(whole.named_parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name].grad, atol=1e-4), name


@pytest.mark.parametrize("family", TRUNKS)
def test_the_top_can_compute_its_activations_again_in_the_backward_pass(family: str) -> None:
    model, batch = _model(family), _batch()
    hidden_BLD = trunk_output(model, 2, batch["input_ids"], batch["attention_mask"])
    strip(model, 2)
    gradients = []
    for again in (False, True):
        if again:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.train().zero_grad()
        torch.manual_seed(5)
        model(hidden=hidden_BLD, attention_mask=batch["attention_mask"]).logits.pow(2).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(*pair, atol=1e-4) for pair in zip(*gradients, strict=True))


def test_a_cut_outside_the_model_and_token_ids_for_a_stripped_one_are_refused() -> None:
    model, batch = _model("bert"), _batch()
    for depth in (0, 5):
        with pytest.raises(ModelError, match="a bottom of"):
            strip(model, depth)
    strip(model, 2)
    with pytest.raises(ModelError, match="takes hidden="):
        model(**batch)

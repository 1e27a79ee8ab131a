"""Adapters of every kind in models of every family that takes them: they begin as nothing, only they and the head train, and each lies in
the layer it changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from models import adapters, text
from models.config import ADAPTERS, ModelConfig
from models.config.origins import SizeConfig
from models.depth import depth_groups, is_part
from models.families import ADAPTED, PREFIXED, TRUNKS, ModelError, new_config
from models.optim import plan_groups
from models.trunk import frozen_depth, strip, trunk_output

IDS = torch.tensor([[5, 6, 7, 8, 9], [6, 8, 10, 0, 0]])
MASK = (IDS > 0).long()
PLACES = [
    *(("lora", family) for family in ADAPTED),
    *(("bottleneck", family) for family in ADAPTED),
    *(("prompt", family) for family in TRUNKS),
    *(("prefix", family) for family in PREFIXED),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            size = SizeConfig(layers=2, width=32, heads=2)
            special = {"pad": 0, "bos": 1, "eos": 2}
            config = new_config(family, size, vocab=40, positions=40, special=special)
            torch.manual_seed(0)
            AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(made[family])
            (made[family] / "config.json").write_text(json.dumps(config))
        return made[family]

    return of


def _build(folder: Any, family: str, kind: str | None, **more: Any) -> Any:
    adapter = {"kind": kind, **more} if kind else None
    config = ModelConfig.model_validate({"path": family, "adapter": adapter, "dropout": 0.0})
    return text.build(config, folder(family), ["a", "b"], seed=3)


def _logits(model: Any) -> torch.Tensor:
    ids = IDS.clone()
    if model.config.model_type in ("t5", "bart"):
        ids[:, 4] = 2  # their classifiers read the end token
        return model(input_ids=ids).logits
    return model(input_ids=ids, attention_mask=MASK).logits


@pytest.mark.parametrize(("kind", "family"), PLACES)
def test_only_adapter_and_head_train_and_each_part_lies_in_its_layer(folder: Any, kind: str, family: str) -> None:
    model = _build(folder, family, kind)
    plan = plan_groups(model, lr=1.0, weight_decay=0.1, only=adapters.trained(model))
    named = [name for row in plan for name in row.param_names]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())  # each in exactly one group
    for row in plan:
        for name in row.param_names:
            assert row.trainable == (is_part(name) or row.name == "head"), name
            if is_part(name):
                layer = re.search(r"\.(?:layers?|h|block)\.(\d+)\.", name)
                assert row.name.endswith(f"layer.{layer[1]}" if layer else "embeddings"), name
    layers = {row.name for row in plan if row.trainable and row.name.rpartition(".")[2] != "head"}
    wanted = {"embeddings"} if kind == "prompt" else {name for name, _ in depth_groups(model) if "layer." in name}
    assert layers == wanted
    _logits(model).pow(2).sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if is_part(name))


@pytest.mark.parametrize(("kind", "family"), [place for place in PLACES if place[0] in ("lora", "bottleneck")])
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(folder: Any, kind: str, family: str) -> None:
    model, plain = _build(folder, family, kind).eval(), _build(folder, family, None).eval()
    assert torch.allclose(_logits(model), _logits(plain), rtol=0, atol=1e-7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_part(name):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert (_logits(model) - _logits(plain)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ADAPTED)
def test_merged_lora_is_the_plain_model_with_the_same_answers(folder: Any, family: str) -> None:
    model, plain = _build(folder, family, "lora", rank=4).eval(), _build(folder, family, None).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_part(name):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    state = adapters.merged(model)
    assert set(state) <= set(plain.state_dict())
    plain.load_state_dict(state, strict=False)
    assert torch.allclose(_logits(plain), _logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "family"), [place for place in PLACES if place[0] in ("prompt", "prefix")])
def test_prompts_and_prefixes_are_seen_by_every_token_and_answer_for_none(folder: Any, kind: str, family: str) -> None:
    """Padding beside a row does not move its answer, the parts do, and outputs stand at the row's own tokens."""
    config = ModelConfig.model_validate({"path": family, "adapter": {"kind": kind, "tokens": 3}, "task": "tagging"})
    model = text.build(config, folder(family), ["a", "b"], seed=3).eval()
    together = model(input_ids=IDS, attention_mask=MASK).logits
    assert together.shape[:2] == IDS.shape
    alone = model(input_ids=IDS[1:, :3], attention_mask=MASK[1:, :3]).logits
    assert torch.allclose(together[1:, :3], alone, atol=1e-5)
    packed_11LL = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    assert torch.allclose(model(input_ids=IDS[:1], attention_mask=packed_11LL).logits, together[:1], atol=1e-5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_part(name):
                parameter.add_(1.0)
    moved = model(input_ids=IDS, attention_mask=MASK).logits
    assert (moved - together).abs()[MASK > 0].min() > 1e-6


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_is_drawn_hangs_on_the_seed_alone(folder: Any, kind: str) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed + len(states))
        config = ModelConfig.model_validate({"path": "bert", "adapter": {"kind": kind}})
        model = text.build(config, folder("bert"), ["a", "b"], seed=seed)
        states.append(torch.cat([p.detach().flatten() for name, p in model.named_parameters() if is_part(name)]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_below_the_lowest_adapter_that_trains_lies_a_trunk_and_prompts_leave_none(folder: Any) -> None:
    for kind, freeze, depth in (("lora", 0, 1), ("bottleneck", 2, 2), ("prompt", 0, 0)):
        model = _build(folder, "bert", kind)
        assert (
            frozen_depth(plan_groups(model, lr=1.0, weight_decay=0.0, freeze=freeze, only=adapters.trained(model)))
            == depth
        )
    model = _build(folder, "bert", "bottleneck").eval()
    wanted = _logits(model)
    hidden_BLD = trunk_output(model, 2, IDS, MASK)
    strip(model, 2)
    assert torch.allclose(model(hidden=hidden_BLD, attention_mask=MASK).logits, wanted, atol=1e-6)


def test_a_freeze_that_leaves_no_adapter_and_families_without_place_are_refused(folder: Any) -> None:
    model = _build(folder, "bert", "lora")
    with pytest.raises(ModelError, match=r"train\.layers\.freeze=3 freezes every part of model\.adapter"):
        plan_groups(model, lr=1.0, weight_decay=0.0, freeze=3, only=adapters.trained(model))
    with pytest.raises(ModelError, match="prefix: it can be put into models of bert, roberta, not of 'gpt2'"):
        _build(folder, "gpt2", "prefix")
    with pytest.raises(ValueError, match="rank is no key of kind=prompt; allowed with it: tokens, alone"):
        _build(folder, "bert", "prompt", rank=3)
    with pytest.raises(ValueError, match="adapter changes a pretrained model: give path"):
        ModelConfig.model_validate({"family": "bert", "tokenizer": "t", "adapter": {"kind": "lora"}})

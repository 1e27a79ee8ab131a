"""What a layer is, for every family and every head that transformers has for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig

from models.depth import depth_groups, layer_of, stacks
from models.families import FAMILIES, ModelError, depth_names
from models.tasks import TASKS
from tests.families import IMAGES, SMALL

HEADS = {
    "AutoModelForSequenceClassification": tuple(FAMILIES),
    "AutoModelForTokenClassification": ("bert", "roberta", "distilbert", "xlnet", "gpt2", "llama"),
    "AutoModelForQuestionAnswering": ("bert", "roberta", "distilbert", "xlnet", "gpt2", "llama", "t5", "bart"),
    "AutoModelForMaskedLM": ("bert", "roberta", "distilbert", "bart"),
    "AutoModelForCausalLM": ("gpt2", "llama", "xlnet"),
    "AutoModelForSeq2SeqLM": ("t5", "bart"),
    "AutoModelForPreTraining": ("bert",),
}
EVERY = [(family, head) for head, families in HEADS.items() for family in families]


def _model(family: str, head: str = "AutoModelForSequenceClassification") -> Any:
    return getattr(transformers, head).from_config(AutoConfig.for_model(family, **SMALL[family]))


def _held_once(model: nn.Module) -> list[str]:
    groups = depth_groups(model)
    members = [id(parameter) for _, group in groups for _, parameter in group]
    assert len(members) == len(set(members))
    assert set(members) == {id(parameter) for parameter in model.parameters()}
    assert all(group for _, group in groups)
    named = dict(model.named_parameters())
    assert all(named[name] is parameter for _, group in groups for name, parameter in group)
    return [name for name, _ in groups]


@pytest.mark.parametrize(("family", "head"), EVERY)
def test_every_parameter_is_in_exactly_one_group_and_the_groups_are_those_that_the_spec_checks_count(
    family: str, head: str
) -> None:
    model = _model(family, head)
    for task in {name for name, (made, _, _) in TASKS.items() if made == head} or {"classification"}:
        assert _held_once(model) == depth_names(model.config.to_dict(), task)


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForImageClassification"])
def test_image_encoders_are_counted_by_their_blocks(family: str, head: str) -> None:
    names = _held_once(getattr(transformers, head).from_config(AutoConfig.for_model(family, **IMAGES[family])))
    layers = [name for name in names if name.startswith("layer.")]
    assert names[: len(layers) + 1] == ["embeddings", *(f"layer.{i}" for i in range(len(layers)))]
    assert len(layers) >= 3
    assert names[len(layers) + 1 :] in ([], ["head"])


@pytest.mark.parametrize(("family", "head"), EVERY)
def test_groups_lie_from_input_to_output(family: str, head: str) -> None:
    """Noise in a group changes the output of no layer below it."""
    if family == "xlnet":
        pytest.skip("its layers pass two streams on")
    torch.manual_seed(0)
    model = _model(family, head).eval()
    outputs: list[torch.Tensor] = []
    found = stacks(model)
    order: list[str] = []

    def keep(label: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            order.append(label)
            outputs.append((output[0] if isinstance(output, tuple) else output).detach().clone())

        return hook

    for stack in found:
        for number, layer in enumerate(model.get_submodule(stack.path)):
            layer.register_forward_hook(keep(stack.label(f"layer.{number}")))
    ids_BL = torch.randint(3, 20, (2, 6))
    ids_BL[:, -1] = 2  # T5's and BART's heads read the end of the text
    decoder = {"decoder_input_ids": ids_BL} if head == "AutoModelForSeq2SeqLM" else {}
    with torch.no_grad():
        model(input_ids=ids_BL, **decoder)
        groups = depth_groups(model)
        names = [name for name, _ in groups]
        assert order == [name for name in names if "layer." in name]
        before, seen = list(outputs), list(order)
        for name, members in reversed(groups):
            kept = [parameter.detach().clone() for _, parameter in members]
            for _, parameter in members:
                parameter.add_(torch.randn(parameter.shape) * 0.5)
            outputs.clear()
            model(input_ids=ids_BL, **decoder)
            same = [torch.equal(a, b) for a, b in zip(before, outputs, strict=True)]
            below = [names.index(label) < names.index(name) for label in seen]
            assert all(equal for equal, lower in zip(same, below, strict=True) if lower)
            if name != "head":
                assert not all(same), name
            for (_, parameter), value in zip(members, kept, strict=True):
                parameter.copy_(value)


def test_the_pooler_belongs_to_the_head() -> None:
    held = {name: [parameter for parameter, _ in group] for name, group in depth_groups(_model("bert"))}
    assert "bert.pooler.dense.weight" in held["head"]
    assert "classifier.weight" in held["head"]


def test_a_tied_output_matrix_is_counted_where_it_is_first_used() -> None:
    held = {
        name: [parameter for parameter, _ in group]
        for name, group in depth_groups(_model("gpt2", "AutoModelForCausalLM"))
    }
    assert "transformer.wte.weight" in held["embeddings"]
    assert held["head"] == ["transformer.ln_f.weight", "transformer.ln_f.bias"]


def test_an_encoder_and_a_decoder_are_told_apart() -> None:
    names = [name for name, _ in depth_groups(_model("bart", "AutoModelForSeq2SeqLM"))]
    assert names == [
        *("encoder.embeddings", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2"),
        *("decoder.embeddings", "decoder.layer.0", "decoder.layer.1"),
    ]


def test_the_layer_of_a_parameter_is_read_off_its_name() -> None:
    found = stacks(_model("bert"))
    inside = layer_of("bert.encoder.layer.2.output.dense.bias", found)
    assert inside is not None
    assert inside[1] == 2
    assert layer_of("bert.embeddings.word_embeddings.weight", found) is None


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no list of layers"):
        depth_groups(nn.Linear(2, 2))


class _Towers(nn.Module):
    """Two encoders and a head, as our own multimodal models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = _model("bert")
        self.pictures = transformers.AutoModel.from_config(AutoConfig.for_model("vit", **IMAGES["vit"]))
        self.classifier = nn.Linear(32, 2)

    def towers(self) -> list[tuple[str, nn.Module]]:
        return [("text", self.words.bert), ("image", self.pictures)]


def test_towers_are_counted_apart() -> None:
    model = _Towers()
    names = _held_once(model)
    assert names == [
        *("text.embeddings", "text.layer.0", "text.layer.1", "text.layer.2", "text.top"),
        *("image.embeddings", "image.layer.0", "image.layer.1", "image.layer.2", "image.top"),
        "head",
    ]
    held = {name: [parameter for parameter, _ in group] for name, group in depth_groups(model)}
    assert held["head"] == ["words.classifier.weight", "words.classifier.bias", "classifier.weight", "classifier.bias"]

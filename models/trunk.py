"""A model in two parts: the frozen bottom (embeddings and `depth - 1` layers) and what is trained above it. Takes a
model of a family in `TRUNKS` and the number of depth groups below the cut; gives the bottom's output for token ids, and
turns the model into its top, which takes that output. Both together compute what the whole model does, masks included.
Called by the training side before its first step. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import nn

from models.families import TRUNKS, ModelError, depth_names
from models.optim import GroupPlan


def frozen_depth(plan: Sequence[GroupPlan]) -> int:
    """Depth groups below the lowest one with a trainable parameter."""
    names = list(dict.fromkeys(row.name for row in plan))
    trained = {row.name for row in plan if row.trainable}
    return next((depth for depth, name in enumerate(names) if name in trained), len(names))


def below_the_head(model: nn.Module, depth: int) -> bool:
    """Whether nothing but the head lies above the cut."""
    return depth == len(_names(model)) - 1


@torch.no_grad()
def trunk_output(
    model: nn.Module, depth: int, input_ids_BL: torch.Tensor, attention_mask_BL: torch.Tensor, **more: torch.Tensor
) -> torch.Tensor:
    """`hidden_BLD` that enters the groups above the bottom `depth` ones, dropout off, nothing kept for a backward pass. The bottom
    is left in evaluation mode. `more`: other inputs of the embeddings, by name (`token_type_ids`). Raises ModelError for a depth that leaves no embeddings below or no head above."""
    encoder = _below(model, depth)
    return encoder(input_ids=input_ids_BL, attention_mask=attention_mask_BL, **more).last_hidden_state


def strip(model: nn.Module, depth: int) -> None:
    """Turn the model, in place, into its top part: `model(hidden=hidden_BLD, attention_mask=mask_BL).logits`. The parameters that stay
    keep their names; those of the bottom are let go. Raises ModelError as `trunk_output`."""
    encoder, _, layers = _parts(model, depth)
    encoder.embeddings = Given()
    for number in range(depth - 1):
        layers[number] = PassOn()
    model.register_forward_pre_hook(_hidden_in, with_kwargs=True)


class Given(nn.Module):
    """In place of the embeddings: the hidden states that came in. The order of arguments is DistilBERT's, BERT names them.
    `word_embeddings`: what transformers looks for when it switches activation checkpointing on."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Identity()

    def forward(
        self, input_ids: Any = None, inputs_embeds: torch.Tensor | None = None, position_ids: Any = None, **_: Any
    ) -> torch.Tensor:
        if inputs_embeds is None:
            raise ModelError("the bottom of this model was taken off: it takes hidden=, not token ids")
        return inputs_embeds


class PassOn(nn.Module):
    """In place of a frozen layer. Without parameters, so that layers above keep their numbers."""

    def forward(self, hidden_BLD: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_BLD


def _hidden_in(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The name under which transformers' models take what their embeddings would give."""
    if "hidden" in kwargs:
        kwargs = {**kwargs, "inputs_embeds": kwargs["hidden"]}
        del kwargs["hidden"]
    return args, kwargs


def _parts(model: nn.Module, depth: int) -> tuple[nn.Module, nn.Module, nn.ModuleList]:
    """The encoder, the module inside it that runs the layers, and its list of them."""
    names = _names(model)
    if not 1 <= depth < len(names):
        raise ModelError(
            f"a bottom of {depth} depth groups of {len(names)}: it holds embeddings and at most all layers"
        )
    attribute, path = TRUNKS[model.config.model_type]
    encoder = getattr(model, attribute)
    *above, last = path.split(".")
    stack = reduce(getattr, above, encoder)
    return encoder, stack, getattr(stack, last)


def _below(model: nn.Module, depth: int) -> nn.Module:
    """An encoder of the same modules that ends at the cut. The model itself stays whole."""
    whole, whole_stack, layers = _parts(model, depth)
    encoder, stack = _twin(whole), _twin(whole_stack)
    for twin, children in (
        (stack, {layers: nn.ModuleList(list(layers)[: depth - 1])}),
        (encoder, {whole_stack: stack}),
    ):
        if depth < len(_names(model)) - 1:
            twin._forward_hooks = OrderedDict()  # what the head reads is made of the last layer's outputs (`pooling`)
        twin._modules = {name: children.get(child, child) for name, child in twin._modules.items() if name != "pooler"}
    if hasattr(whole, "pooler"):
        encoder.pooler = None  # part of the head
    return encoder.eval()


def _twin(module: nn.Module) -> nn.Module:
    """The same module, whose children can be exchanged without touching it."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _names(model: nn.Module) -> list[str]:
    family = model.config.model_type
    if family not in TRUNKS:
        raise ModelError(f"a frozen bottom can be cut off models of {', '.join(TRUNKS)}, not of {family!r}")
    return depth_names(model.config.to_dict()) or []

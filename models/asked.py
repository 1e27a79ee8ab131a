"""The output layer of a masked language model at the tokens that are asked for, and at no others: 15% of them as a rule. Takes a model of a
family in HEADS; it then also takes `asked` (N,), numbers of tokens in the batch row by row, and gives logits (1, N, V) for those. Called
when a model is made ready for training; without `asked` the model does what it did.

The layer over the vocabulary is as dear as six layers of 384 below it: MiniLM's 30,522 entries cost 23 MFLOP a token, its layers 21."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# How a class of transformers ends -> model_type -> the first module that works on the hidden states of hidden tokens alone, behind the last layer.
HEADS = {
    "ForMaskedLM": {"bert": "cls", "roberta": "lm_head", "distilbert": "vocab_transform"},
    "ForPreTraining": {"bert": "cls.predictions", "albert": "predictions"},
}


def narrow(model: nn.Module) -> bool:
    """Whether the model can be told: its head is a known one, or it takes `asked` by itself."""
    if getattr(model, "takes_asked", False):
        return True
    family = str(getattr(model.config, "model_type", ""))
    path = next(
        (found[family] for end, found in HEADS.items() if type(model).__name__.endswith(end) and family in found), ""
    )
    if not path:
        return False
    head = model.get_submodule(path)
    asked: list[torch.Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        asked.clear()
        if "asked" in kwargs:
            asked.append(kwargs.pop("asked"))
        return args, kwargs

    def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (args[0].flatten(0, 1)[asked[0]][None], *args[1:]) if asked else None

    model.register_forward_pre_hook(take, with_kwargs=True)
    head.register_forward_pre_hook(pick)
    return True

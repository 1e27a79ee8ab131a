"""Layers that share their weights (Lan et al. 2020, ALBERT, arXiv 1909.11942, section 3.1): a model keeps its depth and has the parameters of a few
layers. `config.share_layers` of a model says how many layers have weights of their own; the others use those of the first layer of their
stretch. Each parameter has the name of the layer that uses it first, which is what checkpoints, packages and depth groups know. Called
wherever a model is made or opened."""

from __future__ import annotations

from torch import nn

from models.depth import stacks
from models.families import ModelError, owners


def tie(model: nn.Module) -> None:
    """As the model's config says; nothing where it says nothing. In place: modules stay, their parameters become those of the owner. An
    encoder and a decoder share nothing with each other. Raises ModelError for layers that are not alike, and fewer of them than
    `share_layers`."""
    distinct = getattr(model.config, "share_layers", None)
    if distinct is None:
        return
    for stack in stacks(model):
        layers = model.get_submodule(stack.path)
        for number, owner in enumerate(owners(len(layers), int(distinct))):  # type: ignore[arg-type]
            if owner != number:
                _use(layers[number], layers[owner])  # type: ignore[index]


def _use(layer: nn.Module, owner: nn.Module) -> None:
    theirs = dict(owner.named_parameters())
    for name, parameter in list(layer.named_parameters()):
        if name not in theirs or theirs[name].shape != parameter.shape:
            raise ModelError(f"model.share_layers: the layers of this model are not alike: {name} differs")
        path, _, leaf = name.rpartition(".")
        setattr(layer.get_submodule(path), leaf, theirs[name])

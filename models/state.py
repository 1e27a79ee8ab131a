"""Named tensors of a model: what a checkpoint and a package hold."""

from __future__ import annotations

import torch
from torch import nn

NamedTensors = dict[str, torch.Tensor]


def named_state(model: nn.Module) -> NamedTensors:
    """Parameters (a tied one once, by its first name) and persistent buffers: what a checkpoint holds."""
    named: NamedTensors = dict(model.named_parameters())
    seen = {id(tensor) for tensor in named.values()}
    tied = {id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and id(tensor) not in tied:
            named[name] = tensor
    return named

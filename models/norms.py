"""Batch norms that do not look at the batch. Takes a model of pictures; its batch norms scale by stored statistics in training too, so
that a row's result hangs neither on its company nor on how many workers share a batch, and a package says what training saw (He et al.
2015 and Detectron freeze them likewise when they go on from pretrained weights). Called by `build`.

A pretrained model brings its statistics. Those of a model from scratch are measured once, on random pixels, before the first step: scale
and shift go on to learn, and the outputs of every layer begin with mean 0 and deviation 1."""

from __future__ import annotations

import torch
from torch import nn

ROWS = 64  # of random pixels: the narrowest last map, 2 x 2, then gives 256 values a channel


class StillNorm(nn.BatchNorm2d):
    """Always in evaluation mode."""

    def train(self, mode: bool = True) -> StillNorm:
        return super().train(False)


def still(model: nn.Module) -> list[nn.BatchNorm2d]:
    """In place; gives the norms. Names of tensors, and so saved folders, stay as they are."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for norm in norms:
        norm.__class__ = StillNorm
        norm.eval()
    return norms


@torch.no_grad()
def measure(model: nn.Module, size: int) -> None:
    """Statistics of random pixels of `size` x `size`, the same in every process: one thread, a generator of its own."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    before, threads = [norm.momentum for norm in norms], torch.get_num_threads()
    model.eval()
    for norm in norms:
        norm.reset_parameters()  # gain 1 and shift 0: transformers draws EfficientNet's gains near 0, and nothing would pass
        norm.momentum, norm.training = 1.0, True
    try:
        torch.set_num_threads(1)
        model(pixel_values=torch.randn(ROWS, 3, size, size, generator=torch.Generator().manual_seed(0)))
    finally:
        torch.set_num_threads(threads)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, False
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()

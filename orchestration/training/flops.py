"""How much arithmetic a training step is, and how much this machine can do: their ratio is the model FLOPs utilisation (Chowdhery et al.
2022, "PaLM", appendix B). Takes numbers from a model's config.json; `make bench-training` divides. Counts matrix products alone, a
multiplication and an addition as two; nothing that is computed a second time (activation checkpointing) counts.

With width D, inner width I, layers N and C labels, a row of L tokens through one encoder layer is

    forward   L (8 D^2 + 4 D I) + 4 L^2 D      four projections, two of the feed-forward part; scores and their use
    backward  twice that                       for the inputs and for the weights

and the head, on the first token alone, 2 D^2 + 2 D C and twice that. A frozen layer below all trained ones has no backward pass, and
the lowest trained part gives its input no gradient: 6 D^2 a token less where that is a layer (query, key and value), 2 D^2 a row
where it is the head. Embeddings are look-ups, which are no products."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

KEYS = {  # of config.json, by family
    "layers": ("num_hidden_layers", "n_layers"),
    "width": ("hidden_size", "dim"),
    "inner": ("intermediate_size", "hidden_dim"),
}
ROUNDS = 7


@dataclass(frozen=True)
class Encoder:
    """An encoder with a classification head, as the formula takes it."""

    layers: int
    width: int
    inner: int
    labels: int

    @staticmethod
    def of(config: dict[str, Any], labels: int) -> Encoder:
        """From the values of config.json. Raises KeyError for a family whose sizes have other names."""
        sizes = {}
        for what, keys in KEYS.items():
            if not (found := [key for key in keys if key in config]):
                raise KeyError(f"config.json has none of {', '.join(keys)}")
            sizes[what] = int(config[found[0]])
        return Encoder(**sizes, labels=labels)


def training_flops(encoder: Encoder, lengths: Iterable[int], *, frozen: int = 0, trunk: bool = False) -> int:
    """Forward and backward of rows of so many tokens each. `lengths`: the rows' own for what is useful, those of the padded batch for
    what is computed. `frozen`: depth groups, as `train.layers.freeze` counts them. `trunk`: the frozen part is read, not computed."""
    below = min(max(0, frozen - 1), encoder.layers)  # depth group 0 is the embeddings
    trained = encoder.layers - below
    width = encoder.width
    head = 3 * (2 * width**2 + 2 * width * encoder.labels) - (0 if trained else 2 * width**2)
    total = 0
    for length in lengths:
        forward = length * (8 * width**2 + 4 * width * encoder.inner) + 4 * length**2 * width
        spared = 6 * length * width**2 if frozen and trained else 0
        total += 3 * trained * forward - spared + (0 if trunk else below * forward) + head
    return total


@lru_cache
def matmul_rate(threads: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """FLOPs a second of one large matrix product here, the best of some: what a step could reach at most. Takes a second."""
    size = 1024 if device == "cpu" else 8192
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / min(_seconds(left, right) for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(before)


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """Of this thread's own processor time on one CPU thread, so that other processes on the machine do not count."""
    alone = left.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    began = clock()
    left @ right
    if left.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began

"""How much memory a training worker needs under each ZeRO stage, and which stage `auto` means. Pure arithmetic on parameter
counts: the plan verb shows the numbers, the engine chooses by them. Imports nothing heavy.

Bytes a parameter, all fp32: weight 4; trainable ones also gradient 4, and 4 for each moment that the optimizer keeps of them: two of
AdamW, Adam and LAMB, one of SGD with momentum, none without. ZeRO 1 and 2 add a flat fp32 copy of the worker's own part (4); stages share
out, by world size: 1 the moments, 2 the gradients too, 3 the weights too (Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward
Training Trillion Parameter Models"). The copy that checkpoints are written from, weight and moments, is shared out too and lies in the
machine's memory: it counts where that is the worker's."""

from __future__ import annotations

STAGES = (0, 1, 2, 3)
HEADROOM = (
    0.6  # of a worker's memory for weights, gradients and moments; the rest is for activations and everything else
)


def worker_bytes(*, numel: int, trainable: int, moments: int, world: int, stage: int, copies: bool = True) -> int:
    """Bytes of weights, gradients and optimizer state on one worker. `numel`, `trainable`: parameters of the whole model; `moments`:
    kept of each trainable one. `copies`: with those that checkpoints are written from; False for a GPU's memory."""
    weights, gradients, state = 4 * numel, 4 * trainable, 4 * moments * trainable
    copied = (state + 4 * trainable) / world if copies else 0.0
    if stage == 0:
        return int(weights + gradients + state + copied)
    own = (state + 4 * trainable) / world + copied
    if stage == 3:
        return int(weights / world + gradients / world + own)
    return int(weights + gradients / (world if stage == 2 else 1) + own)


def lowest_stage(
    *, numel: int, trainable: int, moments: int, world: int, memory_bytes: int, copies: bool = True
) -> int:
    """The lowest stage whose share fits into HEADROOM of a worker's memory; 3 where none does (it needs least)."""
    for stage in STAGES:
        needed = worker_bytes(
            numel=numel, trainable=trainable, moments=moments, world=world, stage=stage, copies=copies
        )
        if needed <= HEADROOM * memory_bytes:
            return stage
    return STAGES[-1]

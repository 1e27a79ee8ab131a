"""A training state in pieces. A tensor is flattened and cut wherever the ranks that hold it cut it; over all ranks every element
occurs exactly once. Engines give fragments, checkpoints store them, and any other number of ranks, under any ZeRO stage, puts
together what it needs. Knows neither."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + values.numel()) of the flattened tensor `name`; `values` is one-dimensional, on the CPU: fp32, but
    for a buffer, which keeps the model's own type."""

    name: str
    start: int
    values: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of the state after an update: trainable parameters, persistent buffers, and what the optimizer keeps of each
    parameter, such as `{parameter}.exp_avg`. `shapes`: of all these over all ranks. `steps`: updates behind the moments of each
    trainable parameter. `extra`: numbers of the engine's own, such as the loss scale of fp16."""

    weights: list[Fragment]
    moments: list[Fragment]
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, int]
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Where an engine holds elements [start, start + numel) of the flattened parameter `name`: at `offset` of `flat`, which is
    also the tensor that its optimizer keeps state of."""

    name: str
    start: int
    numel: int
    flat: torch.Tensor
    offset: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The piece's elements in `flat` or in a tensor of its shape, as a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)


def share(sizes: dict[str, int], *, rank: int, world: int) -> list[tuple[str, int, int]]:
    """What `rank` writes of tensors that every rank holds whole: (name, start, numel), an equal part of all elements in order."""
    total, begin, found = sum(sizes.values()), 0, []
    first, end = total * rank // world, total * (rank + 1) // world
    for name, size in sizes.items():
        start, stop = max(first, begin) - begin, min(end, begin + size) - begin
        if stop > start:
            found.append((name, start, stop - start))
        begin += size
    return found


class HostCopies:
    """Copies of tensors in this machine's memory. Each name has its buffer, made once (page-locked where the tensors come from a
    GPU, so that copies run at the bus's speed) and written again by the next copy: whoever reads one is done by then."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.buffers = device, dict[str, torch.Tensor]()

    def fragment(self, name: str, start: int, values_N: torch.Tensor) -> Fragment:
        """Valid after `wait`."""
        buffer = self._room(name, values_N)
        buffer.copy_(values_N, non_blocking=True)
        return Fragment(name, start, buffer)

    def make_room(self, name: str, like_N: torch.Tensor) -> None:
        """The buffer that a copy of `like_N` will take, its pages touched: the first copy of 136 MB without that waits for 33,000 page
        faults, 0.26 s against 0.04 s for the copy."""
        self._room(name, like_N).zero_()

    def _room(self, name: str, like_N: torch.Tensor) -> torch.Tensor:
        if name not in self.buffers:
            pin = self.device.type == "cuda"
            self.buffers[name] = torch.empty(like_N.shape, dtype=like_N.dtype, pin_memory=pin)
        return self.buffers[name]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

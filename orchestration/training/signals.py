"""What a rank noticed and all must act on in the same step: the user wants to stop, a node will be taken away, a checkpoint is due by
the clock. Takes this rank's flags once a step; gives those of all ranks of the step before. The reduction runs beside the step on a
process group of its own, so no step waits for it. Called by the loop."""

from __future__ import annotations

from typing import Any

import torch

STOP, PREEMPTED, SAVE = "stop", "preempted", "save"
FLAGS = (STOP, PREEMPTED, SAVE)


class Signals:
    """Collective, as is every call."""

    def __init__(self, world: int) -> None:
        self.group: Any = torch.distributed.new_group(backend="gloo") if world > 1 else None
        self.waiting: tuple[torch.Tensor, Any] | None = None

    def exchange(self, flags: set[str]) -> set[str]:
        """The flags that some rank passed one call ago."""
        arrived = self._arrived()
        mine_F = torch.tensor([flag in flags for flag in FLAGS], dtype=torch.uint8)
        work = None
        if self.group is not None:
            work = torch.distributed.all_reduce(mine_F, torch.distributed.ReduceOp.MAX, self.group, async_op=True)
        self.waiting = (mine_F, work)
        return arrived

    def close(self) -> None:
        """Wait for the last reduction: a group must not end under it."""
        self._arrived()

    def _arrived(self) -> set[str]:
        if self.waiting is None:
            return set()
        found_F, work = self.waiting
        self.waiting = None
        if work is not None:
            work.wait()
        return {flag for flag, there in zip(FLAGS, found_F.tolist(), strict=True) if there}

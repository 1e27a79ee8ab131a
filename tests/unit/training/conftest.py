"""What tests of the training side share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def group_of_one() -> Iterator[None]:
    """A process group of this process alone: a sum over one rank. Those of two and three are in tests/parity."""
    made = not torch.distributed.is_initialized()
    if made:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    if made:
        torch.distributed.destroy_process_group()

"""Seconds by part. `with clock("train"): ...` adds to `clock.seconds["train"]`. Used by the loop; knows nothing else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began

"""SIGINT and SIGTERM while a fit runs: the first one asks for an orderly end, the second one for an end at once. Used by `trainer` in the
driver's main thread; in any other thread nothing is installed, since Python allows it nowhere else. Knows no Ray."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

GRACE_S = 30.0  # from the first signal to the end at once: a step, and a checkpoint's write


class Interrupted(KeyboardInterrupt):
    """What the caller gets, so that whatever ends on Ctrl-C ends on SIGTERM too. `exit_code`: 130 or 143, as a shell tells it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """`with Interrupts() as interrupts: ...`; handlers only count. `first`: the signal, None before it."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.grace_s = grace_s
        self.first: int | None = None
        self._count, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def at_once(self) -> bool:
        """A second signal came, or the first one's time is over."""
        return self._count > 1 or (self._count == 1 and time.monotonic() - self._since > self.grace_s)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self.first is None:
            self.first, self._since = number, time.monotonic()

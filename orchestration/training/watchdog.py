"""Ends a worker that makes no progress. The loop calls `beat()` at every step, validation batch and checkpoint; `Watch` ends the process
when none came for `timeout_s`, after writing every thread's stack to standard error (the worker's log), so Ray Train starts the group
again. Called by `worker`; knows neither Ray nor torch.

The thread needs Python's lock. A hang inside a library that never gives it back is ended by faulthandler's own thread, which
needs nothing of Python's."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

EXIT_CODE = 70  # EX_SOFTWARE
LATER_S = 15.0  # after the thread's own moment: by then only the lock can have stopped it
TELL_S = 2.0  # the driver may be gone
_beaten = time.monotonic()


def beat() -> None:
    """This process makes progress."""
    global _beaten
    _beaten = time.monotonic()


class Watch:
    """`with Watch(timeout_s, tell): train()`. `tell(sentence)` is called before the process ends, in a thread of its own."""

    def __init__(self, timeout_s: float, tell: Callable[[str], None], *, end: Callable[[int], None] = os._exit) -> None:
        self.timeout_s, self.tell, self.end = timeout_s, tell, end
        self._watched = threading.get_ident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang-watch", daemon=True)

    def __enter__(self) -> Watch:
        beat()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            left = _beaten + self.timeout_s - time.monotonic()
            if left <= 0:
                return self._hangs()
            with contextlib.suppress(ValueError, OSError, AttributeError):  # a standard error that is no file
                faulthandler.dump_traceback_later(left + LATER_S, exit=True)
            if self._done.wait(min(left, max(0.05, self.timeout_s / 10))):
                return None

    def _hangs(self) -> None:
        where = _innermost(sys._current_frames().get(self._watched))
        with contextlib.suppress(ValueError, OSError, AttributeError):
            faulthandler.dump_traceback(all_threads=True)
        telling = threading.Thread(
            target=self.tell, args=(f"no progress for {self.timeout_s:g} s, in {where}",), daemon=True
        )
        telling.start()
        telling.join(TELL_S)
        self.end(EXIT_CODE)


def _innermost(frame: FrameType | None) -> str:
    """`function at file:line`, of the innermost three frames."""
    if frame is None:
        return "a thread that has ended"
    last = traceback.extract_stack(frame)[-3:]
    return " < ".join(f"{found.name} ({os.path.basename(found.filename)}:{found.lineno})" for found in reversed(last))

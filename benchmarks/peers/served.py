"""What the served peer scripts share: a loop that answers pieces of work, and a stopwatch. Imports nothing of Eagleray."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def serve(work: Callable[..., dict[str, Any]]) -> None:
    """A line of JSON at standard input is the arguments of one piece of work, a line at standard output its answer. Whatever a
    library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(work(**json.loads(line))), file=answers, flush=True)


@contextlib.contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Fills `seconds` and `cpu_seconds` (this process) at the block's end."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found.update(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)

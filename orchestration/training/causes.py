"""Why a worker failed. Takes the exceptions of a group's ranks as Ray Train collects them; gives the one fault that our driver must
decide about (plain values, for `decisions`), or None where starting the group again is all there is to do, which is Ray Train's. Goes by
attributes and class names: imports neither Ray nor torch."""

from __future__ import annotations

import errno
from typing import Any

from orchestration.training.faults import Fault

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What Ray's memory monitor says of a worker that it killed (ray 2.60.0, src/ray/common/memory_monitor.h and node_manager.cc)
KILLED_FOR_MEMORY = ("running low on memory", "memory monitor", "ran out of memory", "OUT_OF_MEMORY")


def fault(errors: dict[int, BaseException]) -> dict[str, Any] | None:
    """`errors`: rank -> exception. Of several the one that says most: the others often fail only because of it."""
    found = [(rank, known) for rank, error in sorted(errors.items()) if (known := _known(bare(error)))]
    if not found:
        return None
    rank, first = min(found, key=lambda item: (_order(item[1]["kind"]), item[0]))
    return {**first, "rank": rank}


def _order(kind: str) -> int:
    """A wrong spec before anything else; of two faults the one that a rank saw itself before what killed it."""
    order = ("user", "stale_writer", "disk_full", "out_of_memory", "not_finite")
    return order.index(kind) if kind in order else len(order)


def _known(error: BaseException) -> dict[str, Any] | None:
    if isinstance(error, Fault):
        return error.dump()
    if (code := getattr(error, "exit_code", None)) is not None:
        return {"kind": "user", "text": str(error), "exit_code": code}
    if isinstance(error, OSError) and error.errno in FULL:
        return {"kind": "disk_full", "text": f"no room to write: {error}"}
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _killed_for_memory(error):
        return {"kind": "out_of_memory", "text": f"a worker ran out of memory: {line(error)}"}
    return None


def _killed_for_memory(error: BaseException) -> bool:
    """Ray's own words about an actor's death; the words of a worker's own code are no proof."""
    return type(error).__module__.startswith("ray.") and any(word in str(error) for word in KILLED_FOR_MEMORY)


def bare(error: BaseException) -> BaseException:
    """The error itself, out of the failed health check in which Ray Train hands over an actor's death."""
    return getattr(error, "health_check_failure", None) or error


def line(error: BaseException) -> str:
    """One line for people: of a dead worker how it died, of an exception its kind and its last line."""
    error = bare(error)
    lines = [text.strip() for text in str(error).strip().splitlines() if text.strip()] or [""]
    if type(error).__module__.startswith("ray."):
        told = next((text for text in lines if text.startswith("The actor is dead because")), lines[-1])
        return told.removeprefix("The actor is dead because ").partition(" Some common causes")[0][:300]
    return f"{type(error).__name__}: {lines[-1]}"[:300]

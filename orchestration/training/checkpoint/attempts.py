"""Attempts of a run: one start of its workers each, numbered from 1, a file `<run>/attempts/%06d.json` each. Takes a run; gives the next
number, and the rule that keeps workers of an older attempt, which may still run somewhere, from being heard.

The number is taken by exclusive creation. That is guaranteed on file systems and on stores with conditional puts (AWS S3, GCS); on
others fsspec asks before it writes, and two starts in the same instant could get the same number."""

from __future__ import annotations

import json
import os
import platform
import time
from typing import Any

from orchestration.storage import Storage
from orchestration.training.faults import StaleWriter


def claim_attempt(storage: Storage, run_rel: str) -> int:
    """Take the next number. From then on older attempts of the run seal nothing more."""
    facts = {"who": f"{os.getuid()}", "host": platform.node(), "pid": os.getpid(), "when": time.time()}
    data = json.dumps(facts, sort_keys=True).encode()
    number = newest_attempt(storage, run_rel) + 1
    while not storage.create(_file(run_rel, number), data):
        number += 1
    return number


def note_resumed(storage: Storage, run_rel: str, attempt: int, found_step: int | None) -> None:
    """Say which step the attempt goes on from; None: from the beginning. Call before its first checkpoint."""
    facts = _read(storage, run_rel, attempt)
    storage.write_json(_file(run_rel, attempt), {**facts, "resumed_from": -1 if found_step is None else found_step})


def newest_attempt(storage: Storage, run_rel: str) -> int:
    """0 where there is none."""
    return max(_numbers(storage, run_rel), default=0)


def refuse_stale(storage: Storage, run_rel: str, attempt: int) -> None:
    """Raises StaleWriter where a newer attempt has begun."""
    newest = newest_attempt(storage, run_rel)
    if newest > attempt:
        raise StaleWriter(
            f"{run_rel}: attempt {newest} of this run has begun, so attempt {attempt} writes no more checkpoints",
            attempt=attempt,
            newest=newest,
        )


class Fence:
    """Which checkpoints belong to the run's history. One is ignored where a newer attempt went on from an earlier step: its writer
    was stale, or the run was rolled back behind it."""

    def __init__(self, storage: Storage, run_rel: str) -> None:
        facts = {number: _read(storage, run_rel, number) for number in _numbers(storage, run_rel)}
        self.resumed: dict[int, int] = {n: f["resumed_from"] for n, f in facts.items() if "resumed_from" in f}

    def passes(self, step: int, attempt: int) -> bool:
        return all(step <= resumed for newer, resumed in self.resumed.items() if newer > attempt)


def _numbers(storage: Storage, run_rel: str) -> list[int]:
    names = storage.list(f"{run_rel}/attempts")
    return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]


def _file(run_rel: str, number: int) -> str:
    return f"{run_rel}/attempts/{number:06d}.json"


def _read(storage: Storage, run_rel: str, number: int) -> dict[str, Any]:
    """{} where its writer died before it had said anything."""
    try:
        value = storage.read_json(_file(run_rel, number))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

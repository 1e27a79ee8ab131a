"""Writers of checkpoints that are ended by kill -9: `python -m tests.killing ROOT '{"random": 100}'` or `'{"every": true}'`. One process
that imports torch forks the victims. Prints one JSON line; what does not hold ends it with an error.

`random`: a run of two ranks is killed so many times at random moments of its saves, each time by the next attempt gone on with.
`every`: a save, with the removal of an old checkpoint, is ended before each of its operations on files in turn."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from orchestration.storage import MANIFEST, Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import tensors
from tests.states import RUN, Attempt, draw, is_whole

WIDTH = 200  # a checkpoint of 3 MB, a save of about 20 ms
OPERATIONS = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync", "fdatasync")
NEVER_SEALED = "all parts are there, but no manifest"


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


# ------------------------------------------------------------------------------------------------ at random moments


def at_random(storage: Storage, kills: int, pick: random.Random) -> dict[str, Any]:
    left: Counter[str] = Counter()
    steps = 0
    for _ in range(kills):
        reading, writing = os.pipe()
        victim = forked(lambda end=writing: train(storage, end))  # type: ignore[misc]
        os.close(writing)
        assert os.read(reading, 16)  # it has found its checkpoint and goes on
        time.sleep(pick.random() * 0.15)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        told = [int(step) for step in _rest(reading).split()]
        half = [
            n for n in storage.list(f"{RUN}/checkpoints") if not storage.exists(f"{RUN}/checkpoints/{n}/{MANIFEST}")
        ]
        left["in a save" if half else "between saves"] += 1
        steps = check(storage, at_least=max([steps, *told]))
    return {"kills": kills, "steps": steps, **left, "attempts": len(storage.list(f"{RUN}/attempts"))}


def train(storage: Storage, end: int) -> None:
    attempt = Attempt(storage, keep=2)
    os.write(end, b"ready ")
    for step in itertools.count(attempt.found.step + 1 if attempt.found else 1):
        attempt.save(draw(step, width=WIDTH))
        for saved in attempt.writers[0].finished():
            os.write(end, f"{saved.step} ".encode())


def _rest(reading: int) -> str:
    with os.fdopen(reading) as pipe:
        return pipe.read()


def check(storage: Storage, *, at_least: int) -> int:
    """The newest checkpoint is whole, nothing that was told to be saved is lost, and nothing was found damaged; its step."""
    said: list[str] = []
    found = checkpoint.newest(storage, RUN, said.append)
    step = found.step if found else 0
    assert step >= at_least, f"step {at_least} was saved, step {step} was found; {said}"
    assert found is None or is_whole(storage, found.rel, draw(step, width=WIDTH)), found
    assert not [sentence for sentence in said if NEVER_SEALED not in sentence], said
    return step


# ------------------------------------------------------------------------------------------------ before each operation


def before_each(root: Path) -> dict[str, Any]:
    base = Storage(str(root / "base"))
    first = Attempt(base, keep=1)
    for step in (1, 2):
        first.save(draw(step, width=WIDTH))
    first.wait()
    found: Counter[str] = Counter()
    count, over = 0, False
    while not over:
        count += 1
        shutil.copytree(root / "base", root / "tried")
        step, over = one(Storage(str(root / "tried")), count)
        found[str(step)] += 1
        shutil.rmtree(root / "tried")
    return {"operations": count - 1, "found": dict(sorted(found.items()))}


def one(storage: Storage, count: int) -> tuple[int, bool]:
    """(step of the newest checkpoint after an end before operation number `count`, whether the save was over by then)"""
    ended = os.waitpid(forked(lambda: dies(storage, count)), 0)[1]
    step = check(storage, at_least=2)
    again = Attempt(storage, keep=1)
    again.save(draw(4, width=WIDTH))
    again.wait()
    assert check(storage, at_least=4) == 4
    assert len(storage.list(f"{RUN}/checkpoints")) == 1, storage.list(f"{RUN}/checkpoints")
    return step, ended == 0


def dies(storage: Storage, at: int) -> None:
    attempt = Attempt(storage, keep=1)
    counted, lock = itertools.count(1), threading.Lock()

    def count() -> None:
        with lock:
            if next(counted) == at:
                os._exit(9)

    for name in OPERATIONS:
        setattr(os, name, _counting(getattr(os, name), count))
    chunks = tensors._chunks

    def halves(named: dict[str, Any]) -> Iterator[memoryview]:
        for chunk in chunks(named):
            yield chunk[: len(chunk) // 2]
            count()
            yield chunk[len(chunk) // 2 :]

    tensors._chunks = halves
    attempt.save(draw(3, width=WIDTH))
    attempt.wait()


def _counting(operation: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        count()
        return operation(*args, **kwargs)

    return counted


if __name__ == "__main__":
    place, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)  # a pool of OpenMP threads is not there in a fork, which waits for it for ever
    if asked.get("random"):
        made = at_random(Storage(str(place)), asked["random"], random.Random(asked.get("seed", 11)))
    else:
        made = before_each(place)
    print(json.dumps(made))

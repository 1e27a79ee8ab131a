"""The newest checkpoint to go on from. Takes a run; gives the newest whose every byte is what was written, frozen weights included. A
damaged one is named with its file and reason, moved to `<run>/damaged/<name>`, where nobody looks for it and a person can, and the
one before is taken. Called on rank 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import Storage, check_file
from orchestration.training.checkpoint import format, frozen, old, reader
from orchestration.training.checkpoint.attempts import Fence
from orchestration.training.state import TrainState

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """A checkpoint that was verified. `meta`: what the caller of `Writer.save` gave (plan, job, identity)."""

    rel: str
    state: TrainState
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return self.state.step


def newest(storage: Storage, run_rel: str, on_damaged: Tell, *, before_step: int | None = None) -> Found | None:
    """None where there is none. `before_step`: only those of earlier steps. Each damaged one is passed to `on_damaged` as a sentence."""
    fence = Fence(storage, run_rel)
    for step, attempt in reversed(candidates(storage, run_rel)):
        if (before_step is not None and step >= before_step) or not fence.passes(step, attempt):
            continue
        rel = format.name(run_rel, step, attempt)
        try:
            found = _open_whole(storage, rel)
        except DamagedError as error:
            moved = _quarantine(storage, run_rel, rel)
            on_damaged(f"checkpoint {rel} is damaged and skipped for the one before: {error}; {moved}")
            continue
        if found:
            return found
    return old.newest(storage, run_rel, on_damaged)


def verify(storage: Storage, rel: str) -> None:
    """Compare every file with the manifest, also of the frozen weights. Raises DamagedError naming the first that differs."""
    if _open_whole(storage, rel) is None:
        raise DamagedError(f"checkpoint {storage.path(rel)}: there is no sealed folder of that name")


def candidates(storage: Storage, run_rel: str) -> list[tuple[int, int]]:
    """(step, attempt) of every folder, sealed or not, oldest first."""
    return sorted(place for name in storage.list(f"{run_rel}/checkpoints") if (place := format.place(name)))


def _open_whole(storage: Storage, rel: str) -> Found | None:
    """None for a folder that was never sealed: it does not exist. Raises DamagedError."""
    sealed = format.read_seal(storage, rel)
    if sealed is None:
        return None
    folder = storage.fetch(rel)
    for file, wanted in sealed.files.items():
        check_file(folder / file, wanted, shown=f"{storage.path(rel)}/{file}")
    if sealed.meta["frozen"]:
        frozen.verify(storage, sealed.meta["frozen"])
    held = reader.Reader(storage, rel)
    return Found(rel, held.state, held.meta)


def _quarantine(storage: Storage, run_rel: str, rel: str) -> str:
    """Where it went, in words."""
    name = rel.rpartition("/")[2]
    taken = set(storage.list(f"{run_rel}/damaged"))
    to = next(c for c in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if c not in taken)
    storage.move(rel, f"{run_rel}/damaged/{to}")
    return f"it is kept in {run_rel}/damaged/{to}"

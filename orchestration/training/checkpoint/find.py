"""The newest checkpoint to go on from. Takes a run; gives the newest whose every byte is what was written, frozen weights included. A
damaged one is named with its file and reason, moved to `<run>/damaged/<name>`, where nobody resumes from it and a person can look at
it, and the one before is taken. Called on rank 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import Storage
from orchestration.training.checkpoint import format, frozen
from orchestration.training.checkpoint.attempts import Fence, newest_attempt
from orchestration.training.checkpoint.reader import Reader
from orchestration.training.state import TrainState

Tell = Callable[[str], None]
Tensors = Callable[[], dict[str, Any]]
DAMAGED_KEPT = 3  # folders; each is as large as a checkpoint


@dataclass(frozen=True)
class Found:
    """A checkpoint that was verified. `meta`: what the caller of `Writer.save` gave (plan, job, identity)."""

    rel: str
    state: TrainState
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return self.state.step


def newest(
    storage: Storage,
    run_rel: str,
    on_damaged: Tell,
    *,
    before_step: int | None = None,
    pretrained: Tensors | None = None,
) -> Found | None:
    """None where there is none. `before_step`: only those of earlier steps. Each damaged one is passed to `on_damaged` as a sentence.

    `pretrained`: gives the tensors that training began with, by name. They are asked for, and frozen weights written anew from them,
    only where those are damaged: all checkpoints of a run share them, so without it none of them could be used.
    """
    fence, latest = Fence(storage, run_rel), newest_attempt(storage, run_rel)
    for step, attempt in reversed(candidates(storage, run_rel)):
        if (before_step is not None and step >= before_step) or not fence.passes(step, attempt):
            continue
        rel = format.name(run_rel, step, attempt)
        try:
            reader = _open_whole(storage, rel, over=attempt < latest)
        except DamagedError as error:
            moved = _quarantine(storage, run_rel, rel)
            on_damaged(f"checkpoint {rel} is damaged and skipped for the one before: {error}; {moved}")
            continue
        if reader is None:
            continue
        if not _frozen_whole(storage, run_rel, reader, on_damaged, pretrained):
            continue
        return Found(rel, reader.state, reader.meta)
    return None


def verify(storage: Storage, rel: str) -> None:
    """Compare every file with the manifest, also of the frozen weights. Raises DamagedError naming the first that differs."""
    reader = Reader(storage, rel, verify=True)
    if reader.frozen_rel:
        frozen.verify(storage, reader.frozen_rel)


def candidates(storage: Storage, run_rel: str) -> list[tuple[int, int]]:
    """(step, attempt) of every folder, sealed or not, oldest first."""
    return sorted(place for name in storage.list(f"{run_rel}/checkpoints") if (place := format.place(name)))


def _open_whole(storage: Storage, rel: str, *, over: bool) -> Reader | None:
    """None for a folder that was never sealed: it does not exist. Raises DamagedError. `over`: its attempt is no longer at work."""
    if format.read_seal(storage, rel) is not None:
        return Reader(storage, rel, verify=True)
    if over and format.STATE in storage.list(rel):  # written when all parts were there, a moment before the manifest
        raise DamagedError(
            f"{storage.path(rel)}: all parts are there, but no manifest: it was lost, or its writer died before it"
        )
    return None


def _frozen_whole(storage: Storage, run_rel: str, reader: Reader, on_damaged: Tell, pretrained: Tensors | None) -> bool:
    """Whether the frozen weights are what was written, or are again."""
    rel = reader.frozen_rel
    if rel is None:
        return True
    try:
        frozen.verify(storage, rel)
    except DamagedError as error:
        said = f"the frozen weights of checkpoint {reader.rel} are damaged: {error}"
    else:
        return True
    moved = _quarantine(storage, run_rel, rel) if storage.exists(rel) else ""
    if pretrained:
        named = {name: tensor for name, tensor in pretrained().items() if name not in reader.shapes}
        if frozen.keep_frozen(storage, named) == rel:
            on_damaged(f"{said}; they are written anew from the pretrained ones; {moved}")
            return True
    on_damaged(f"{said}; it is skipped for the one before; {moved}")
    return False


def _quarantine(storage: Storage, run_rel: str, rel: str) -> str:
    """Where it went, in words."""
    name = "-".join(rel.split("/")[-1:] if rel.startswith(run_rel) else rel.split("/"))
    taken = storage.list(f"{run_rel}/damaged")
    to = next(c for c in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if c not in taken)
    try:
        storage.move(rel, f"{run_rel}/damaged/{to}")
    except OSError as error:
        return f"it could not be moved away ({error})"
    for surplus in [n for n in taken if n != to][: len(taken) + 1 - DAMAGED_KEPT]:
        storage.remove(f"{run_rel}/damaged/{surplus}")
    return f"it is kept as {run_rel}/damaged/{to}"

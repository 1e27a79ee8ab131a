"""Which checkpoints are kept: the newest ones, the best ones by score, and what they need. Takes a run; removes the others. Called by the
writer on rank 0 after a seal, and at its start for what earlier attempts left half-written. Frozen folders stay: other runs share them."""

from __future__ import annotations

from orchestration.errors import DamagedError
from orchestration.storage import MANIFEST, Storage
from orchestration.training.checkpoint import format
from orchestration.training.checkpoint.attempts import Fence
from orchestration.training.checkpoint.find import candidates

Place = tuple[int, int]


def retain(storage: Storage, run_rel: str, *, keep: int, keep_best: int, attempt: int) -> None:
    """Keep the newest `keep`, the best `keep_best` (higher scores are better, of equal ones the earlier) and the newest that was
    called best. Removed are all others that are sealed, those that the fence shuts out, and this attempt's half-written ones."""
    fence, sealed, gone = Fence(storage, run_rel), {}, []
    for place in candidates(storage, run_rel):
        try:
            found = format.read_seal(storage, format.name(run_rel, *place))
        except DamagedError:
            continue  # `newest` will name it and move it away
        if not fence.passes(*place):
            gone.append(place)
        elif found:
            sealed[place] = found.meta
    kept = spared(sealed, keep=keep, keep_best=keep_best)
    gone += [place for place in sealed if place not in kept]
    if sealed:
        last = max(sealed)
        gone += [p for p in _unsealed(storage, run_rel) if p[1] == attempt and p < last]
    for place in gone:
        storage.remove(format.name(run_rel, *place))


def spared(sealed: dict[Place, dict], *, keep: int, keep_best: int) -> set[Place]:
    order = sorted(sealed)
    scores = {place: sealed[place]["score"] for place in order if sealed[place]["score"] is not None}
    best = sorted(scores, key=lambda place: (-scores[place], place))[:keep_best]
    called = [place for place in order if sealed[place]["best"]][-1:]
    return {*order[-keep:], *best, *called}


def sweep(storage: Storage, run_rel: str, attempt: int) -> None:
    """Remove the half-written folders of earlier attempts."""
    for place in _unsealed(storage, run_rel):
        if place[1] < attempt:
            storage.remove(format.name(run_rel, *place))


def _unsealed(storage: Storage, run_rel: str) -> list[Place]:
    folders = candidates(storage, run_rel)
    return [place for place in folders if not storage.exists(f"{format.name(run_rel, *place)}/{MANIFEST}")]

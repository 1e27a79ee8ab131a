"""Training states for tests of checkpoints: a few named tensors drawn from a seed, cut over any number of ranks, whose writers run
side by side in this process. And every way in which a file may be harmed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestration.storage import MANIFEST, Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import TrainState
from orchestration.training.fragments import Fragment, Snapshot

RUN = "runs/one"
SHAPES: dict[str, tuple[int, ...]] = {
    "encoder.weight": (37, 11),
    "encoder.bias": (37,),
    "head.weight": (2, 53),
    "scale": (),
    "count": (3,),  # a buffer of whole numbers
    "mask": (5,),  # a buffer whose bytes leave the next tensor unaligned
}
TRAINED = ("encoder.weight", "encoder.bias", "head.weight", "scale")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """What all ranks hold together after a step."""

    step: int
    weights: Tensors
    moments: Tensors
    frozen: Tensors

    @property
    def named(self) -> Tensors:
        return {**self.weights, **self.frozen}

    @property
    def steps(self) -> dict[str, int]:
        return {name: self.step for name in TRAINED}

    def snapshot(self, rank: int, world: int) -> Snapshot:
        """Weights and moments are cut in different places, as ZeRO 1 does."""
        shapes = {name: tuple(tensor.shape) for name, tensor in {**self.weights, **self.moments}.items()}
        weights, moments = cut(self.weights, rank, world), cut(self.moments, world - 1 - rank, world)
        return Snapshot(weights, moments, shapes, self.steps, {"loss_scale": float(self.step)})


def draw(step: int, *, width: int = 1) -> State:
    """The state of a step: a pure function of it. `width` multiplies the size."""
    pick = torch.Generator().manual_seed(step)
    still = torch.Generator().manual_seed(-1)
    weights = {name: _values(name, shape, pick, width) for name, shape in SHAPES.items()}
    moments = {
        f"{name}.{key}": torch.randn(weights[name].shape, generator=pick)
        for name in TRAINED
        for key in ("exp_avg", "exp_avg_sq")
    }
    frozen = {
        "embedding.weight": torch.randn(29, 7, generator=still),
        "embedding.norm": torch.randn(7, generator=still),
    }
    return State(step, weights, moments, frozen)


def _values(name: str, shape: tuple[int, ...], pick: torch.Generator, width: int) -> torch.Tensor:
    if name == "count":
        return torch.randint(2**40, shape, generator=pick)
    if name == "mask":
        return torch.rand(shape, generator=pick) < 0.5
    return torch.randn((shape[0] * width, *shape[1:]) if name in TRAINED[:3] else shape, generator=pick)


def cut(tensors: Tensors, rank: int, world: int) -> list[Fragment]:
    """The rank's part of all elements laid end to end: tensors are cut in the middle, a rank has nothing of some."""
    total = sum(tensor.numel() for tensor in tensors.values())
    begin, end, at, found = total * rank // world, total * (rank + 1) // world, 0, []
    for name, tensor in tensors.items():
        start, stop = max(0, begin - at), min(tensor.numel(), end - at)
        if start < stop:
            found.append(Fragment(name, start, tensor.reshape(-1)[start:stop].clone()))
        at += tensor.numel()
    return found


class Attempt:
    """The ranks of one start of a run. `found`: what it goes on from; `damaged`: what was said while it was looked for."""

    def __init__(self, storage: Storage, *, world: int = 2, keep: int = 9, keep_best: int = 1, **options: Any) -> None:
        self.storage, self.world = storage, world
        self.damaged: list[str] = []
        self.number = checkpoint.claim_attempt(storage, RUN)
        before = options.pop("before_step", None)
        self.found = checkpoint.newest(
            storage, RUN, self.damaged.append, before_step=before, pretrained=lambda: draw(0).named
        )
        checkpoint.note_resumed(storage, RUN, self.number, self.found.step if self.found else None)
        self.frozen = checkpoint.keep_frozen(storage, draw(0).frozen)
        self.writers = [
            checkpoint.Writer(
                storage, RUN, rank=rank, world=world, attempt=self.number, keep=keep, keep_best=keep_best, **options
            )
            for rank in range(world)
        ]

    def save(self, state: State, *, score: float | None = None, best: bool = False, **train: Any) -> str:
        """Hand it to all ranks' writers; its name."""
        for writer in self.writers:
            writer.save(
                lambda rank=writer.rank: state.snapshot(rank, self.world),  # type: ignore[misc]
                state=TrainState(step=state.step, **train),
                meta={"identity": {"seed": 7}},
                frozen=self.frozen,
                score=score,
                best=best,
            )
        return checkpoint.name(RUN, state.step, self.number)

    def wait(self) -> Attempt:
        for writer in self.writers:
            writer.wait()
        return self

    def saved(self, *steps: int) -> Attempt:
        for step in steps:
            self.save(draw(step))
        return self.wait()


def same(found: Tensors, wanted: Tensors) -> bool:
    """To the bit, with shapes and dtypes."""
    return set(found) == set(wanted) and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and torch.equal(found[n], t) for n, t in wanted.items()
    )


def is_whole(storage: Storage, rel: str, state: State) -> bool:
    reader = checkpoint.open(storage, rel)
    return same(reader.weights(), state.named) and same(reader.moments(), state.moments) and reader.steps == state.steps


# ------------------------------------------------------------------------------------------------ harm

HARMS = ("truncate", "flip", "delete", "append", "swap", "older", "reorder")


def harm(folder: Path, older: Path, kind: str, pick: random.Random) -> str:
    """Harm one file of a sealed folder, of which `older` is an earlier one; its name."""
    names = sorted(path.name for path in folder.iterdir())
    if kind == "reorder":
        name = pick.choice([name for name in names if name.endswith(".json")])
        value = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps(_reordered(value), indent=1 if name == MANIFEST else None))
        return name
    name = pick.choice(names)
    path, data = folder / name, (folder / name).read_bytes()
    if kind == "truncate":
        path.write_bytes(data[: pick.randrange(len(data))])
    elif kind == "flip":
        at = pick.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << pick.randrange(8))]) + data[at + 1 :])
    elif kind == "delete":
        path.unlink()
    elif kind == "append":
        path.write_bytes(data + bytes(pick.randrange(1, 9)))
    elif kind == "older":
        path.write_bytes((older / name).read_bytes())
    else:
        other = pick.choice([n for n in names if n != name])
        path.write_bytes((folder / other).read_bytes())
        (folder / other).write_bytes(data)
    return name


def _reordered(value: Any) -> Any:
    """The same values in the opposite order, at every level."""
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(value)}
    return [_reordered(item) for item in reversed(value)] if isinstance(value, list) else value

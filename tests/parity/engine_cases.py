"""What engines do that no fit shows by itself, on any number of ranks: batches left out, frozen groups released, state in pieces, memory
saved. Each function takes this rank's place and the case's words, drives an engine by hand over made-up batches and gives plain
values, equal on every rank. `driver` runs them on two ranks, unit tests on one."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models import loss, optim, text
from models.config import ModelConfig
from orchestration.storage import Storage
from orchestration.training import engine as engines
from orchestration.training import shared, tables
from orchestration.training.bare import Engine
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import Snapshot
from orchestration.training.reduction import Reduction
from tests.tiny import LABELS, VOCABULARY

RATE, DECAY = 2e-3, 0.9
MICROS, ROWS = 2, 3
NAN = float("nan")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """The whole state of a training run, put together from all ranks' pieces."""

    tensors: Tensors
    steps: dict[str, int]
    extra: dict[str, float]

    def digest(self) -> str:
        """Equal where every bit is."""
        found = hashlib.sha256()
        for name in sorted(self.tensors):
            found.update(name.encode() + self.tensors[name].numpy().tobytes())
        return found.hexdigest()

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self.tensors[name][start:stop]


def model_of(root: Path, *, dropout: float = 0.0) -> torch.nn.Module:
    folder = Storage(str(root)).fetch("weights/tiny")
    return text.build(ModelConfig(path="tiny", dropout=dropout), folder, list(LABELS), seed=3)


def build(
    root: Path, world: int, *, freeze: int = 1, dropout: float = 0.0, state: State | None = None, **train: Any
) -> Engine:
    """A tiny engine; with the weights and moments of `state` where given."""
    model = model_of(root, dropout=dropout)
    config = TrainConfig.model_validate({"optimizer": {"lr": RATE}, **train}, strict=True)
    plan = optim.plan_groups(model, lr=RATE, weight_decay=0.01, decay=DECAY, freeze=freeze)
    if state is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in state.tensors:
                    parameter.copy_(state.tensors[name].view_as(parameter))
    built = engines.build(model, plan, config, world=world, device=torch.device("cpu"))
    if state is not None:
        built.restore(state.read, state.steps, state.extra)
    built.check(1.0)
    return built


def batch(step: int, micro: int, rank: int) -> tuple[Tensors, torch.Tensor]:
    """Inputs and labels of one micro-batch."""
    draw = torch.Generator().manual_seed(1000 * step + 10 * micro + rank)
    ids_BL = torch.randint(2, VOCABULARY, (ROWS, 6 + 3 * micro), generator=draw)
    labels_B = torch.randint(0, len(LABELS), (ROWS,), generator=draw)
    return {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}, labels_B


def step(engine: Engine, number: int, rank: int, world: int, *, times: float = 1.0) -> float:
    """One update; gives the sum of the rows' losses on all ranks. `times` multiplies this rank's second micro-batch's loss."""
    total = torch.zeros((), dtype=torch.float64)
    for micro in range(MICROS):
        inputs, labels_B = batch(number, micro, rank)
        torch.manual_seed(100 * number + 10 * micro + rank)
        summed, _ = loss.classification(engine.forward(**inputs), labels_B, torch.ones(ROWS))
        last = micro == MICROS - 1
        engine.backward(summed / (MICROS * ROWS) * (times if last else 1.0), last=last)
        total += summed.detach().double()
    engine.update(1.0)
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total)


def state_of(engine: Engine, world: int) -> State:
    """Every rank's pieces, copied and put together; each element must be there once."""
    snapshots: list[Any] = [engine.snapshot()]
    if world > 1:
        mine, snapshots = snapshots[0], [None] * world
        torch.distributed.all_gather_object(snapshots, mine)
    return whole(snapshots)


def whole(snapshots: list[Snapshot]) -> State:
    first = snapshots[0]
    tensors = {name: torch.zeros(torch.Size(shape).numel()) for name, shape in first.shapes.items()}
    seen = {name: torch.zeros(torch.Size(shape).numel(), dtype=torch.int64) for name, shape in first.shapes.items()}
    for snapshot in snapshots:
        assert (snapshot.shapes, snapshot.steps) == (first.shapes, first.steps)
        for fragment in snapshot.weights + snapshot.moments:
            place = slice(fragment.start, fragment.start + len(fragment.values))
            tensors[fragment.name][place] = fragment.values
            seen[fragment.name][place] += 1
    assert all((times == 1).all() for times in seen.values())
    return State(tensors, dict(first.steps), dict(first.extra))


def trained(root: Path, rank: int, world: int, *, name: str, steps: int = 4, **train: Any) -> dict[str, Any]:
    """Losses and the state after some steps."""
    engine = build(root, world, **train)
    losses = [step(engine, number, rank, world) for number in range(steps)]
    state = state_of(engine, world)
    engine.close()
    return {
        "losses": losses,
        "digest": state.digest(),
        "stage": engine.stage,
        "weights": sample(state),
        "kind": type(engine).__name__,
        "norm": None if engine.grad_norm is None else float(engine.grad_norm),
    }


def sharing(root: Path, rank: int, world: int, *, name: str) -> dict[str, Any]:
    """The same steps by ranks that send their gradients, that share memory, and that share it and note which rows of embeddings a batch
    touched; each with and without clipping, for each optimizer that shares memory."""
    found: dict[str, Any] = {}
    for optimizer in ("adamw", "adam", "sgd"):
        for clip in (None, 0.05):
            train = {"optimizer": {"name": optimizer, "lr": RATE}, "clip_norm": clip}
            for how in ("sent", "shared", "rows"):
                with _sharing(how):
                    told = trained(root, rank, world, name=name, dropout=0.1, **train)
                found[f"{optimizer} {clip} {how}"] = told
    return found


@contextlib.contextmanager
def _sharing(how: str) -> Iterator[None]:
    before = tables.WORTH, shared.buffers
    tables.WORTH = 1 if how == "rows" else 2**40
    if how == "sent":
        shared.buffers = lambda numel, world: None
    try:
        yield
    finally:
        tables.WORTH, shared.buffers = before


def skipping(root: Path, rank: int, world: int, *, name: str, times: float = NAN, **train: Any) -> dict[str, Any]:
    """The last rank's loss in step 1 is multiplied by `times`: the state after the step that follows, and that of a run that never had
    step 1. `told`: by step, what each rank says of it."""
    found: dict[str, Any] = {}
    for what, numbers in (("with", (0, 1, 2)), ("without", (0, 2))):
        engine = build(root, world, failures={"not_finite": "skip"}, **train)
        told = []
        for number in numbers:
            step(engine, number, rank, world, times=times if number == 1 and rank == world - 1 else 1.0)
            told.append(everyone(engine.skipped, world))
        state = state_of(engine, world)
        found[what] = {"told": told, "digest": state.digest(), "counts": sorted(set(state.steps.values()))}
        engine.close()
    return found


def resuming(root: Path, rank: int, world: int, *, name: str, **train: Any) -> dict[str, list[Any]]:
    """Losses and the state after four steps, with and without another engine for the last two."""
    whole = trained(root, rank, world, name=name, dropout=0.1, **train)
    first = build(root, world, dropout=0.1, **train)
    losses = [step(first, number, rank, world) for number in (0, 1)]
    state = state_of(first, world)
    first.close()
    second = build(root, world, dropout=0.1, state=state, **train)
    losses += [step(second, number, rank, world) for number in (2, 3)]
    digest = state_of(second, world).digest()
    second.close()
    return {"unbroken": [whole["losses"], whole["digest"]], "resumed": [losses, digest]}


def everyone(value: Any, world: int) -> list[Any]:
    """By rank."""
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    torch.distributed.all_gather_object(values, value)
    return values


def releasing(root: Path, rank: int, world: int, *, name: str, **train: Any) -> dict[str, Any]:
    """Two steps with three groups frozen, then, in a new engine, two with one frozen. `freed`: nothing held the first one's model."""
    first = build(root, world, freeze=3, **train)
    losses = [step(first, number, rank, world) for number in (0, 1)]
    state, model = state_of(first, world), weakref.ref(first.model)
    first.close()
    freed = model() is None
    second = build(root, world, freeze=1, state=state, **train)
    losses += [step(second, number, rank, world) for number in (2, 3)]
    after = state_of(second, world)
    second.close()
    return {"losses": losses, "steps": after.steps, "freed": freed, "weights": sample(after)}


def released_plainly(root: Path, world: int, plain: Any = torch.optim.AdamW, **numbers: Any) -> dict[str, Any]:
    """`releasing` in plain torch on one rank: groups are added to a running optimizer, and the ranks' micro-batches come one after
    another."""
    model = model_of(root)
    plan = optim.plan_groups(model, lr=RATE, weight_decay=0.01, decay=DECAY, freeze=1)
    own = dict(model.named_parameters())
    released = {row.name for row in optim.plan_groups(model, lr=RATE, weight_decay=0.01, freeze=3) if not row.trainable}
    optim.apply_freeze(model, optim.plan_groups(model, lr=RATE, weight_decay=0.01, freeze=3))
    groups = [
        (
            row.name in released,
            {"params": [own[n] for n in row.param_names], "lr": row.lr, "weight_decay": row.weight_decay},
        )
        for row in plan
        if row.trainable
    ]
    optimizer = plain([group for later, group in groups if not later], **numbers)
    losses = []
    for number in range(4):
        if number == 2:
            optim.apply_freeze(model, plan)
            for later, group in groups:
                if later:
                    optimizer.add_param_group(group)
        total = 0.0
        for rank in range(world):
            for micro in range(MICROS):
                inputs, labels_B = batch(number, micro, rank)
                summed, _ = loss.classification(model(**inputs).logits, labels_B, torch.ones(ROWS))
                (summed / (MICROS * ROWS * world)).backward()
                total += float(summed.detach())
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    steps = {n: 2 if row.name in released else 4 for row in plan if row.trainable for n in row.param_names}
    tensors = {name: parameter.detach().flatten() for name, parameter in own.items() if name in steps}
    return {"losses": losses, "steps": steps, "weights": sample(State(tensors, steps, {}))}


def sample(state: State) -> dict[str, list[float]]:
    """The first elements of each trained weight; key biases, whose gradient is rounding noise, left out."""
    return {
        name: state.tensors[name][:8].tolist() for name in state.steps if not name.endswith("attention.self.key.bias")
    }


def pieces(root: Path, rank: int, world: int, *, name: str, **train: Any) -> dict[str, Any]:
    """What snapshots are: taken by one rank alone, in the same memory each time, about an equal part of all bytes a rank."""
    engine = build(root, world, **train)
    step(engine, 0, rank, world)
    alone = engine.snapshot() if rank == 0 else None  # would hang if it were collective
    before = [] if alone is None else [f.values.data_ptr() for f in alone.weights + alone.moments]
    step(engine, 1, rank, world)
    again = engine.snapshot()
    after = [f.values.data_ptr() for f in again.weights + again.moments]
    held = sum(f.values.nbytes for f in again.weights + again.moments)
    state = state_of(engine, world)  # asserts that each element is there once
    trainable = sum(row.numel for row in engine.plan if row.trainable)
    live = {n: p.detach().flatten() for n, p in engine.parameters.items() if n in state.steps}
    same = engine.stage == 3 or all(torch.equal(live[n], state.tensors[n]) for n in live)
    engine.close()
    return {
        "same memory": rank != 0 or before == after,
        "bytes": everyone(held, world),
        "all bytes": 12 * trainable,
        "as in the model": same,
        "counts": sorted(set(state.steps.values())),
    }


def reducing(root: Path, rank: int, world: int, *, name: str) -> dict[str, Any]:
    """Two layers of which the last rank leaves one out, reduced in buckets of one parameter and in one bucket, three times: how far the
    sums are from those of all ranks' own gradients."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)])
    parameters, off = list(layers.parameters()), 0.0
    for bucket_bytes in (1, 2**20):
        reduction = Reduction(parameters, bucket_bytes=bucket_bytes)
        for number in range(3):
            torch.manual_seed(10 * number + rank)
            input_BD = torch.randn(4, 8)
            used = layers[:1] if rank == world - 1 else layers
            loss = torch.stack([layer(input_BD).square().sum() for layer in used]).sum()
            own = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            wanted = [torch.zeros_like(p) if g is None else g.clone() for p, g in zip(parameters, own, strict=True)]
            for gradient in wanted:
                torch.distributed.all_reduce(gradient)
            reduction.begin()
            loss.backward()
            reduction.finish()
            pairs = zip(parameters, wanted, strict=True)
            off = max(off, *(float((p.grad - w).abs().max()) for p, w in pairs if p.grad is not None))
            reduction.clear()
        reduction.close()
    return {"off": max(everyone(off, world))}

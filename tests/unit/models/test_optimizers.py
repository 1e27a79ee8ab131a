"""Each optimizer against torch's own, or against LAMB written out tensor by tensor, over 20 updates of parameters of several shapes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from models.families import ModelError
from models.optim import GroupPlan
from models.optimizers import Lamb, Segment, build

RATE, DECAY, BETAS, EPS, STEPS = 0.02, 0.1, (0.9, 0.98), 1e-8, 20
SHAPES = {"in.weight": (7, 5), "in.bias": (7,), "out.weight": (3, 7), "zero.weight": (2, 3), "out.bias": (3,)}
ROWS = [
    GroupPlan("bottom", RATE / 2, DECAY, True, ("in.weight",), 35),
    GroupPlan("bottom", RATE / 2, 0.0, True, ("in.bias",), 7),
    GroupPlan("top", RATE, DECAY, True, ("out.weight", "zero.weight"), 27),
    GroupPlan("top", RATE, 0.0, True, ("out.bias",), 3),
]
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw"},
    "adam": {"name": "adam"},
    "sgd": {"name": "sgd"},
    "momentum": {"name": "sgd", "momentum": 0.9},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "lamb": {"name": "lamb"},
}
Tensors = dict[str, torch.Tensor]


def parameters() -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    made["zero.weight"].zero_()  # its norm is 0 before the first update
    return {name: nn.Parameter(tensor) for name, tensor in made.items()}


def gradients(step: int) -> Tensors:
    draw = torch.Generator().manual_seed(step + 1)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def made(own: dict[str, nn.Parameter], name: str, momentum: float = 0.0, nesterov: bool = False) -> Any:
    numbers: dict[str, Any] = {"lr": RATE, "betas": BETAS, "eps": EPS, "momentum": momentum, "nesterov": nesterov}
    return build(name, own, ROWS, **numbers)


def trained(kind: str, *, grad_scale: float | None = None, left_out: tuple[int, ...] = ()) -> Tensors:
    """The weights after all updates; those in `left_out` come with a gradient that is not finite."""
    own = parameters()
    optimizer = made(own, **KINDS[kind])
    for step in range(STEPS):
        optimizer.grad_scale = None if grad_scale is None else torch.tensor(grad_scale)
        optimizer.found_inf = torch.tensor(float(step in left_out)) if left_out else None
        for name, gradient in gradients(step - sum(other < step for other in left_out)).items():
            own[name].grad = gradient * (grad_scale or 1.0) * (float("nan") if step in left_out else 1.0)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in own.items()}


def plain(kind: str, steps: int = STEPS) -> Tensors:
    """By torch's own, one tensor after another, and LAMB as below."""
    own = parameters()
    groups = [{"params": [own[n] for n in r.param_names], "lr": r.lr, "weight_decay": r.weight_decay} for r in ROWS]
    chosen = KINDS[kind]
    slow = {"foreach": False, "fused": False}
    optimizer: Any
    if chosen["name"] == "lamb":
        optimizer = PlainLamb(own)
    elif chosen["name"] == "sgd":
        rest = {key: value for key, value in chosen.items() if key != "name"}
        optimizer = torch.optim.SGD(groups, lr=RATE, **rest, **slow)
    else:
        kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = kinds[kind](groups, betas=BETAS, eps=EPS, **slow)
    for step in range(steps):
        for name, gradient in gradients(step).items():
            own[name].grad = gradient
        optimizer.step()
    return {name: parameter.detach() for name, parameter in own.items()}


class PlainLamb:
    """The paper's algorithm 2 in double precision, a tensor at a time."""

    def __init__(self, own: dict[str, nn.Parameter]) -> None:
        self.own, self.count = own, 0
        self.means = {
            name: (torch.zeros(shape).double(), torch.zeros(shape).double()) for name, shape in SHAPES.items()
        }

    def step(self) -> None:
        self.count += 1
        for row in ROWS:
            for name in row.param_names:
                gradient, weights = self.own[name].grad, self.own[name].detach().double()
                assert gradient is not None
                first, second = (
                    beta * mean + (1 - beta) * gradient.double() ** power
                    for beta, mean, power in zip(BETAS, self.means[name], (1, 2), strict=True)
                )
                self.means[name] = first, second
                first, second = (
                    mean / (1 - beta**self.count) for beta, mean in zip(BETAS, (first, second), strict=True)
                )
                update = first / (second.sqrt() + EPS) + row.weight_decay * weights
                ratio = weights.norm() / update.norm() if weights.ndim > 1 and weights.norm() > 0 else 1.0
                self.own[name].data = (weights - row.lr * ratio * update).float()


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_updates_are_those_of_a_plain_optimizer(kind: str) -> None:
    found, wanted = trained(kind), plain(kind)
    for name in SHAPES:
        assert (found[name] - wanted[name]).abs().max() < 1e-6, name


def test_the_optimizers_differ() -> None:
    weights = [trained(kind)["in.weight"] for kind in KINDS]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(weights) for b in weights[:i])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_divided_as_the_engine_says(kind: str) -> None:
    found, wanted = trained(kind, grad_scale=64.0), trained(kind)
    assert all(torch.equal(found[name], wanted[name]) for name in SHAPES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left_out", [(0,), (3, 4)])
def test_an_update_that_is_left_out_changes_no_bit_not_even_as_the_first(kind: str, left_out: tuple[int, ...]) -> None:
    own = parameters()
    optimizer = made(own, **KINDS[kind])
    for step in range(STEPS - len(left_out)):
        for name, gradient in gradients(step).items():
            own[name].grad = gradient
        optimizer.step()
    found = trained(kind, left_out=left_out)
    assert all(torch.equal(found[name], own[name].detach()) for name in SHAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_counted_by_tensor_and_those_left_out_are_not(kind: str) -> None:
    own = parameters()
    optimizer = made(own, **KINDS[kind])
    for step in range(3):
        optimizer.found_inf = torch.tensor(float(step == 0))
        for name, gradient in gradients(step).items():
            own[name].grad = None if name == "out.bias" and step == 1 else gradient
        optimizer.step()
    counts = {name: float(optimizer.state[parameter]["step"]) for name, parameter in own.items()}
    assert counts == {name: 1.0 if name == "out.bias" else 2.0 for name in SHAPES}


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="name=lion; allowed: adamw, adam, sgd, lamb"):
        made(parameters(), "lion")


# ---------------------------------------------------------------------------------------------------- LAMB in pieces


def pieces(cuts: list[int], names: tuple[str, ...], numels: dict[str, int]) -> Iterator[list[Segment]]:
    """Parameters laid end to end and cut at `cuts`: the segments of each rank, one element of padding before each."""
    total = sum(numels[name] for name in names)
    for first, end in zip([0, *cuts], [*cuts, total], strict=True):
        at, begin, found = 1, 0, []
        for name in names:
            start, stop = max(first, begin), min(end, begin + numels[name])
            if stop > start:
                found.append(Segment(name, at, stop - start))
                at += stop - start + 1
            begin += numels[name]
        yield found


class Sum:
    """What ranks call to add a vector up; each runs in its own thread."""

    def __init__(self, world: int) -> None:
        self.barrier, self.given, self.world = threading.Barrier(world, timeout=20), dict[int, torch.Tensor](), world

    def of(self, rank: int) -> Callable[[torch.Tensor], None]:
        def reduce(values: torch.Tensor) -> None:
            self.given[rank] = values.clone()
            self.barrier.wait()
            total = torch.stack([self.given[other] for other in range(self.world)]).sum(0)
            self.barrier.wait()
            values.copy_(total)

        return reduce


@pytest.mark.parametrize("cuts", [[], [17], [1, 26], [35, 35, 40], [34, 61]])
def test_lamb_over_segments_cut_anywhere_is_lamb_over_whole_tensors(cuts: list[int]) -> None:
    """The groups are cut each by itself, in proportion; ranks may hold nothing of one."""
    own, wanted = parameters(), plain("lamb")
    numels = {name: parameter.numel() for name, parameter in own.items()}
    world = len(cuts) + 1
    shared, found = Sum(world), {name: torch.full_like(p.detach(), float("nan")).view(-1) for name, p in own.items()}
    by_rank: list[list[list[Segment]]] = [[] for _ in range(world)]
    for row in ROWS:
        places = sorted(min(row.numel, cut * row.numel // 62 + cut % 2) for cut in cuts)
        for rank, segments in enumerate(pieces(places, row.param_names, numels)):
            by_rank[rank].append(segments)

    def run(rank: int) -> None:
        starts = {name: _start(by_rank, rank, i, name) for i, row in enumerate(ROWS) for name in row.param_names}
        flats = [nn.Parameter(_flat(own, segments, starts)) for segments in by_rank[rank]]
        groups: list[dict[str, Any]] = [
            {
                "params": [flat],
                "lr": row.lr,
                "weight_decay": row.weight_decay,
                "scaled": tuple(n for n in row.param_names if len(SHAPES[n]) > 1),
            }
            for flat, row in zip(flats, ROWS, strict=True)
        ]
        optimizer = Lamb(groups, {}, lr=RATE, betas=BETAS, eps=EPS)
        optimizer.cut(dict(zip(flats, by_rank[rank], strict=True)), shared.of(rank))
        for step in range(STEPS):
            whole = gradients(step)
            for flat, segments in zip(flats, by_rank[rank], strict=True):
                flat.grad = _flat(whole, segments, starts, padding=float(step))
            optimizer.step()
        for flat, segments in zip(flats, by_rank[rank], strict=True):
            for at in segments:
                part = flat.detach()[at.offset : at.offset + at.numel]
                found[at.name][starts[at.name] : starts[at.name] + at.numel] = part

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in SHAPES:
        assert (found[name].view(SHAPES[name]) - wanted[name]).abs().max() < 1e-6, name


def _start(by_rank: list[list[list[Segment]]], rank: int, group: int, name: str) -> int:
    """Elements of the parameter that the ranks before hold."""
    return sum(at.numel for before in by_rank[:rank] for at in before[group] if at.name == name)


def _flat(whole: Any, segments: list[Segment], starts: dict[str, int], padding: float = 5.0) -> torch.Tensor:
    flat = torch.full((max((at.offset + at.numel for at in segments), default=1) + 2,), padding)
    for at in segments:
        values = whole[at.name].detach().view(-1)[starts[at.name] : starts[at.name] + at.numel]
        flat[at.offset : at.offset + at.numel] = values
    return flat


def test_norms_of_large_tensors_do_not_depend_on_the_cut() -> None:
    """torch's own fp32 norm on a CPU would be 4e-4 off."""
    weights = torch.randn(3000, 4000, generator=torch.Generator().manual_seed(0)) * 0.02
    moved = []
    for parts in (1, 7):
        flats = [nn.Parameter(part.clone()) for part in weights.view(-1).tensor_split(parts)]
        group: dict[str, Any] = {"params": flats, "lr": RATE, "weight_decay": DECAY, "scaled": ("w",)}
        optimizer = Lamb([group], {flat: [Segment("w", 0, flat.numel())] for flat in flats}, lr=RATE)
        for flat in flats:
            flat.grad = flat.detach().sign()
        optimizer.step()
        moved.append(torch.cat([flat.detach() for flat in flats]))
    assert torch.allclose(*moved, rtol=1e-6, atol=0)

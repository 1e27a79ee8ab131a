"""The optimizers by name, as torch optimizers: AdamW, Adam, SGD and LAMB. Takes the parameters of each trainable row of the planned table
and plain numbers; gives an optimizer that an engine steps, alone or inside ZeRO. Knows neither engine nor ranks.

All keep, for every tensor that they step, a count of updates `step` and tensors of its shape, and all take from the engine what AdamW
takes in torch: `grad_scale`, which divides the gradients, and `found_inf`, where 1 leaves the update out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.families import ModelError
from models.optim import GroupPlan

Groups = list[dict[str, Any]]
Reduce = Callable[[torch.Tensor], None]
NORM_PIECE = 2**16  # elements, see _squares


def build(
    name: str,
    parameters: dict[str, nn.Parameter],
    rows: list[GroupPlan],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    momentum: float,
    nesterov: bool,
) -> torch.optim.Optimizer:
    """One group for each of the table's trainable rows; of the numbers, those that the optimizer takes. Fused, LAMB apart: one pass
    over each tensor, on CPU too.

    Decay is AdamW's (Loshchilov and Hutter 2019), apart from the gradient, in AdamW and LAMB, and part of the gradient in Adam (Kingma
    and Ba 2015) and SGD. Raises ModelError for another name.
    """
    groups: Groups = [
        {"params": [parameters[n] for n in row.param_names], "lr": row.lr, "weight_decay": row.weight_decay}
        for row in rows
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, fused=True)
    if name == "sgd":
        return Sgd(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    if name == "lamb":
        for group, row in zip(groups, rows, strict=True):
            group["scaled"] = tuple(n for n in row.param_names if parameters[n].ndim > 1)
        wholes = {parameters[n]: [Segment(n, 0, parameters[n].numel())] for row in rows for n in row.param_names}
        return Lamb(groups, wholes, lr=lr, betas=betas, eps=eps)
    raise ModelError(f"train.optimizer.name={name}; allowed: adamw, adam, sgd, lamb")


def fresh(tensor: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The state of a tensor before its first update. The count lies where torch's fused kernels want it."""
    step = torch.zeros((), dtype=torch.float32, device=tensor.device)
    return {"step": step, **{name: torch.zeros_like(tensor.detach()) for name in names}}


class Sgd(torch.optim.SGD):
    """torch's, fused, with a count of updates as the others have it. Momentum begins as zeros, which gives the first update that torch
    gives: torch leaves it unset, and in a first update that is left out its fused kernel would leave it as it found the memory."""

    grad_scale: torch.Tensor | None = None
    found_inf: torch.Tensor | None = None

    def __init__(self, groups: Groups, *, lr: float, momentum: float, nesterov: bool) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
        self.kept = ("momentum_buffer",) if momentum else ()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        tensors = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for tensor in tensors:
            if not self.state.get(tensor):
                self.state[tensor] = fresh(tensor, self.kept)
        super().step(closure)
        counts = [self.state[tensor]["step"] for tensor in tensors]
        if counts:
            torch._foreach_add_(counts, 1.0)
            if self.found_inf is not None:  # as AdamW counts: on the device, nobody waits
                torch._foreach_sub_(counts, [self.found_inf] * len(counts))


@dataclass(frozen=True)
class Segment:
    """Elements [offset, offset + numel) of a flat tensor belong to the parameter `name`: all of it, or what ZeRO left on this rank."""

    name: str
    offset: int
    numel: int


class Lamb(torch.optim.Optimizer):
    """You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2: the step of AdamW, decay
    included, times the trust ratio of its parameter, which is the parameter's norm over the step's norm; 1 where either is 0. The
    paper's bounds on the norm are left out, as in its experiments. One-dimensional parameters (biases, normalisation weights) have the
    ratio 1: so do the usual implementations, since a bias that begins at 0 would hardly move.

    A ratio is of a whole parameter, wherever ZeRO has cut it: `cut` says which segments of which parameters the stepped tensors hold,
    and `reduce` adds the sums of squares up over all ranks. A group's key `scaled` names the parameters that have a ratio, on every
    rank alike, so all ranks call `reduce` equally often. What no segment covers is padding.

    `found_inf` is asked for on the host: on a GPU that waits for the gradients, as torch's own scaler does for optimizers that are
    not fused."""

    grad_scale: torch.Tensor | None = None
    found_inf: torch.Tensor | None = None

    def __init__(
        self,
        groups: Groups,
        segments: dict[torch.Tensor, list[Segment]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "scaled": ()})
        self.cut(segments)

    def cut(self, segments: dict[torch.Tensor, list[Segment]], reduce: Reduce | None = None) -> None:
        """Which parts of which parameters each stepped tensor holds. `reduce` sums a vector over all ranks, in place; None: every
        tensor is whole."""
        self.segments, self.reduce = segments, reduce

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        if self.found_inf is not None and self.found_inf.item():
            return
        for group in self.param_groups:
            if tensors := [p for p in group["params"] if p.grad is not None]:
                updates = self._updates(group, tensors)
                self._scale(group, tensors, updates)
                torch._foreach_add_(tensors, updates, alpha=-float(group["lr"]))

    def _updates(self, group: dict[str, Any], tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """AdamW's steps without their rate: means of the gradient over the root of those of its square, and the decay."""
        (beta1, beta2), gradients = group["betas"], [p.grad for p in tensors]
        for tensor in tensors:
            if not self.state.get(tensor):
                self.state[tensor] = fresh(tensor, ("exp_avg", "exp_avg_sq"))
        counts, firsts, seconds = ([self.state[p][key] for p in tensors] for key in ("step", "exp_avg", "exp_avg_sq"))
        if self.grad_scale is not None:
            torch._foreach_div_(gradients, self.grad_scale)
        torch._foreach_add_(counts, 1.0)
        torch._foreach_lerp_(firsts, gradients, 1 - beta1)
        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, gradients, gradients, 1 - beta2)
        steps = torch.stack(counts).double()  # in fp32 the share of a first step would be off by 6e-5
        updates = list(torch._foreach_div(seconds, _shares(beta2, steps)))
        torch._foreach_sqrt_(updates)
        torch._foreach_add_(updates, group["eps"])
        torch._foreach_mul_(updates, _shares(beta1, steps))
        torch._foreach_reciprocal_(updates)
        torch._foreach_mul_(updates, firsts)
        if group["weight_decay"]:
            torch._foreach_add_(updates, tensors, alpha=group["weight_decay"])
        return updates

    def _scale(self, group: dict[str, Any], tensors: list[torch.Tensor], updates: list[torch.Tensor]) -> None:
        """Multiply each parameter's part of `updates` by its trust ratio."""
        place = {name: i for i, name in enumerate(group["scaled"])}
        if not place:
            return
        owners, weights, steps = list[int](), list[torch.Tensor](), list[torch.Tensor]()
        for tensor, update in zip(tensors, updates, strict=True):
            for at in self.segments[tensor]:
                if at.name in place:
                    owners.append(place[at.name])
                    weights.append(tensor.view(-1)[at.offset : at.offset + at.numel])
                    steps.append(update.view(-1)[at.offset : at.offset + at.numel])
        sums = torch.stack([_squares(parts, owners, like=tensors[0], count=len(place)) for parts in (weights, steps)])
        if self.reduce is not None:
            self.reduce(sums)
        of_weights, of_steps = sums.sqrt()
        ratios = torch.where((of_weights > 0) & (of_steps > 0), of_weights / of_steps, 1.0).float().unbind()
        if owners:
            torch._foreach_mul_(steps, [ratios[owner] for owner in owners])


def _shares(beta: float, steps: torch.Tensor) -> list[torch.Tensor]:
    """How much of a running mean the first updates make up."""
    return list((1 - beta**steps).float().unbind())


def _squares(parts: list[torch.Tensor], owners: list[int], *, like: torch.Tensor, count: int) -> torch.Tensor:
    """For each of `count` owners the sum of the squares of its parts. In pieces: torch's fp32 norm on a CPU is 4e-4 too small at 12
    million elements, so ratios would depend on the cut."""
    sums = torch.zeros(count, dtype=torch.float64, device=like.device)
    pieces = [(owner, piece) for owner, part in zip(owners, parts, strict=True) for piece in part.split(NORM_PIECE)]
    if pieces:
        norms = torch.stack(torch._foreach_norm([piece for _, piece in pieces])).double()
        sums.index_add_(0, torch.tensor([owner for owner, _ in pieces], device=like.device), norms.square())
    return sums

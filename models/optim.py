"""What the optimizer should do, as values. Takes a model and the `train` part's numbers; gives the planned table of
parameter groups and the schedule's factor. The engine builds its optimizer from the table and is compared with it; the plan
verb prints it. Knows no engine and no optimizer class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from models.depth import depth_groups
from models.families import ModelError


@dataclass(frozen=True)
class GroupPlan:
    """One row of the planned table. A depth group has two rows where it holds decayed and undecayed parameters.

    `lr` is the peak rate; the live one is `lr * factor(step, ...)`. A frozen row has rate and decay 0.
    """

    name: str
    lr: float
    weight_decay: float
    trainable: bool
    param_names: tuple[str, ...]
    numel: int


def plan_groups(
    model: nn.Module, *, lr: float, weight_decay: float, decay: float = 1.0, freeze: int = 0
) -> list[GroupPlan]:
    """The planned table, input to output: group g of G has the rate `lr * decay ** (G - 1 - g)`; the bottom `freeze` groups
    are frozen. Biases and normalisation weights (one-dimensional parameters) take no weight decay.

    Layered rates: Howard and Ruder 2018, "Universal Language Model Fine-tuning". Raises ModelError where nothing is left to train.
    """
    groups = depth_groups(model)
    if freeze >= len(groups):
        names = ", ".join(name for name, _ in groups)
        raise ModelError(
            f"train.layers.freeze={freeze}, but the model has {len(groups)} depth groups: {names}; at most {len(groups) - 1} can be frozen"
        )
    rows: list[GroupPlan] = []
    for depth, (name, members) in enumerate(groups):
        if depth < freeze:
            rows.append(_row(name, members, lr=0.0, weight_decay=0.0, trainable=False))
            continue
        rate = lr * decay ** (len(groups) - 1 - depth)
        by_decay = {weight_decay: [m for m in members if m[1].ndim > 1]}
        by_decay.setdefault(0.0, []).extend(m for m in members if m[1].ndim <= 1)
        rows += [_row(name, part, lr=rate, weight_decay=wd, trainable=True) for wd, part in by_decay.items() if part]
    return rows


def apply_freeze(model: nn.Module, plan: list[GroupPlan]) -> None:
    """Set `requires_grad` of every parameter as the table says; autograd then skips the frozen bottom of the model."""
    trainable = {name for row in plan if row.trainable for name in row.param_names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


def warmup_steps(warmup: int | float, total_steps: int) -> int:
    """A whole number is steps, a fraction is a share of all steps (rounded up)."""
    return warmup if isinstance(warmup, int) else math.ceil(warmup * total_steps)


def factor(step: int, total_steps: int, *, name: str = "linear", warmup: int | float = 0) -> float:
    """What multiplies every group's peak rate in update number `step` (from 0) of `total_steps`.

    Warm-up rises evenly to 1 at its last step and never gives 0. After it: `linear` falls to 1/(steps left) in the last
    update, `cosine` (Loshchilov and Hutter 2017, without restarts) follows half a wave, `constant` stays at 1.
    """
    rise = warmup_steps(warmup, total_steps)
    if step < rise:
        return (step + 1) / rise
    left = max(1, total_steps - rise)
    done = min(step - rise, left) / left
    if name == "linear":
        return 1.0 - done
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if name == "constant":
        return 1.0
    raise ModelError(f"train.schedule.name={name}; allowed: linear, cosine, constant")


def _row(
    name: str, members: list[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float, trainable: bool
) -> GroupPlan:
    return GroupPlan(
        name, lr, weight_decay, trainable, tuple(n for n, _ in members), sum(p.numel() for _, p in members)
    )

"""What the optimizer should do, as values. Takes a model and the `train` part's numbers; gives the planned table of
parameter groups and the schedule's factor. The engine builds its optimizer from the table and is compared with it; the plan
verb prints it. Knows no engine and no optimizer class."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from models.depth import depth_groups, is_part
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


@dataclass(frozen=True)
class TowerPlan:
    """What one tower of a model (encoder, decoder; text, image) does otherwise: the rate of its top group, the decay from group to group
    below, and how many of its groups are frozen from the input. None: as the rest of the model."""

    lr: float | None = None
    decay: float | None = None
    freeze: int | None = None


def plan_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay: float = 1.0,
    freeze: int = 0,
    towers: Mapping[str, TowerPlan] | None = None,
    only: Collection[str] | None = None,
) -> list[GroupPlan]:
    """The planned table, input to output: group g of G has the rate `lr * decay ** (G - 1 - g)`; the bottom `freeze` groups
    are frozen. Biases and normalisation weights (one-dimensional parameters) take no weight decay. A tower that `towers` names is counted
    for itself: its top group has the tower's rate, its own bottom groups are frozen. `only`: the parameters that train where most of the
    model stays as it is (`adapters.trained`); what else a group has is a frozen row beside its trainable ones.

    Layered rates: Howard and Ruder 2018, "Universal Language Model Fine-tuning". Raises ModelError where nothing is left to train, and
    for a tower that the model does not have.
    """
    groups = depth_groups(model)
    apart = _towers([name for name, _ in groups], towers or {}, lr=lr, decay=decay)
    if freeze >= len(groups):
        names = ", ".join(name for name, _ in groups)
        raise ModelError(
            f"train.layers.freeze={freeze}, but the model has {len(groups)} depth groups: {names}; at most {len(groups) - 1} can be frozen"
        )
    rows: list[GroupPlan] = []
    for depth, (name, members) in enumerate(groups):
        rate = lr * decay ** (len(groups) - 1 - depth)
        frozen = depth < freeze
        if name in apart:
            rate, below = apart[name]
            frozen = frozen if below is None else below
        if frozen:
            rows.append(_row(name, members, lr=0.0, weight_decay=0.0, trainable=False))
            continue
        if only is not None:
            still = [m for m in members if m[0] not in only]
            members = [m for m in members if m[0] in only]
            rows += [_row(name, still, lr=0.0, weight_decay=0.0, trainable=False)] if still else []
        by_decay = {weight_decay: [m for m in members if m[1].ndim > 1]}
        by_decay.setdefault(0.0, []).extend(m for m in members if m[1].ndim <= 1)
        rows += [_row(name, part, lr=rate, weight_decay=wd, trainable=True) for wd, part in by_decay.items() if part]
    if only is not None and not any(is_part(n) for row in rows if row.trainable for n in row.param_names):
        raise ModelError(
            f"train.layers.freeze={freeze} freezes every part of model.adapter; lower it (prompts belong to the embeddings), or leave the adapter out"
        )
    if not any(row.trainable for row in rows):
        raise ModelError("train.layers.towers freezes all that train.layers.freeze leaves; nothing is left to train")
    return rows


def tower_of(group: str) -> str:
    """`decoder.layer.3` -> `decoder`; '' for a group of a model of one tower, and for the head."""
    return next(
        (group[: -len(end)] for end in (".embeddings", ".top") if group.endswith(end)), group.rpartition(".layer.")[0]
    )


def _towers(
    names: list[str], towers: Mapping[str, TowerPlan], *, lr: float, decay: float
) -> dict[str, tuple[float, bool | None]]:
    """Group -> (rate, frozen; None: as train.layers.freeze says), of the towers that are named."""
    known = list(dict.fromkeys(tower for name in names if (tower := tower_of(name))))
    found: dict[str, tuple[float, bool | None]] = {}
    for tower, wanted in towers.items():
        mine = [name for name in names if tower_of(name) == tower]
        if not mine:
            raise ModelError(
                f"train.layers.towers.{tower}: the model has no such tower; it has {', '.join(known) or 'a single one, without a name'}"
            )
        if wanted.freeze is not None and wanted.freeze > len(mine):
            raise ModelError(
                f"train.layers.towers.{tower}.freeze={wanted.freeze}, but the tower has {len(mine)} depth groups: {', '.join(mine)}"
            )
        top, step = lr if wanted.lr is None else wanted.lr, decay if wanted.decay is None else wanted.decay
        for depth, name in enumerate(mine):
            frozen = None if wanted.freeze is None else depth < wanted.freeze
            found[name] = (top * step ** (len(mine) - 1 - depth), frozen)
    return found


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

"""The planned table of parameter groups against the running optimizer. Plain values of both; every engine is compared with its plan
by the same rule. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass

from models.optim import GroupPlan
from orchestration.errors import PlanMismatchError


@dataclass(frozen=True)
class LiveGroup:
    """What one parameter group of the running optimizer really holds."""

    lr: float
    weight_decay: float
    param_names: tuple[str, ...]
    numel: int


def compare(plan: list[GroupPlan], live: list[LiveGroup], *, factor: float, frozen: set[str]) -> None:
    """Raises PlanMismatchError listing each group and value in which the live optimizer differs from the planned table."""
    rows = [row for row in plan if row.trainable]
    wrong = [] if len(rows) == len(live) else [f"planned {len(rows)} trainable groups, the optimizer has {len(live)}"]
    for row, group in zip(rows, live, strict=False):
        label = f"group {row.name} (weight decay {row.weight_decay:g})"
        for what, wanted, found in (
            ("learning rate", row.lr * factor, group.lr),
            ("weight decay", row.weight_decay, group.weight_decay),
            ("elements", row.numel, group.numel),
        ):
            if abs(wanted - found) > 1e-9 * max(abs(wanted), abs(found)):
                wrong.append(f"{label}: planned {what} {wanted:.9g}, live {found:.9g}")
        if set(row.param_names) != set(group.param_names):
            other = min(set(row.param_names) ^ set(group.param_names))
            wrong.append(f"{label}: other parameters than planned, e.g. {other}")
    for row in plan:
        if moved := [name for name in row.param_names if (name in frozen) == row.trainable]:
            state = "trainable" if row.trainable else "frozen"
            found_state = "frozen" if row.trainable else "trainable"
            wrong.append(f"group {row.name}: planned {state}, but {moved[0]} is {found_state}")
    if wrong:
        raise PlanMismatchError(f"the live optimizer differs from the planned table: {'; '.join(wrong)}")

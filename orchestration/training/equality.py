"""N workers against one: do they give the same numbers? Takes a TrainJob; gives the two short jobs to run (`arms`), and from what they
left the comparison, value by value, each beside what rounding alone can do (`compare`; bounds are those of `rounding` and `bounds`).
Called by `jobs/check.py`, which runs the jobs and prints. Knows no Ray.

Compared are the loss and the gradient norm of each step, the validation loss, the rates, every element of the averaged gradients (the
optimizer's first moments; SGD without momentum keeps none), and every weight. Gradients say whether ranks add up what one worker adds
up, element by element; weights, whether the optimizer then does the same with them. What is not trained must be equal to the last bit."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from models import optim
from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.bounds import Bounds
from orchestration.training.config import (
    CheckpointConfig,
    FailuresConfig,
    TrainConfig,
    TrunkConfig,
    ValidationConfig,
    ZeroConfig,
)
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.rounding import HEADROOM, Rounding

SAME_RATE = 1e-9  # as the loop's own comparison of planned and live rates
VALIDATION_BATCHES = 4
NEVER = 10**9  # steps
UNREACHED = 1e30  # as clip_norm: nothing is clipped, but norms are told


@dataclass(frozen=True)
class Row:
    """One compared number. `part`: loss, gradient norm, validation loss, rate, gradients or weights; `at`: its step, or a depth group.

    Of a group's gradients it is the element that uses most of what it is allowed, of its weights the tensor: `many` and `one` are
    then its root mean squares, `difference` the mean of its elements' differences."""

    part: str
    at: str
    many: float
    one: float
    difference: float
    allowed: float
    tensor: str | None = None

    @property
    def ok(self) -> bool:
        return self.difference <= self.allowed  # False where either is NaN

    @property
    def used(self) -> float:
        """Difference as a share of what is allowed; infinite where there is nothing to compare."""
        if self.difference == 0.0:
            return 0.0
        share = self.difference / self.allowed if self.allowed else math.inf
        return math.inf if math.isnan(share) else share


@dataclass(frozen=True)
class Arm:
    """What one run left. Tensors are read one at a time: together they may be larger than this process's memory."""

    result: LoopResult
    reader: checkpoint.Reader

    def tensor(self, name: str) -> torch.Tensor | None:
        """Flattened: a weight, a buffer or a moment; None where the checkpoint lacks it."""
        try:
            return self.reader.read(name, 0, sys.maxsize)  # type: ignore[no-any-return]
        except KeyError:
            return None

    def moment(self, parameter: str, key: str) -> torch.Tensor | None:
        """What the optimizer keeps of a parameter under `key`, such as `exp_avg`."""
        return self.tensor(f"{parameter}.{key}")


def arms(job: TrainJob, *, steps: int, rows: int) -> tuple[TrainJob, TrainJob]:
    """The job on `job.world` workers and on one, over `steps` global batches of the `rows` there are, without dropout. The last batch
    is short and cannot be divided evenly: ranks have unequal shares. One worker goes through bare torch where its memory allows that,
    and takes the shares of two workers at once: it pads and sums otherwise than they do, with twice the activations (in the cut of the
    two workers it would be equal to the last bit, and prove nothing of padding and accumulation)."""
    train = job.train
    epochs, taken = _shape(train.batch, steps=steps, rows=rows, world=job.world)
    short = train.model_copy(
        update={
            "epochs": epochs,
            "rows": taken,
            "report_every": 1,
            "clip_norm": train.clip_norm or UNREACHED,
            "layers": train.layers.model_copy(update={"unfreeze": None}),
            "schedule": train.schedule.model_copy(update={"warmup": 1 if steps > 1 else 0}),
            "validation": ValidationConfig(every_steps=NEVER, rows=VALIDATION_BATCHES * train.batch),
            "early_stopping": None,
            "checkpoint": CheckpointConfig(every_steps=NEVER),
            "trunk": TrunkConfig(use="off"),
            "max_failures": 0,
            "failures": FailuresConfig(),
        }
    )
    plain = short.model_copy(
        update={
            "zero": ZeroConfig(),
            "micro_batch": None if train.micro_tokens else _two_shares(train, job.world),
            "failures": FailuresConfig(out_of_memory="smaller_micro_batch"),
            "activation_checkpointing": False,
            "compile": False,
        }
    )
    model = job.model.model_copy(update={"dropout": 0.0})
    many = dataclasses.replace(job, train=short, model=model, run_rel=f"{job.run_rel}/many")
    return many, dataclasses.replace(many, train=plain, world=1, run_rel=f"{job.run_rel}/one")


def _two_shares(train: TrainConfig, world: int) -> int:
    share = min(train.micro_batch or train.batch, math.ceil(train.batch / world))
    return min(train.batch, 2 * share)


def _shape(batch: int, *, steps: int, rows: int, world: int) -> tuple[int, int]:
    """Epochs and rows an epoch that make at least `steps` batches."""
    last = max(1, 2 * batch // 3)
    if world > 1 and last % world == 0:
        last += 1 if last < batch else -1
    taken = min(rows, (steps - 1) * batch + last)
    return math.ceil(steps / max(1, math.ceil(taken / batch))), taken


def read(storage: Storage, result: LoopResult) -> Arm:
    return Arm(result, checkpoint.open(storage, str(result.last_checkpoint)))


@dataclass(frozen=True)
class Equality:
    rows: list[Row]
    rounding: Rounding
    steps: int
    many_world: int
    many_stage: int | None
    one_stage: int | None
    groups: int

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def worst(self) -> Row:
        """The row that uses most of what it is allowed."""
        return max(self.rows, key=lambda row: row.used)

    def dump(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "rows"}
        values["rounding"] = {**dataclasses.asdict(self.rounding), "headroom": HEADROOM}
        rows = [{**dataclasses.asdict(row), "ok": row.ok, "used": row.used} for row in self.rows]
        return {"ok": self.ok, **values, "rows": rows}


def compare(many: Arm, one: Arm, *, job: TrainJob, max_length: int) -> Equality:
    """`job`: either arm's; `max_length`: tokens of the longest row."""
    matrices = [tensor.shape for tensor in one.reader.weights().values() if tensor.ndim > 1]
    rounding = Rounding(
        precision=one.result.precision,
        width=max(shape[-1] for shape in matrices),
        depth=len(matrices),
        tokens=job.train.batch * max_length,
        rows=job.train.batch,
    )
    rows = [*_losses(many, one, rounding), *_rates(many, one, job), *_tensors(many, one, rounding, job)]
    return Equality(
        rows=rows,
        rounding=rounding,
        steps=one.result.steps,
        many_world=many.result.world,
        many_stage=many.result.zero_stage,
        one_stage=one.result.zero_stage,
        groups=sum(row["trainable"] for row in one.result.plan),
    )


def _losses(many: Arm, one: Arm, rounding: Rounding) -> list[Row]:
    """Loss and gradient norm of each step, then the validation loss. A step that one run lacks is a difference without end."""
    found = [_events(arm, "step") for arm in (many, one)]
    losses, norms = [], []
    for step in sorted({*found[0], *found[1]}):
        a, b = (events.get(step, {}) for events in found)
        allowed = rounding.loss(step, b.get("loss") or 0.0)
        losses.append(_row("loss", f"step {step}", a.get("loss"), b.get("loss"), allowed))
        if a.get("grad_norm") is not None or b.get("grad_norm") is not None:
            allowed = rounding.norm(step, b.get("grad_norm") or 0.0, b.get("loss") or 1.0)
            norms.append(_row("gradient norm", f"step {step}", a.get("grad_norm"), b.get("grad_norm"), allowed))
    validations = [_events(arm, "validation") for arm in (many, one)]
    for step in sorted({*validations[0], *validations[1]}):
        a, b = (events.get(step, {}) for events in validations)
        allowed = rounding.loss(step + 1, b.get("loss") or 0.0, b.get("rows"))
        losses.append(_row("validation loss", f"step {step}", a.get("loss"), b.get("loss"), allowed))
    return [*losses, *norms]


def _events(arm: Arm, kind: str) -> dict[int, dict[str, Any]]:
    return {event["step"]: event for event in arm.result.history if event["type"] == kind}


def _row(part: str, at: str, many: float | None, one: float | None, allowed: float) -> Row:
    a, b = (math.nan if value is None else float(value) for value in (many, one))
    return Row(part, at, a, b, abs(a - b), allowed)


def _rates(many: Arm, one: Arm, job: TrainJob) -> list[Row]:
    """The rate that each run says it took a step with, against the schedule computed here. That each group's live rate is the planned
    one is checked inside every worker, at the start and the end (`engine.check`): a run in which it is not has ended with an error."""
    rows = []
    for arm in (many, one):
        for step, event in _events(arm, "step").items():
            planned = job.train.optimizer.lr * _factor(job, arm.result, step)
            rows.append(_row("rate", f"step {step}", event["lr"], planned, SAME_RATE * planned))
    if many.result.plan != one.result.plan:
        rows.append(_row("rate", "planned tables", None, None, 0.0))
    by_step: dict[str, Row] = {}
    for row in rows:  # the worse of the two runs
        if row.at not in by_step or row.used > by_step[row.at].used:
            by_step[row.at] = row
    return list(by_step.values())


def _factor(job: TrainJob, result: LoopResult, step: int) -> float:
    """What multiplies the peak rates in step `step`, from 1."""
    schedule = job.train.schedule
    return optim.factor(step - 1, result.total_steps, name=schedule.name, warmup=schedule.warmup)


def _tensors(many: Arm, one: Arm, rounding: Rounding, job: TrainJob) -> list[Row]:
    """For each depth group the gradient's element, then the weights' tensor, that uses most of what it is allowed."""
    steps = one.result.steps
    norms = [event["grad_norm"] for event in _events(one, "step").values() if event.get("grad_norm") is not None]
    norm = min(max(norms, default=math.inf), job.train.clip_norm or math.inf)
    bounds = Bounds(job.train.optimizer, rounding, steps, norm)
    distance = sum(_factor(job, one.result, step) for step in range(1, steps + 1))  # of a weight, in peak rates
    gradients, weights = [], []
    for group, peaks in _peaks(many, one).items():
        found = {name: bounds.size(partial(one.moment, name)) for name in peaks}
        sizes = {name: size for name, size in found.items() if size is not None}
        strongest = max((float(size.square().mean().sqrt()) for size in sizes.values()), default=bounds.norm)
        element, tensor = [], []
        for name, peak in peaks.items():
            a, b, allowed = many.tensor(name), one.tensor(name), torch.zeros(())
            if peak and b is not None:
                share = bounds.of_step(strongest, sizes.get(name))
                if len(one.reader.shapes[name]) > 1:
                    share = share * bounds.ratio(b, sizes.get(name), partial(one.moment, name))
                allowed = peak * distance * share + rounding.kept(steps, b)
            tensor.append(_mean(group, name, a, b, allowed))
            if name in sizes:
                a, b = (arm.moment(name, str(bounds.mean)) for arm in (many, one))
                element.append(_element(group, name, a, b, bounds.of_mean(strongest, sizes[name])))
        gradients += [max(element, key=lambda row: row.used)] if element else []
        weights.append(max(tensor, key=lambda row: row.used))
    return [*gradients, *weights]


def _peaks(many: Arm, one: Arm) -> dict[str, dict[str, float]]:
    """Group -> parameter -> its peak rate; 0 for what is frozen and for buffers."""
    peaks: dict[str, dict[str, float]] = {}
    for plan in one.result.plan:
        rate = plan["lr"] if plan["trainable"] else 0.0
        peaks.setdefault(plan["name"], {}).update(dict.fromkeys(plan["param_names"], rate))
    known = {name for rates in peaks.values() for name in rates}
    names = {name for arm in (one, many) for name in arm.reader.shapes}
    kept = {name for name in names if name.rpartition(".")[0] not in known}  # without moments
    if buffers := sorted(kept - known):
        peaks["buffers"] = dict.fromkeys(buffers, 0.0)
    return peaks


def _element(group: str, name: str, a: Any, b: Any, allowed: torch.Tensor) -> Row:
    if a is None or b is None or a.shape != b.shape:
        return Row("gradients", group, math.nan, math.nan, math.nan, 0.0, name)
    difference = (a - b).abs()
    share = torch.where(difference == 0, 0.0, difference / allowed).nan_to_num(nan=math.inf, posinf=math.inf)
    i = int(share.argmax())
    return Row("gradients", group, float(a[i]), float(b[i]), float(difference[i]), float(allowed[i]), name)


def _mean(group: str, name: str, a: Any, b: Any, allowed: torch.Tensor) -> Row:
    if a is None or b is None or a.shape != b.shape:
        return Row("weights", group, math.nan, math.nan, math.nan, 0.0, name)
    size_a, size_b = (float(tensor.float().square().mean().sqrt()) for tensor in (a, b))
    return Row("weights", group, size_a, size_b, float((a - b).abs().float().mean()), float(allowed.mean()), name)

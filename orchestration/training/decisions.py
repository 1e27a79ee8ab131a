"""What to do when a fit has ended too early. Takes what went wrong in this command so far (plain values, the last one now) and the
TrainJob in force; gives Stop or Again. Pure: no Ray, no clock, no storage, so the whole table is tested as a table. `trainer` carries
the answer out, and alone does so.

Only what Ray cannot know comes here. A worker or node that dies, hangs or is preempted is Ray Train's: it starts the group again, at
most `train.max_failures` times. A damaged checkpoint is the loop's: it names it and takes the one before. With
`train.failures.not_finite: skip` the loop leaves the batch out by itself. Rows that cannot be read are `prepare`'s
(`data.max_bad_rows`). So the kinds are:

  user              the spec, the data or the model is wrong                                 stop, in the worker's own words
  stale_writer      another fit of this run has begun                                        stop
  disk_full         a checkpoint found no room                                               stop: the ones before are whole
  not_finite        a loss or gradient is NaN or infinite                                    by train.failures.not_finite
  out_of_memory     of a GPU, or a worker that Ray's memory monitor killed                   by train.failures.out_of_memory
  restarts          the group failed more often than train.max_failures                      stop
  no_room           the cluster had no room for the fewest workers for too long              stop
  controller        Ray Train's own controller died or failed                                again, counted as a failure
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from orchestration.training.job import TrainJob

LOWER = 0.5  # of the rate at a roll-back, and of the micro-batch when memory ran out


@dataclass(frozen=True)
class Stop:
    """The fit ends with `text`, a complete sentence for the user."""

    text: str
    exit_code: int = 1


@dataclass(frozen=True)
class Again:
    """The fit goes on from the newest checkpoint. `changes`: lr_scale, micro_batch, micro_tokens -> the new value."""

    text: str
    changes: dict[str, Any] = field(default_factory=dict)


def decide(history: list[dict[str, Any]], job: TrainJob, *, failures: int = 0) -> Stop | Again:
    """`history`: what went wrong in this command, in order; each has `kind` and `text`, besides the facts of its kind (`faults`).
    `failures`: starts of the worker group that failed so far, this one counted where it is one."""
    now = history[-1]
    kind, text = now["kind"], now["text"]
    if kind == "not_finite":
        return _not_finite(history, job)
    if kind == "out_of_memory":
        return _out_of_memory(history, job)
    if kind == "controller":
        if failures > job.train.max_failures:
            return Stop(f"{text}; train.max_failures={job.train.max_failures} restarts are used up; {_go_on(job)}")
        return Again(f"{text}; starting again, {failures} of train.max_failures={job.train.max_failures}")
    if kind == "restarts":
        return Stop(
            f"training failed after train.max_failures={job.train.max_failures} restarts: {text}; {_go_on(job)}"
        )
    if kind in ("disk_full", "no_room"):
        return Stop(f"{text}; {_go_on(job)}")
    return Stop(text, exit_code=now.get("exit_code", 1))


def _not_finite(history: list[dict[str, Any]], job: TrainJob) -> Stop | Again:
    policy, now, tried = job.train.failures, history[-1], _tried(history)
    if policy.not_finite != "roll_back":
        return Stop(now["text"])
    if tried > policy.attempts:
        return Stop(
            f"{_what(now)}; {policy.attempts} roll-backs (train.failures.attempts) to a rate of {job.train.optimizer.lr * job.lr_scale:g} did not"
            f" help; {_go_on(job)}"
        )
    scale = job.lr_scale * LOWER
    return Again(
        f"{_what(now)}; going back to the newest checkpoint with half the rate, {job.train.optimizer.lr * scale:g}"
        f" ({tried} of train.failures.attempts={policy.attempts})",
        {"lr_scale": scale},
    )


def _out_of_memory(history: list[dict[str, Any]], job: TrainJob) -> Stop | Again:
    policy, now, tried = job.train.failures, history[-1], _tried(history)
    what, size = in_force(job, now)
    if policy.out_of_memory == "stop":
        return Stop(
            f"{_what(now)}; lower train.{what} (now {size}), set train.failures.out_of_memory: smaller_micro_batch, or"
            f" train.activation_checkpointing: true; {_go_on(job)}"
        )
    if size <= 1:
        return Stop(
            f"{_what(now)}; train.{what}=1 cannot be smaller: raise train.zero.stage or add workers; {_go_on(job)}"
        )
    if tried > policy.attempts:
        return Stop(
            f"{_what(now)}; {policy.attempts} smaller micro-batches (train.failures.attempts), down to train.{what}={size}, did not help;"
            f" {_go_on(job)}"
        )
    smaller = max(1, int(size * LOWER))
    return Again(
        f"{_what(now)}; going on from the newest checkpoint with train.{what}={smaller} instead of {size} and the same batch of"
        f" {job.train.batch} ({tried} of train.failures.attempts={policy.attempts})",
        {what: smaller},
    )


def in_force(job: TrainJob, fault: dict[str, Any]) -> tuple[str, int]:
    """("micro_batch" | "micro_tokens", its size when memory ran out): the worker's word where it could say it, else the job's."""
    for what in ("micro_tokens", "micro_batch"):
        if (size := fault.get(what) or getattr(job.train, what)) is not None:
            return what, size
    return "micro_batch", math.ceil(job.train.batch / job.world)


def changed(job: TrainJob, changes: dict[str, Any]) -> TrainJob:
    """The job that goes on. A micro-batch is never raised: a resumed run whose spec has a smaller one by now keeps it."""
    train: dict[str, Any] = {}
    for what in ("micro_batch", "micro_tokens"):
        if what in changes:
            train[what] = min(changes[what], getattr(job.train, what) or changes[what])
    rate = {"lr_scale": changes["lr_scale"]} if "lr_scale" in changes else {}
    return dataclasses.replace(job, train=job.train.model_copy(update=train), **rate)


def _what(fault: dict[str, Any]) -> str:
    """What happened, without the worker's advice: what is done about it follows."""
    return fault["text"].partition("; ")[0]


def _tried(history: list[dict[str, Any]]) -> int:
    """How often this kind of thing has happened, the last one counted."""
    return sum(fault["kind"] == history[-1]["kind"] for fault in history)


def _go_on(job: TrainJob) -> str:
    return f"go on from the newest checkpoint with --resume {job.run_rel.rpartition('/')[2]}"

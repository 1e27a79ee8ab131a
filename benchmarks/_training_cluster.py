"""Two workers: our driver against `transformers` Trainer on both cores and against Ray Train with DeepSpeed. Called by `training`.

A round takes every side in turn. Of a Ray side it is one driver: a fit from the command on (first step, rows a second, score), then a
second fit of the same driver, which saves every few steps until its rank 0 is killed with signal 9, and goes on to its end. Our own
command's first step is that of `eagleray train`."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import _training_speed, _training_start
from benchmarks._claim import Claim, compare
from benchmarks._inputs import digest_ids
from benchmarks._training_inputs import (
    BATCH,
    COMPILED,
    LR,
    Fit,
    Rows,
    job,
    no_worse,
    our_fit,
    ours,
    peer,
    same_rows,
    trainer_fit,
)
from benchmarks._training_speed import BEST, MANUAL

RECIPE, TUNED = "Ray Train + DeepSpeed", "Ray Train + DeepSpeed at its best"
DCP, DCP_TUNED = "torch.distributed.checkpoint.async_save", "torch.distributed.checkpoint.async_save at its best"
WORKERS, STAGES = 2, {RECIPE: 2, TUNED: 1}
ENVIRONMENT = {"TORCH_EXTENSIONS_DIR": str(COMPILED)}
SAVE_EVERY, KILL_AT, STEPS = 6, 10, 14  # of the second fit: killed four steps after its first checkpoint
RATES = {MANUAL: 1.8, BEST: 1.15, RECIPE: 1.3, TUNED: 1.3}
STALLS = {RECIPE: 0.1, TUNED: 0.1, DCP: 0.5, DCP_TUNED: 0.5}


@dataclass(frozen=True)
class Life:
    """Of one driver: its first fit, seconds from the command to that fit's first step and where they go, seconds from the second fit's call
    to its first step, those of each checkpoint, and from a worker's death to the next new step. `redone`: steps done again."""

    fit: Fit
    second_s: float
    stalls: list[float]
    bytes: int
    lost_s: float
    redone: int
    start: _training_start.Start


@dataclass
class Found:
    """What the rounds gave, by side."""

    fits: dict[str, list[Fit]] = field(default_factory=dict)
    lives: dict[str, list[Life]] = field(default_factory=dict)
    stalls: dict[str, list[float]] = field(default_factory=dict)  # the median of each round
    bytes: dict[str, list[int]] = field(default_factory=dict)
    trainer: str = ""


def claims(given: Rows, *, cores: Sequence[int], repeats: int) -> list[Claim]:
    found, compiled_s = Found(), compiled(given, cores)
    with (
        peer("trainer", cores=cores) as manual,
        _training_speed.on_two_cores(given, cores) as (best, how),
        peer("dcp", "--ranks", str(WORKERS), cores=cores) as dcp,
    ):
        found.trainer = str(how.pop("name"))
        for repeat in range(repeats):
            seed = given.inputs.spec.seed + repeat
            sides = {
                "ours": lambda seed=seed: lived(found, "ours", our_life(given, cores, seed)),
                MANUAL: lambda seed=seed: trained(
                    found, MANUAL, manual.go(**_training_speed.told(given, best=False, seed=seed, threads=len(cores)))
                ),
                BEST: lambda seed=seed: trained(
                    found, BEST, best.go(**_training_speed.told(given, best=True, seed=seed, **how))
                ),
                RECIPE: lambda seed=seed: lived(found, RECIPE, life(given, RECIPE, cores, seed)),
                TUNED: lambda seed=seed: lived(found, TUNED, life(given, TUNED, cores, seed)),
                DCP: lambda: saved(found, DCP, dcp.go(**async_save(given, tuned=False))),
                DCP_TUNED: lambda: saved(found, DCP_TUNED, dcp.go(**async_save(given, tuned=True))),
            }
            names = list(sides)
            for name in names[repeat % 2 :] + names[: repeat % 2]:
                began = time.monotonic()
                sides[name]()
                print(
                    f"round {repeat + 1}: {name} took {time.monotonic() - began:.0f} s; {told(found, name)}",
                    file=sys.stderr,
                    flush=True,
                )
    return [
        *(rate(given, found, name) for name in RATES),
        *(stall(given, found, name) for name in STALLS),
        *(recovery(found, name) for name in (RECIPE, TUNED)),
        *(cold(found, name, compiled_s) for name in (RECIPE, TUNED)),
        *(second(found, name) for name in (RECIPE, TUNED)),
    ]


# -------------------------------------------------------------------------------------------------------- rounds


def lived(found: Found, name: str, life: Life) -> None:
    found.lives.setdefault(name, []).append(life)
    found.fits.setdefault(name, []).append(life.fit)
    found.stalls.setdefault(name, []).append(statistics.median(life.stalls))
    found.bytes.setdefault(name, []).append(life.bytes)


def trained(found: Found, name: str, answer: dict[str, Any]) -> None:
    found.fits.setdefault(name, []).append(trainer_fit(answer))


def saved(found: Found, name: str, answer: dict[str, Any]) -> None:
    found.stalls.setdefault(name, []).append(statistics.median(answer["stalls"]))
    found.bytes.setdefault(name, []).append(answer["bytes"])


def told(found: Found, name: str) -> str:
    if name in found.lives:
        one = found.lives[name][-1]
        starts = f"first step after {one.start.seconds:.1f} s, of a second fit {one.second_s:.1f} s"
        return f"{one.fit.rows_per_s:.1f} rows/s, {starts}, stall {found.stalls[name][-1]:.3f} s, lost by a death {one.lost_s:.1f} s"
    if name in found.fits:
        return f"{found.fits[name][-1].rows_per_s:.1f} rows/s"
    return f"stall {found.stalls[name][-1]:.3f} s"


def our_life(given: Rows, cores: Sequence[int], seed: int) -> Life:
    start = _training_start.ours(given, WORKERS)
    first = job(given, f"two-{seed}", world=WORKERS, seed=seed)
    second = job(
        given,
        f"killed-{seed}",
        world=WORKERS,
        seed=seed,
        checkpoints=True,
        rows=STEPS * BATCH,
        report_every=1,
        validation={"rows": 1, "every_steps": 10**6},
        checkpoint={"every_steps": SAVE_EVERY, "keep": 5},
    )
    with ours(cores=cores) as driver:
        fitted = driver.go(job=first)
        killed = driver.go(job=second, kill_at=KILL_AT)
    lost_s, redone = lost(killed["events"])
    saves = [event for event in killed["events"] if event["type"] == "checkpoint"]
    return Life(
        fit=our_fit(given, first, fitted),
        second_s=first_step(killed["events"])["at"] - killed["called"],
        stalls=stalls_of(killed),
        bytes=max((int(event.get("bytes", 0)) for event in saves), default=0),
        lost_s=lost_s,
        redone=redone,
        start=start,
    )


def stalls_of(answer: dict[str, Any]) -> list[float]:
    """Our training thread's wait for each checkpoint, by the loop's own clock: the wait for the one before included, as in the peers'."""
    return [event["stall_s"] for event in answer["events"] if event["type"] == "checkpoint"]


def life(given: Rows, name: str, cores: Sequence[int], seed: int) -> Life:
    common = recipe(given, name, seed)
    began = time.time()
    with peer("ray", cores=cores, settings=ENVIRONMENT) as driver:
        fitted = driver.go(**common, rows=given.count, save_every=None, score=True, name=f"two-{time.time_ns()}")
        killed = driver.go(
            **common,
            rows=STEPS * BATCH,
            save_every=SAVE_EVERY,
            kill_at=KILL_AT,
            score=False,
            name=f"killed-{time.time_ns()}",
        )
    lost_s, redone = lost(killed["events"])
    return Life(
        fit=recipe_fit(fitted["events"]),
        second_s=first_step(killed["events"])["at"] - killed["called"],
        stalls=[event["seconds"] for event in killed["events"] if event["type"] == "save"],
        bytes=killed["bytes"],
        lost_s=lost_s,
        redone=redone,
        start=_training_start.recipe(fitted["events"], began),
    )


def recipe(given: Rows, name: str, seed: int) -> dict[str, Any]:
    storage = str(given.folder / "runs" / "ray")
    numbers = {"batch": BATCH, "epochs": 1, "lr": LR, "seed": seed, "workers": WORKERS, "stage": STAGES[name]}
    return {**given.shared(), **numbers, "storage": storage, "tuned": name == TUNED}


def compiled(given: Rows, cores: Sequence[int]) -> float:
    """Seconds of a fit of two steps that fills DeepSpeed's cache of compiled ops, or finds it full."""
    began = time.time()
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(peer("ray", cores=cores, settings=ENVIRONMENT))
        answer = driver.go(
            **recipe(given, RECIPE, 0), rows=2 * BATCH, save_every=None, score=False, name=f"compile-{time.time_ns()}"
        )
    return first_step(answer["events"])["at"] - began


def async_save(given: Rows, *, tuned: bool) -> dict[str, Any]:
    rows = {"model": str(given.inputs.folder), "train": str(given.train), "folder": str(given.folder / "runs" / "dcp")}
    return {**rows, "batch": BATCH // WORKERS, "steps": STEPS + 4, "save_every": SAVE_EVERY, "tuned": tuned}


# -------------------------------------------------------------------------------------------------------- events


def first_step(events: list[dict[str, Any]]) -> dict[str, Any]:
    return next(event for event in events if event["type"] == "step")


def lost(events: list[dict[str, Any]]) -> tuple[float, int]:
    """Seconds from the kill to the first step that had not been done before it, and how many steps were done again."""
    kill = next(number for number, event in enumerate(events) if event["type"] == "killed")
    again = next(number for number in range(kill, len(events)) if events[number]["type"] == "start")
    done = max(event["step"] for event in events[:again] if event["type"] == "step")
    steps = [event for event in events[again:] if event["type"] == "step"]
    new = next(event for event in steps if event["step"] > done)
    return new["at"] - events[kill]["at"], sum(event["step"] <= done for event in steps)


def recipe_fit(events: list[dict[str, Any]]) -> Fit:
    """Seconds from the second step's end, scaled to all steps: the first one also waits for the other rank."""
    steps = [event for event in events if event["type"] == "step"]
    trained, result = (next(event for event in events if event["type"] == kind) for kind in ("trained", "result"))
    seconds = (trained["at"] - steps[0]["at"]) * len(steps) / (len(steps) - 1)
    return Fit(seconds, digest_ids(result["trained"]), len(result["trained"]), result.get("accuracy"))


# -------------------------------------------------------------------------------------------------------- claims


def rate(given: Rows, found: Found, name: str) -> Claim:
    mine, theirs = found.fits["ours"], found.fits[name]
    same, says = same_rows(mine + theirs, given.ids())
    good, scores = no_worse(mine, theirs)
    way = f"the Trainer's best way on two cores was {found.trainer}" if name == BEST else ""
    stage = f"ZeRO stage {STAGES[name]} there, none here" if name in STAGES else ""
    return Claim(
        f"rows a second in training, two workers, against {name}",
        better="higher",
        target=RATES[name],
        unit="rows/s",
        gate=same and good,
        gate_says=f"{says}; {scores}",
        note=way or stage,
        **compare([fit.rows_per_s for fit in mine], [fit.rows_per_s for fit in theirs]),
    )


def stall(given: Rows, found: Found, name: str) -> Claim:
    """Gate: both wrote weights and both moments of every parameter."""
    numel = found.lives["ours"][0].start.work["parameters"]
    least = min(found.bytes["ours"] + found.bytes[name])
    return Claim(
        f"seconds the training thread waits a checkpoint, two workers, against {name}",
        better="lower",
        target=STALLS[name],
        unit="s",
        gate=least >= 12 * numel,
        gate_says=f"the smallest checkpoint of either side has {least:,} bytes, {least / numel:.1f} a parameter (12 are weights and two moments)",
        note=f"every {SAVE_EVERY} steps; medians of the saves of a fit",
        **compare(found.stalls["ours"], found.stalls[name]),
    )


def recovery(found: Found, name: str) -> Claim:
    mine, theirs = found.lives["ours"], found.lives[name]
    redone = sorted({life.redone for life in mine}), sorted({life.redone for life in theirs})
    return Claim(
        f"seconds from kill -9 of a worker to the next new step, two workers, against {name}",
        better="lower",
        target=round(1 / 3, 4),
        unit="s",
        gate=all(life.redone <= KILL_AT for life in mine + theirs),
        gate_says=f"every fit went on to its step {STEPS}; steps done again: ours {redone[0]}, peer {redone[1]}",
        note=f"killed after step {KILL_AT}, a checkpoint every {SAVE_EVERY}; ours is counted to the driver hearing of the step",
        **compare([life.lost_s for life in mine], [life.lost_s for life in theirs]),
    )


def cold(found: Found, name: str, compiled_s: float) -> Claim:
    mine, theirs = [life.start for life in found.lives["ours"]], [life.start for life in found.lives[name]]
    same = all(start.work == mine[0].work for start in mine + theirs)
    near = all(abs(start.loss - math.log(2)) < 0.1 for start in mine + theirs)  # an untrained head of two classes
    return Claim(
        f"seconds from command to first step, two workers, against {name}",
        better="lower",
        target=0.5,
        unit="s",
        gate=same and near,
        gate_says=f"both train {mine[0].work}; first losses {[round(start.loss, 3) for start in mine + theirs]}",
        note=f"the peer's ops were compiled before; its first start of this run, which compiles what is not cached yet, took {compiled_s:.0f} s",
        parts={"ours": _training_start.middle(mine).parts, "peer": _training_start.middle(theirs).parts},
        **compare([start.seconds for start in mine], [start.seconds for start in theirs]),
    )


def second(found: Found, name: str) -> Claim:
    mine, theirs = found.lives["ours"], found.lives[name]
    return Claim(
        f"seconds from the second fit of one driver to its first step, two workers, against {name}",
        better="lower",
        target=0.25,
        unit="s",
        gate=all(life.fit.rows == mine[0].fit.rows for life in mine + theirs),
        gate_says="every driver's first fit went through all its rows",
        **compare([life.second_s for life in mine], [life.second_s for life in theirs]),
    )

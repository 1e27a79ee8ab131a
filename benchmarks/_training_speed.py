"""Rows a second of a fine-tuning on one core: our loop against `transformers` Trainer by default and at its best. Called by `training`, which
also takes from here how a Trainer is told what to do.

Both sides are processes that have everything imported, on the same core, one torch thread; counted is the training loop alone."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks._claim import Claim, compare
from benchmarks._peers import Peer
from benchmarks._training_inputs import BATCH, LR, Fit, Rows, job, our_fit, ours, peer, same_rows, trainer_fit

MANUAL, BEST = "transformers Trainer", "transformers Trainer at its best"
TARGETS = {MANUAL: 1.8, BEST: 1.15}


def told(given: Rows, *, best: bool, seed: int, threads: int, ranks: int = 1, epochs: int = 1) -> dict[str, Any]:
    """A piece of work for training_trainer: the manual's arguments, or all that makes it quicker without changing what is computed."""
    settings: dict[str, Any] = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": BATCH // ranks,
        "per_device_eval_batch_size": 64,
        "learning_rate": LR,
        "seed": seed,
    }
    if best:
        settings |= {
            "optim": "adamw_torch_fused",
            "logging_strategy": "no",
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "average_tokens_across_devices": False,  # with two ranks it doubles the loss
            "ddp_find_unused_parameters": False,
        }
    output = str(given.folder / "runs" / "trainer")
    return {
        **given.shared(),
        "output": output,
        "rows": given.count,
        "settings": settings,
        "threads": threads,
        "lean": best,
    }


@contextlib.contextmanager
def on_two_cores(given: Rows, cores: Sequence[int]) -> Iterator[tuple[Peer, dict[str, Any]]]:
    """The quicker of one process with two threads and two processes with one: whichever a first fit of a few steps shows."""
    few = Rows(given.inputs, 5 * BATCH, given.folder, given.train, given.held_out)
    ways = {
        "one process, two threads": ((), {"threads": 2}),
        "two processes": (("--ranks", "2"), {"threads": 1, "ranks": 2}),
    }
    with contextlib.ExitStack() as stack:
        found: dict[str, tuple[float, Peer, dict[str, Any]]] = {}
        for name, (arguments, how) in ways.items():
            process = stack.enter_context(peer("trainer", *arguments, cores=cores))
            work = told(few, best=True, seed=1, **how)
            process.go(**work)  # the first fit of a process allocates
            found[name] = (process.go(**work)["seconds"], process, how)
        chosen = min(found, key=lambda name: found[name][0])
        seconds = {name: round(one[0], 2) for name, one in found.items()}
        print(f"Trainer on two cores, {few.count} rows: {seconds} s", file=sys.stderr, flush=True)
        yield found[chosen][1], {**found[chosen][2], "name": chosen}


def claims(given: Rows, *, cores: Sequence[int], repeats: int) -> list[Claim]:
    one, fits = cores[-1:], {"ours": [], MANUAL: [], BEST: []}
    with ours(cores=one) as mine, peer("trainer", cores=one) as theirs:

        def fit(side: str, seed: int) -> Fit:
            if side == "ours":
                values = job(given, f"speed-{seed}", seed=seed, validation={"metric": "accuracy", "rows": 1})
                return our_fit(given, values, mine.go(job=values))
            return trainer_fit(theirs.go(**told(given, best=side == BEST, seed=seed, threads=1), score=False))

        for repeat in range(repeats):
            names = list(fits)
            for side in names[repeat % 3 :] + names[: repeat % 3]:
                fits[side].append(fit(side, given.inputs.spec.seed + repeat))
                print(f"one core: {side} {fits[side][-1].rows_per_s:.1f} rows/s", file=sys.stderr, flush=True)
    return [_claim(given, name, fits["ours"], fits[name]) for name in TARGETS]


def _claim(given: Rows, name: str, mine: list[Fit], theirs: list[Fit]) -> Claim:
    same, says = same_rows(mine + theirs, given.ids())
    return Claim(
        f"rows a second in training, one worker on one core, against {name}",
        better="higher",
        target=TARGETS[name],
        unit="rows/s",
        gate=same,
        gate_says=says,
        note=f"ratio of processor seconds {processor(mine, theirs):.3f}",
        **compare([fit.rows_per_s for fit in mine], [fit.rows_per_s for fit in theirs]),
    )


def processor(mine: Sequence[Fit], theirs: Sequence[Fit]) -> float:
    """The peer's processor seconds over ours: like the ratio of rates, but a busy machine disturbs it less."""
    pairs = zip(mine, theirs, strict=True)
    return statistics.median((b.cpu_seconds or 0.0) / (a.cpu_seconds or 1.0) for a, b in pairs)

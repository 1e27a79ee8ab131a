"""What our loop costs over a plain PyTorch loop of the same model and batches (seconds a step, one worker), and how long a
command takes to its first step beside the Ray manual's own DeepSpeed recipe (two workers).

Gate of the first: the losses of all steps agree within 1e-5 (dropout 0, fp32). Both sides read the same rows in the same order,
report every 10 steps and have one torch thread (`--threads 2` for more). Timed from the first report to the last, so loading and
validation are outside."""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks import _startup
from benchmarks._claim import Claim, compare
from benchmarks._inputs import Inputs, quickstart
from models.config import ModelConfig
from orchestration.training.job import TrainJob

TARGET = 1.03
TOLERANCE = 1e-5
REPORT_EVERY = 10


@dataclass
class Trace:
    """What one run reported: steps, mean losses, and when (wall and CPU seconds of this process)."""

    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def add(self, step: int, loss: float) -> None:
        self.wall_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())
        self.steps.append(step)
        self.losses.append(loss)

    def per_step(self) -> float:
        """Seconds a step between the first report and the last."""
        return (self.wall_s[-1] - self.wall_s[0]) / (self.steps[-1] - self.steps[0])


def cpu_per_step(trace: Trace) -> float:
    """All threads' CPU seconds a step: with one torch thread nothing spins, so other work on the machine hardly shows."""
    return (trace.cpu_s[-1] - trace.cpu_s[0]) / (trace.steps[-1] - trace.steps[0])


def quickest(traces: Sequence[Trace]) -> float:
    """Seconds from first to last report, each stretch between reports taken from the repeat that was quickest in it."""
    stretches = zip(*([b - a for a, b in itertools.pairwise(trace.wall_s)] for trace in traces), strict=True)
    return sum(min(stretch) for stretch in stretches)


def run(repeats: int = 5, steps: int = 30, starts: int = 3, threads: int = 1) -> list[Claim]:
    inputs = quickstart()
    claims = per_step(inputs, repeats=repeats, steps=steps, threads=threads) if repeats else []
    return claims + (_startup.first_step(inputs, repeats=starts) if starts else [])


def per_step(inputs: Inputs, *, repeats: int, steps: int, threads: int) -> list[Claim]:
    """Seconds a step: bare torch engine and DeepSpeed stage 0, each against the plain loop, in turn."""
    import torch

    torch.set_num_threads(threads)  # 1: what a worker with one CPU has, and steadier on a busy machine
    sides: dict[str, Callable[[int], Trace]] = {
        "plain": lambda every: plain(inputs, steps=steps, every=every),
        "ours": lambda every: ours(inputs, steps=steps, every=every, stage="auto"),
        "deepspeed": lambda every: ours(inputs, steps=steps, every=every, stage=0),
    }
    every_step = {name: side(1) for name, side in sides.items()}  # warms up, and compares each single loss
    timed: dict[str, list[Trace]] = {name: [] for name in sides}
    for repeat in range(repeats):
        names = list(sides)
        for name in names[repeat % 3 :] + names[: repeat % 3]:  # nobody always runs first
            timed[name].append(sides[name](REPORT_EVERY))
            print(f"repeat {repeat + 1}: {name} {timed[name][-1].per_step():.4f} s a step", file=sys.stderr, flush=True)
    return [
        claim("seconds per step, one worker, against a plain PyTorch loop", "ours", every_step, timed),
        claim(
            "seconds per step, one worker, DeepSpeed ZeRO stage 0, against a plain PyTorch loop",
            "deepspeed",
            every_step,
            timed,
        ),
    ]


def claim(text: str, name: str, every_step: dict[str, Trace], timed: dict[str, list[Trace]]) -> Claim:
    mine, peer = [t.per_step() for t in timed[name]], [t.per_step() for t in timed["plain"]]
    fastest = quickest(timed[name]) / quickest(timed["plain"])
    cpu = statistics.median(cpu_per_step(a) / cpu_per_step(b) for a, b in zip(timed[name], timed["plain"], strict=True))
    pairs = list(zip(every_step[name].losses, every_step["plain"].losses, strict=True))
    pairs += [
        pair for a, b in zip(timed[name], timed["plain"], strict=True) for pair in zip(a.losses, b.losses, strict=True)
    ]
    worst = max(abs(a - b) for a, b in pairs)
    return Claim(
        text,
        better="lower",
        target=TARGET,
        unit="s",
        gate=worst <= TOLERANCE,
        gate_says=f"{len(every_step[name].losses)} single losses and {len(pairs) - len(every_step[name].losses)} means of {REPORT_EVERY} differ by at most {worst:.1e} (allowed {TOLERANCE:.0e})",
        note=f"a busy machine disturbs these less: ratio of CPU seconds a step {cpu:.3f}, of the quickest passes over each {REPORT_EVERY} steps {fastest:.3f}",
        **compare(mine, peer),
    )


def train_job(inputs: Inputs, *, steps: int, every: int, stage: Literal["auto", 0]) -> TrainJob:
    """The quickstart's fit cut to so many steps: no checkpoints, a validation of one row after the last report."""
    import torch

    train = inputs.spec.train
    changes: dict[str, Any] = {
        "rows": steps * train.batch,
        "report_every": every,
        "layers": {"decay": 1.0},
        "zero": {"stage": stage},
    }
    changes["validation"] = {"rows": 1}
    return TrainJob(
        train=type(train).model_validate({**train.model_dump(), **changes}),
        model=ModelConfig(path=inputs.spec.model.path, dropout=0.0),
        labels=tuple(inputs.spec.data.labels),
        seed=inputs.spec.seed,
        storage_url=inputs.storage.url,
        weights_rel=inputs.weights.rel,
        store_rel=inputs.store_rel,
        run_rel="runs/overhead",
        threads=torch.get_num_threads(),
        checkpoints=False,
        device="cpu",
    )


def ours(inputs: Inputs, *, steps: int, every: int, stage: Literal["auto", 0]) -> Trace:
    from orchestration.training import loop

    trace = Trace()

    def report(event: dict[str, Any]) -> None:
        if event["type"] == "step":
            trace.add(event["step"], event["loss"])

    job = train_job(inputs, steps=steps, every=every, stage=stage)
    loop.run(job, rank=0, world=1, report=report)
    gc.collect()  # nobody pays for the garbage of the side before
    return trace


def plain(inputs: Inputs, *, steps: int, every: int) -> Trace:
    """The same model, rows and order, handed to the peer as tensors and lists."""
    import torch

    from benchmarks.peers.plain import Settings, train
    from models.optim import warmup_steps
    from models.text import build
    from orchestration.data import order

    job, store = train_job(inputs, steps=steps, every=every, stage="auto"), inputs.store
    split = store.split("train").head(job.train.rows)
    found = order.Epoch(store.fingerprint, split.lengths, batch=job.train.batch, seed=job.seed, epoch=0)
    batches = [found.batch(number) for number in range(len(found))]
    model = build(job.model, inputs.folder, list(job.labels), seed=job.seed)
    rows = [
        (torch.from_numpy(ids.astype("int64")), int(label))
        for ids, label in zip(split.input_ids(range(len(split))), split.labels, strict=True)
    ]
    chosen = job.train.optimizer
    settings = Settings(
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        betas=(chosen.beta1, chosen.beta2),
        eps=chosen.eps,
        clip_norm=job.train.clip_norm or float("inf"),
        warmup=warmup_steps(job.train.schedule.warmup, steps),
        pad_id=model.config.pad_token_id,
        report_every=every,
    )
    trace = Trace()
    train(model, rows, [batch.tolist() for batch in batches], settings, trace.add)
    gc.collect()
    return trace

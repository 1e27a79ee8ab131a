"""What our loop costs over a plain PyTorch loop of the same model and batches, in seconds a step, one worker. Called by `training`.

Both loops run in one process, one torch thread, and take turns: STRETCH steps of the one, then of the other, so that whatever the
machine does meanwhile meets both. Not counted: the first stretch, which loads, and the validation. Gate: the mean losses of all
stretches agree within 1e-5 (dropout 0, fp32)."""

from __future__ import annotations

import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks._claim import Claim, compare
from benchmarks._training_inputs import BATCH, Rows, job, our_job
from models.config import ModelConfig

TARGET = 1.01
TOLERANCE = 1e-5
STRETCH = 5  # steps
WAIT_S = 600.0


@dataclass
class Turns:
    """One side's turns: what it reported, and wall and processor seconds of each stretch but the first."""

    losses: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    mine: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    theirs: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    began: tuple[float, float] | None = None

    def report(self, loss: float) -> None:
        """A stretch has ended: note it, let the other side go on, wait."""
        wall, cpu = time.perf_counter(), time.process_time()
        if self.began:
            self.wall_s.append(wall - self.began[0])
            self.cpu_s.append(cpu - self.began[1])
        self.losses.append(loss)
        self.theirs.release()
        self.wait()
        self.began = time.perf_counter(), time.process_time()

    def wait(self) -> None:
        if not self.mine.acquire(timeout=WAIT_S):
            raise TimeoutError("the other loop ended or stands still")


def alternate(one: Callable[[Turns], None], other: Callable[[Turns], None]) -> tuple[Turns, Turns]:
    """Run both, stretch by stretch; `one` has the first turn. Raises what either raised."""
    a = Turns()
    b = Turns(mine=a.theirs, theirs=a.mine)
    failed: list[BaseException] = []

    def run(side: Callable[[Turns], None], turns: Turns) -> None:
        try:
            turns.wait()
            side(turns)
        except BaseException as error:
            failed.append(error)
        finally:
            turns.theirs.release(1000)  # the other side waits no more

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in ((one, a), (other, b))]
    a.mine.release()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return a, b


def claims(given: Rows, *, stretches: int) -> list[Claim]:
    import torch

    torch.set_num_threads(1)  # what a worker with one CPU has, and steadier on a busy machine
    steps = (stretches + 1) * STRETCH
    mine, peer = alternate(lambda turns: ours(given, steps, turns), lambda turns: plain(given, steps, turns))
    gc.collect()
    worst = max(abs(a - b) for a, b in zip(mine.losses, peer.losses, strict=True))
    cpu = statistics.median(a / b for a, b in zip(mine.cpu_s, peer.cpu_s, strict=True))
    found = Claim(
        "seconds a step, one worker, against a plain PyTorch loop",
        better="lower",
        target=TARGET,
        unit="s",
        gate=worst <= TOLERANCE,
        gate_says=f"{len(mine.losses)} means of {STRETCH} losses differ by at most {worst:.1e} (allowed {TOLERANCE:.0e})",
        note=f"ratio of processor seconds {cpu:.3f}, which a busy machine disturbs less; of all stretches together {sum(mine.wall_s) / sum(peer.wall_s):.3f}",
        **compare([s / STRETCH for s in mine.wall_s], [s / STRETCH for s in peer.wall_s]),
    )
    print(f"{found.claim}: {found.ratio:.3f}, processor {cpu:.3f}", file=sys.stderr, flush=True)
    return [found]


def settings(given: Rows, steps: int) -> dict[str, Any]:
    values = job(
        given, "overhead", rows=steps * BATCH, report_every=STRETCH, validation={"rows": 1}, schedule={"warmup": 0.1}
    )
    return {**values, "model": ModelConfig(path=values["model"]["path"], dropout=0.0).model_dump(mode="json")}


def ours(given: Rows, steps: int, turns: Turns) -> None:
    from orchestration.training import loop

    def report(event: dict[str, Any]) -> None:
        if event["type"] == "step":
            turns.report(event["loss"])

    loop.run(our_job(settings(given, steps)), rank=0, world=1, report=report)


def plain(given: Rows, steps: int, turns: Turns) -> None:
    """The same model, rows and order, handed to the peer as tensors and lists."""
    import torch

    from benchmarks.peers.training_plain import Settings, train
    from models.optim import warmup_steps
    from models.text import build
    from orchestration.data import order

    own, store = our_job(settings(given, steps)), given.inputs.store
    split = store.split("train").head(own.train.rows)
    found = order.Epoch(store.fingerprint, split.lengths, batch=own.train.batch, seed=own.seed, epoch=0)
    model = build(own.model, given.inputs.folder, list(own.labels), seed=own.seed)
    rows = [
        (torch.from_numpy(ids.astype("int64")), int(label))
        for ids, label in zip(split.input_ids(range(len(split))), split.labels, strict=True)
    ]
    chosen = own.train.optimizer
    numbers = Settings(
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        betas=(chosen.beta1, chosen.beta2),
        eps=chosen.eps,
        clip_norm=own.train.clip_norm or float("inf"),
        warmup=warmup_steps(own.train.schedule.warmup, steps),
        pad_id=model.config.pad_token_id,
        report_every=STRETCH,
    )
    batches = [found.batch(number).tolist() for number in range(len(found))]
    train(model, rows, batches, numbers, lambda step, loss: turns.report(loss))

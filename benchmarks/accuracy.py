"""Test accuracy of the quickstart's final fit (4,000 rows, one epoch, batch 32, rate 5e-5, two workers) against `transformers`
Trainer with its defaults and with length grouping, on the same rows, epochs, batch and seeds; and rows a second of both.

Gate: both sides trained on the same row ids, each once, and were scored on the same row ids. Rows a second count the training
loop alone (no start, no loading, no validation); our two workers have one thread each, Trainer has one process with all cores."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._claim import Claim, compare
from benchmarks._inputs import Inputs, digest_ids, export, quickstart
from benchmarks._peers import PEERS, started
from orchestration.errors import UserError
from orchestration.storage import cache_root

POINT = 0.01
SAMPLING = {"transformers Trainer": "random", "transformers Trainer with length grouping": "group_by_length"}


@dataclass(frozen=True)
class Fit:
    """One fit: test accuracy, rows a second of the training loop, digests of the row ids, how many rows were trained."""

    accuracy: float
    rows_per_s: float
    trained: str
    tested: str
    rows: int


def run(seeds: int = 1) -> list[Claim]:
    inputs = quickstart()
    folder = cache_root() / "benchmarks" / "accuracy"
    train = inputs.store.split("train").head(inputs.spec.train.rows)
    export(train, folder / "train.parquet")
    export(inputs.store.split("test"), folder / "test.parquet")
    mine: list[Fit] = []
    peers: dict[str, list[Fit]] = {name: [] for name in SAMPLING}
    for seed in range(inputs.spec.seed, inputs.spec.seed + seeds):
        mine.append(ours(inputs, seed))
        print(f"seed {seed}: ours {mine[-1]}", file=sys.stderr, flush=True)
        for name, sampling in SAMPLING.items():
            peers[name].append(peer(inputs, folder, seed=seed, sampling=sampling))
            print(f"seed {seed}: {name} {peers[name][-1]}", file=sys.stderr, flush=True)
    return [claim for name in SAMPLING for claim in claims(name, mine, peers[name])]


def claims(name: str, mine: list[Fit], peers: list[Fit]) -> list[Claim]:
    work = {(fit.trained, fit.tested, fit.rows) for fit in mine + peers}
    gate: dict[str, Any] = {"gate": len(work) == 1, "better": "higher", "repeats": len(mine)}
    rows = sorted({fit.rows for fit in mine + peers})
    gate["gate_says"] = (
        f"digests of trained and of tested row ids {'are equal' if gate['gate'] else 'differ'}; rows trained: {rows}"
    )
    a, b = [fit.accuracy for fit in mine], [fit.accuracy for fit in peers]
    ours_, peer_ = statistics.fmean(a), statistics.fmean(b)
    return [
        Claim(
            f"test accuracy against {name}",
            ours=ours_,
            peer=peer_,
            target=round(1 - POINT / peer_, 6),
            unit="share",
            note=f"means over seeds, ours {_list(a, 4)}, peer {_list(b, 4)}; the target is the peer less one point",
            **gate,
        ),
        Claim(
            f"rows a second in training against {name}",
            unit="rows/s",
            note="no target is promised here",
            **{**gate, **compare([fit.rows_per_s for fit in mine], [fit.rows_per_s for fit in peers])},
        ),
    ]


def ours(inputs: Inputs, seed: int) -> Fit:
    """Through Ray Train and DeepSpeed as `eagleray train` does, then the best checkpoint on the test split."""
    from cluster.local import session
    from orchestration.training.job import TrainJob
    from orchestration.training.trainer import fit

    spec, run_rel = inputs.spec, f"runs/accuracy-{seed}-{os.getpid()}"
    job = TrainJob(
        train=spec.train,
        model=spec.model,
        labels=tuple(spec.data.labels),
        seed=seed,
        storage_url=inputs.storage.url,
        weights_rel=inputs.weights.rel,
        store_rel=inputs.store_rel,
        run_rel=run_rel,
        world=spec.cluster.workers,
    )
    resources = {
        "workers": spec.cluster.workers,
        "cpus_per_worker": spec.cluster.cpus_per_worker,
        "gpus_per_worker": 0.0,
    }
    try:
        with session(spec.cluster):
            result = fit(job, cluster=resources, on_event=lambda event: None)
        accuracy, tested = score(inputs, result.best_checkpoint)
    finally:
        inputs.storage.remove(run_rel)
    split = inputs.store.split("train").head(spec.train.rows)
    wanted = -(-len(split) // spec.train.batch) * spec.train.epochs
    if result.steps != wanted:
        raise UserError(f"our fit ended after {result.steps} of {wanted} steps ({result.ended})")
    rows = len(split) * spec.train.epochs
    return Fit(accuracy, rows / result.seconds["train"], digest_ids(split.row_ids), tested, rows)


def score(inputs: Inputs, checkpoint_rel: str | None) -> tuple[float, str]:
    """Accuracy on the test split, digest of its row ids."""
    import numpy as np

    from models import tasks
    from models.inputs import Rows
    from orchestration import inference
    from orchestration.package import trained_model
    from orchestration.training import checkpoint

    if checkpoint_rel is None:
        raise UserError("our fit kept no checkpoint")
    split, labels = inputs.store.split("test"), inputs.spec.data.labels
    model = trained_model(inputs.folder, checkpoint.open(inputs.storage, checkpoint_rel).weights(), labels)
    rows = Rows(split.input_ids(np.arange(len(split))))
    threads = len(os.sched_getaffinity(0))
    task = tasks.make(inputs.spec.model, labels, inputs.folder)
    logits_NC = inference.logits(
        model, rows, task=task, pad_id=model.config.pad_token_id, micro_batch=64, threads=threads
    )
    return float((logits_NC.argmax(-1) == split.labels).mean()), digest_ids(split.row_ids)


def peer(inputs: Inputs, folder: Path, *, seed: int, sampling: str) -> Fit:
    train, cores = inputs.spec.train, sorted(os.sched_getaffinity(0))
    settings = {
        "num_train_epochs": train.epochs,
        "per_device_train_batch_size": train.batch,
        "per_device_eval_batch_size": 64,
        "learning_rate": train.optimizer.lr,
        "seed": seed,
        "train_sampling_strategy": sampling,
        "disable_tqdm": True,
    }
    files = {
        "model": inputs.folder,
        "train": folder / "train.parquet",
        "held_out": folder / "test.parquet",
        "output": folder / "trainer",
    }
    with started("trainer", [sys.executable, PEERS / "training_trainer.py"], cores=cores) as process:
        rows = len(inputs.store.split("train").head(inputs.spec.train.rows))
        paths = {key: str(path) for key, path in files.items()}
        found = process.go(**paths, rows=rows, settings=settings, threads=len(cores))
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    return Fit(
        found["accuracy"],
        len(found["trained"]) / found["seconds"],
        digest_ids(found["trained"]),
        digest_ids(found["tested"]),
        len(found["trained"]),
    )


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)

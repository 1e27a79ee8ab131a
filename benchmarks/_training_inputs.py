"""What all claims of `training` share: the rows as both sides read them, our jobs over them, and what both sides' answers become.
Real texts of real lengths (the quickstart's corpus, 25 tokens on average), MiniLM, batch 32, AdamW, linear decay, no warm-up, equal rates
for all layers: what `transformers` Trainer does by default, so that both sides do the same work."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._inputs import Inputs, digest_ids, export, quickstart
from benchmarks._peers import PEERS, Peer, started
from models.config import ModelConfig
from orchestration.data import order
from orchestration.storage import cache_root
from orchestration.training.config import TrainConfig
from orchestration.training.job import TrainJob

BATCH, LR = 32, 2e-4
FOLDER = cache_root() / "benchmarks" / "training"
COMPILED = FOLDER / "compiled"  # DeepSpeed's ops stay from one run of the benchmark to the next
POINT = 0.01
SEED_STD = 0.022  # of a fit's accuracy after 1,024 rows, five seeds of ours (0.703 to 0.763); after 2,048 rows 0.009


@dataclass(frozen=True)
class Rows:
    """The first `count` rows of the training split and all of the validation split, as Parquet too."""

    inputs: Inputs
    count: int
    folder: Path
    train: Path
    held_out: Path

    def ids(self) -> list[str]:
        return list(self.inputs.store.split("train").head(self.count).row_ids)

    def shared(self) -> dict[str, Any]:
        """What every peer is told."""
        return {"model": str(self.inputs.folder), "train": str(self.train), "held_out": str(self.held_out)}


@contextlib.contextmanager
def rows(count: int) -> Iterator[Rows]:
    """Removes at the end what the fits left in storage."""
    inputs, folder = quickstart(), FOLDER / str(os.getpid())  # two runs of the benchmark do not meet
    split = inputs.store.split("train").head(count)
    export(split, folder / "train.parquet")
    export(inputs.store.split("validation"), folder / "held-out.parquet")
    try:
        yield Rows(inputs, len(split), folder, folder / "train.parquet", folder / "held-out.parquet")
    finally:
        inputs.storage.remove(run_rel(""))
        shutil.rmtree(folder, ignore_errors=True)


def run_rel(name: str) -> str:
    return f"runs/bench-training-{os.getpid()}/{name}".rstrip("/")


def job(
    given: Rows, name: str, *, world: int = 1, checkpoints: bool = False, seed: int | None = None, **train: Any
) -> dict[str, Any]:
    """A TrainJob's values. Keyword arguments go into the `train` part."""
    inputs = given.inputs
    common = {
        "rows": given.count,
        "batch": BATCH,
        "optimizer": {"lr": LR, "weight_decay": 0.0},
        "schedule": {"name": "linear", "warmup": 0},
        "report_every": 10**6,
        "validation": {"metric": "accuracy"},
        "trunk": {"use": "off"},
    }
    return TrainJob(
        train=TrainConfig.model_validate({**common, **train}),
        model=ModelConfig(path=inputs.spec.model.path),
        labels=tuple(inputs.spec.data.labels),
        seed=inputs.spec.seed if seed is None else seed,
        storage_url=inputs.storage.url,
        weights_rel=inputs.weights.rel,
        store_rel=inputs.store_rel,
        run_rel=run_rel(name),
        world=world,
        threads=1,
        checkpoints=checkpoints,
        device="cpu",
    ).dump()


def our_job(values: dict[str, Any]) -> TrainJob:
    """The opposite of `TrainJob.dump`."""
    train, model = TrainConfig.model_validate(values["train"]), ModelConfig.model_validate(values["model"])
    named = {key: tuple(values[key]) for key in ("labels", "teachers")}
    return TrainJob(**{**values, **named, "train": train, "model": model})


def ours(*, cores: Sequence[int]) -> contextlib.AbstractContextManager[Peer]:
    return started("ours", [sys.executable, "-m", "benchmarks._training_ours"], cores=cores)


def peer(
    script: str, *arguments: str, cores: Sequence[int], settings: dict[str, str] | None = None
) -> contextlib.AbstractContextManager[Peer]:
    return started(
        script, [sys.executable, PEERS / f"training_{script}.py", *arguments], cores=cores, settings=settings
    )


# -------------------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Fit:
    """`seconds` of the training loop; digest of the row ids it was given and how many they were; the validation split's score."""

    seconds: float
    trained: str
    rows: int
    accuracy: float | None
    cpu_seconds: float | None = None

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def our_fit(given: Rows, values: dict[str, Any], answer: dict[str, Any], seconds: float | None = None) -> Fit:
    """`seconds`: those of the training loop where absent. The rows are those of the order's batches, which is what the loop asks it for; a loop that ended early has fewer."""
    train, result, split = values["train"], answer["result"], given.inputs.store.split("train").head(given.count)
    ids: list[str] = []
    for epoch in range(train["epochs"]):
        found = order.Epoch(
            given.inputs.store.fingerprint, split.lengths, batch=train["batch"], seed=values["seed"], epoch=epoch
        )
        for number in range(min(len(found), result["steps"] - epoch * len(found))):
            ids += [split.row_ids[row] for row in found.batch(number)]
    started_, ended = _ends(answer["events"])
    accuracy = next(event["accuracy"] for event in reversed(answer["events"]) if event["type"] == "validation")
    cpu = ended["cpu"] - started_["cpu"] if values["world"] == 1 else None
    return Fit(seconds or result["seconds"]["train"], digest_ids(ids), len(ids), accuracy, cpu)


def _ends(events: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The start event, and the last step's."""
    steps = [event for event in events if event["type"] == "step"]
    return next(event for event in events if event["type"] == "start"), steps[-1]


def trainer_fit(answer: dict[str, Any]) -> Fit:
    trained = answer["trained"]
    return Fit(answer["seconds"], digest_ids(trained), len(trained), answer["accuracy"], answer["cpu_seconds"])


def same_rows(fits: Sequence[Fit], ids: Sequence[str], epochs: int = 1) -> tuple[bool, str]:
    """Whether every fit was given these row ids, each `epochs` times; and the sentence for the gate."""
    wanted = (digest_ids(list(ids) * epochs), len(ids) * epochs)
    wrong = [fit for fit in fits if (fit.trained, fit.rows) != wanted]
    times = "once" if epochs == 1 else f"{epochs} times"
    return (
        not wrong,
        f"{len(fits) - len(wrong)} of {len(fits)} fits trained on the same {len(ids)} row ids, each {times}",
    )


def no_worse(mine: Sequence[Fit], theirs: Sequence[Fit], seed_std: float = SEED_STD) -> tuple[bool, str]:
    """Whether our mean accuracy is at most a point below the peer's, or below it by no more than two standard errors of the difference:
    seeds alone move a fit's accuracy by `seed_std`."""
    a, b = [fit.accuracy or 0.0 for fit in mine], [fit.accuracy or 0.0 for fit in theirs]
    allowed = max(POINT, 2 * seed_std * math.sqrt(1 / len(a) + 1 / len(b)))
    lists = f"ours {', '.join(f'{x:.3f}' for x in a)}, peer {', '.join(f'{x:.3f}' for x in b)}"
    good = statistics.fmean(a) >= statistics.fmean(b) - allowed - 1e-9
    return good, f"validation accuracy {lists} (mean less by at most {allowed:.3f}, two standard errors over seeds)"

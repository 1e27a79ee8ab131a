"""What `setup` has in hand when it asks for a trunk, over the tiny model and store, and a fit without the loop around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models import loss, optim, text
from orchestration.data import rng
from orchestration.data.store import TokenStore
from orchestration.storage import Storage
from orchestration.training import engine
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob
from orchestration.training.trunk.prepare import Trunk, prepare
from tests.tiny import make_job, row_task

CPU = torch.device("cpu")


class Case:
    """`feed`: what the feed of training rows gets besides; `events`: what was reported."""

    def __init__(self, job: TrainJob, **feed: Any) -> None:
        self.job, self.storage, self.events = job, Storage(job.storage_url), list[dict[str, Any]]()
        self.store = TokenStore.open(self.storage, job.store_rel)
        train = job.train
        self.model = text.build(job.model, Path(self.storage.path(job.weights_rel)), list(job.labels), seed=job.seed)
        self.plan = optim.plan_groups(self.model, lr=2e-3, weight_decay=0.01, freeze=train.layers.freeze)
        common: dict[str, Any] = {
            "task": row_task(),
            "fingerprint": self.store.fingerprint,
            "batch": train.batch,
            "micro_batch": 5,
        }
        common |= {"seed": job.seed, "pad_id": 0, "rank": 0, "world": 1, **feed}
        fold = None if self.store.folds is None else train.fold
        self.feed = Feed(self.store.split("train", fold).head(train.rows), **common)
        common = {name: value for name, value in common.items() if name not in ("mix", "augment", "stream")}
        self.held_out = Feed(self.store.split("validation", fold), **common, rows=train.validation.rows)

    def prepare(self, epochs: float = 2.0) -> Trunk | None:
        return prepare(
            self.model,
            self.plan,
            self.job,
            store=self.store,
            feeds=[self.feed, self.held_out],
            epochs=epochs,
            rank=0,
            world=1,
            device=CPU,
            report=self.events.append,
        )

    def fit(self) -> tuple[list[float], list[torch.Tensor]]:
        """Loss of each step of two epochs, then logits of the validation rows."""
        made = engine.build(self.model, self.plan, self.job.train, world=1, device=CPU)
        made.check(1.0)
        losses, logits = [], []
        for epoch in range(2):
            for step in self.feed.steps(epoch):
                total = torch.zeros(())
                for number, micro in enumerate(step.micros):
                    torch.manual_seed(rng.key("dropout", 7, epoch, step.batch, number) >> 1)
                    summed, _ = loss.classification(
                        made.forward(**micro.inputs), micro.targets["labels"], micro.weight_B
                    )
                    made.backward(summed / step.rows, last=number == len(step.micros) - 1)
                    total += summed.detach()
                made.update(1.0)
                losses.append(float(total) / step.rows)
        made.check(1.0)
        made.train(False)
        with torch.no_grad():
            for step in self.held_out.in_length_order():
                logits += [made.forward(**micro.inputs) for micro in step.micros]
        return losses, logits


def trunk_job(root: Path, *, freeze: int, use: str = "on", dtype: str = "fp32", **more: Any) -> TrainJob:
    layers = {"freeze": freeze, **more.pop("layers", {})}
    return make_job(root, dropout=more.pop("dropout", 0.1), layers=layers, trunk={"use": use, "dtype": dtype}, **more)


def stored_files(case: Case, pattern: str = "*") -> list[Path]:
    return sorted(Path(case.storage.path("trunks")).glob(f"*/{pattern}"))

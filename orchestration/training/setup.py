"""What a fit needs before its first step, on one rank. Takes a TrainJob and this rank's place; finds the checkpoint to resume from,
opens the store, builds model and engine (again at each release of frozen groups). `loop.Fit` goes on from here. Knows neither Ray
nor a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from models import adapters, building, optim, tasks
from models.labels import joined, parted
from orchestration.data.draw import Mix
from orchestration.data.epochs import EpochForms, forms
from orchestration.data.growing import StreamedStore, open_store
from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint, engine, phases
from orchestration.training.bare import load_weights
from orchestration.training.checkpoint import Found
from orchestration.training.clock import Clock
from orchestration.training.feed import Feed
from orchestration.training.job import TrainJob
from orchestration.training.process import choose_device, same_job, set_threads, settle_precision
from orchestration.training.state import TrainState
from orchestration.training.teachers import Teachers
from orchestration.training.trunk.prepare import Trunk, prepare

Report = Callable[[dict[str, Any]], None]


class Setup:
    """What is fixed in a run (feeds, trunk) or in a phase of it (engine, plan), and where it stands (`state`)."""

    def __init__(self, job: TrainJob, *, rank: int, world: int, report: Report) -> None:
        self.job, self.rank, self.world = job, rank, world
        self.report: Report = report if rank == 0 else lambda event: None
        self.storage, self.clock = Storage(job.storage_url), Clock()
        self.device = choose_device(job)
        self.job = job = settle_precision(job, self.device, world)
        self.damaged: list[str] = []
        set_threads(job, world)
        with self.clock("imports"):  # of transformers and DeepSpeed: not hidden in "build"
            engine.preload(job.train, world)
        self.attempt, found = self._find()
        self.resumed_from = found.rel if found else None
        self.state = found.state if found else TrainState()
        if self.state.ended == "stopped":
            self.state.ended = None  # whoever stopped it then wants it to go on now
        with self.clock("build"):
            model, reader = self._model(found.rel if found else None)
            self.teachers = Teachers(job, self.storage, self.task, self.device) if job.teachers else None
        with self.clock("data"):
            store = self._open_data()
        with self.clock("trunk"):
            self.trunk = self._trunk(model, store)
        with self.clock("build"):
            self._engine(model, reader)
        self.engine.check(1.0)  # groups are built with their peak rates

    def _find(self) -> tuple[int, Found | None]:
        """This attempt's number, and the checkpoint to resume from: rank 0 looks and tells the others."""
        if not self.job.checkpoints:
            return 0, None
        box: list[tuple[int, Found | None] | None] = [None]
        with self.clock("resume"):
            if self.rank == 0:
                attempt = checkpoint.claim_attempt(self.storage, self.job.run_rel)
                found = checkpoint.newest(self.storage, self.job.run_rel, self._warn, pretrained=self._pretrained)
                checkpoint.note_resumed(self.storage, self.job.run_rel, attempt, found.state.step if found else None)
                box = [(attempt, found)]
            if self.world > 1:
                torch.distributed.broadcast_object_list(box, src=0)
        assert box[0] is not None
        if box[0][1]:
            same_job(self.job, box[0][1])
        return box[0]

    def _pretrained(self) -> dict[str, torch.Tensor]:
        """What training began with: frozen weights that were damaged in storage are written anew from it."""
        folder = self.storage.fetch(self.job.weights_rel)
        model = building.build(self.job.model, folder, list(self.job.labels), seed=self.job.seed)
        return {name: parameter.detach() for name, parameter in model.named_parameters()}

    def _warn(self, sentence: str) -> None:
        self.damaged.append(sentence)
        self.report({"type": "warning", "text": sentence})

    def _build(self, from_rel: str | None) -> None:
        """Model, plan and engine of the phase that begins, with the weights and moments of a checkpoint."""
        self._engine(*self._model(from_rel))

    def _model(self, from_rel: str | None) -> tuple[torch.nn.Module, checkpoint.Reader | None]:
        """The state's phase: the model with a checkpoint's weights or the pretrained ones, and its plan."""
        train = self.job.train
        folder = self.storage.fetch(self.job.weights_rel)
        self.storage.verify(self.job.weights_rel)
        model = building.build(self.job.model, folder, list(self.job.labels), seed=self.job.seed)
        self.pad_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self.task = tasks.make(self.job.model, self.job.labels, folder)
        self.task.adapt(model)
        self.plan = optim.plan_groups(
            model,
            lr=train.optimizer.lr,
            weight_decay=train.optimizer.weight_decay,
            decay=train.layers.decay,
            freeze=phases.freeze_depth(train.layers, self.state),
            towers={name: optim.TowerPlan(**tower.model_dump()) for name, tower in train.layers.towers.items()},
            only=adapters.trained(model),
        )
        reader = checkpoint.open(self.storage, from_rel) if from_rel else None
        if reader:
            load_weights(model, reader.weights(), shown=str(from_rel))
        self.frozen_rel = self._keep_frozen(model)
        return model, reader

    def _trunk(self, model: torch.nn.Module, store: Any) -> Trunk | None:
        """Where stored outputs of the frozen bottom serve the feeds, the model is its top alone from here on."""
        epochs = self.job.train.epochs - self.state.epoch
        if self.state.ended or epochs < 1:
            return None
        return prepare(
            model,
            self.plan,
            self.job,
            store=store,
            feeds=[self.feed, self.held_out],
            epochs=epochs,
            rank=self.rank,
            world=self.world,
            device=self.device,
            report=self.report,
        )

    def _engine(self, model: torch.nn.Module, reader: checkpoint.Reader | None) -> None:
        self.engine = engine.build(model, self.plan, self.job.train, world=self.world, device=self.device)
        self.engine.read = self.task.read
        if reader and self.state.step:
            self.engine.restore(reader.read, reader.steps, reader.extra)

    def _keep_frozen(self, model: torch.nn.Module) -> str | None:
        """Frozen weights do not change in a phase: they are stored once, not in each checkpoint."""
        saves = self.job.checkpoints or self.job.train.layers.unfreeze
        if self.rank or not saves:
            return None
        frozen = {name for row in self.plan if not row.trainable for name in row.param_names}
        return checkpoint.keep_frozen(self.storage, {n: p.detach() for n, p in model.named_parameters() if n in frozen})

    def _open_data(self) -> Any:
        """The store; the feeds read it."""
        store = open_store(self.storage, self.job.store_rel)
        heads = {
            head: store.heads[head] for head in parted(list(self.job.labels)) if head in store.heads
        }  # JSON sorts them
        named = {"tagging": ("data.tags", store.tags), "heads": ("data.heads", joined(heads))}
        key, names = named.get(self.job.model.task, ("data.labels", store.labels))
        there = list(names)
        if self.job.labels and there != list(self.job.labels):
            raise UserError(
                f"{key} is {list(self.job.labels)}, but the store {self.job.store_rel} has {there}; prepare again"
            )
        _check_media(store, self.task)
        self.feed, self.held_out = self._feeds(store)
        if not len(self.feed):
            raise UserError(
                f"the training split of store {self.job.store_rel} is empty; see the report of `eagleray prepare`"
            )
        if not len(self.held_out):
            self.report(
                {
                    "type": "warning",
                    "text": "the validation split is empty: the last checkpoint counts as the best, early stopping is off",
                }
            )
        self.total_steps = _steps_per_epoch(store, self.feed) * self.job.train.epochs
        return store

    def _feeds(self, store: Any) -> tuple[Feed, Feed]:
        """Of the training and of the validation rows."""
        train, per_worker = self.job.train, -(-self.job.train.batch // self.world)
        self.micro_batch = None if train.micro_tokens else min(train.micro_batch or train.batch, per_worker)
        common: dict[str, Any] = {
            "task": self.task,
            "packed": store.packed,
            "pairs": store.pairs,
            "fingerprint": store.fingerprint,
            "batch": train.batch,
            "micro_batch": self.micro_batch,
            "micro_tokens": train.micro_tokens,
            "seed": self.job.seed,
            "pad_id": self.pad_id,
            "rank": self.rank,
            "world": self.world,
        }
        fold = None if store.folds is None else train.fold
        held_out = store.split("validation", fold)
        rows = store.split("train", fold).head(train.rows)
        stream = store.stream if isinstance(store, StreamedStore) else None
        changing = forms(store, rows, storage=self.storage, weights_rel=self.job.weights_rel)
        return (
            Feed(rows, **common, mix=_mix(store, rows), stream=stream, **_forms(changing)),
            Feed(held_out, **common, rows=train.validation.rows),
        )

    def factor(self, step: int) -> float:
        """What multiplies every planned rate in update number `step`."""
        schedule = self.job.train.schedule
        return optim.factor(step, self.total_steps, name=schedule.name, warmup=schedule.warmup) * self.job.lr_scale


def _check_media(store: Any, task: tasks.Task) -> None:
    """A row without what the model reads alone, or compares, could teach it nothing. Of a stream nobody knows yet: the reader refuses it
    there."""
    for kind in task.media if len(task.config.reads) == 1 or task.group is not None else ():
        for split, found in (store.meta.get("report") or {}).get("splits", {}).items():
            if lost := found["without"].get(kind, found["entries"]):
                raise UserError(
                    f"{lost:,} rows of split {split} have no {kind}, and the model cannot learn from them; name the column of each source"
                    f" (data.sources[0].{kind}), or leave those rows out"
                )


def _forms(changing: EpochForms | None) -> dict[str, Any]:
    """Of rows that change from epoch to epoch."""
    return {"augment": changing.ids, "media": changing.media} if changing else {}


def _mix(store: Any, split: Any) -> Mix | None:
    """The spec's sources and weights, where epochs are to mix them."""
    spec = store.meta.get("spec") or {}
    if not spec.get("mix"):
        return None
    return Mix.by_row(split.sources, [source["weight"] for source in spec["sources"]], spec["mix"]["stop"])


def _steps_per_epoch(store: Any, feed: Feed) -> int:
    """Of a stream an estimate, for the schedule alone: as if every unit of the input gave as many rows as those of the first window.
    That much is known when training begins, and is the same for who prepared first and for who resumes."""
    if not isinstance(store, StreamedStore):
        return feed.steps_per_epoch
    first = store.stream(store.window).shard_rows[: store.window]
    units = store.meta["units"] if len(first) == store.window else len(first)
    return max(1, math.ceil(sum(first) / max(1, len(first)) * units / feed.batch))

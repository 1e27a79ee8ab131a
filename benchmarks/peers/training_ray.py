"""Ray Train with DeepSpeed, served: each piece of work is one `TorchTrainer.fit()` of the driver that this process is. As the Ray
manual shows it: a function for each worker that builds model, rows and `deepspeed.initialize`, saves with `save_checkpoint` into a
temporary folder and reports that. Where `tuned`, at its best: rows tokenised before, batches of alike lengths, ZeRO stage 1,
checkpoints uploaded while training goes on, a dead worker looked for each half second. Knows nothing of ours.

Rank 0 writes what happens to a file of JSON lines with the time of each; so does the thread that kills a worker where that is asked
for."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import served

POLL_S = 0.01


def train_func(config: dict[str, Any]) -> None:
    entered = time.time()
    import deepspeed
    import ray.train
    import torch
    from deepspeed.accelerator import get_accelerator
    from transformers import AutoModelForSequenceClassification, set_seed

    imported = time.time()
    torch.set_num_threads(1)  # as many as the worker has CPUs
    set_seed(config["seed"])
    rank, world = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    model = AutoModelForSequenceClassification.from_pretrained(config["model"], num_labels=2)
    train, held_out = load(config["train"], config["rows"]), load(config["held_out"], None)
    collate_fn = padded if config["tuned"] else with_tokenizer(config["model"])
    loaded = time.time()
    per_worker = config["batch"] // world
    steps = config["epochs"] * config["rows"] // config["batch"]
    engine, _, loader, _ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        training_data=train,
        collate_fn=collate_fn,
        config=deepspeed_config(config, per_worker=per_worker, steps=steps),
    )
    if config["tuned"]:
        loader = by_length(train, collate_fn, per_worker, rank=rank, world=world, seed=config["seed"])
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            engine.load_checkpoint(folder)
    parts = {"entered": entered, "imported": imported, "loaded": loaded, "built": time.time()}
    tell = Teller(config["events"], rank)
    facts = {"world": world, "stage": config["stage"], "parameters": sum(p.numel() for p in model.parameters())}
    tell("start", pid=os.getpid(), step=engine.global_steps, parts=parts, **facts)
    device, trained = get_accelerator().device_name(engine.local_rank), []
    while engine.global_steps < steps:
        for batch in loader:
            trained += batch.pop("row_id")
            loss = engine(**{key: value.to(device) for key, value in batch.items()}).loss
            engine.backward(loss)
            engine.step()
            tell("step", step=engine.global_steps, loss=loss.item())
            if config["save_every"] and engine.global_steps % config["save_every"] == 0:
                began = time.time()
                save(engine, asynchronous=config["tuned"])
                tell("save", step=engine.global_steps, seconds=time.time() - began)
            if engine.global_steps == steps:
                break
    tell("trained")
    scores = evaluate(engine, held_out, collate_fn, rank=rank, world=world) if config["score"] else {}
    tell("result", trained=gathered(trained), **scores)


def load(path: str, rows: int | None) -> Any:
    from datasets import load_dataset

    table = load_dataset("parquet", data_files=path, split="train")
    return table if rows is None else table.select(range(rows))


def with_tokenizer(model: str) -> Any:
    """Texts to tensors, batch by batch, as in the manual's examples."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        texts = [item["text"] for item in items]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        labels = torch.tensor([item["label"] for item in items])
        return {**batch, "labels": labels, "row_id": [item["row_id"] for item in items]}

    return collate


def padded(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows that were tokenised before."""
    import torch

    ids = [torch.tensor(item["input_ids"]) for item in items]
    pad = torch.nn.utils.rnn.pad_sequence
    mask_BL = pad([torch.ones_like(row) for row in ids], batch_first=True)
    tensors = {"input_ids": pad(ids, batch_first=True), "attention_mask": mask_BL}
    labels = torch.tensor([item["label"] for item in items])
    return {**tensors, "labels": labels, "row_id": [item["row_id"] for item in items]}


def by_length(table: Any, collate_fn: Any, per_worker: int, *, rank: int, world: int, seed: int) -> Any:
    import grouped
    from torch.utils.data import DataLoader

    rows = table.to_list()
    sampler = grouped.ByLength(
        [len(row["input_ids"]) for row in rows], per_worker * world, seed=seed, rank=rank, world=world
    )
    return DataLoader(rows, batch_size=per_worker, sampler=sampler, collate_fn=collate_fn)


def deepspeed_config(config: dict[str, Any], *, per_worker: int, steps: int) -> dict[str, Any]:
    decay = {"total_num_steps": steps, "warmup_min_lr": 0.0, "warmup_max_lr": config["lr"], "warmup_num_steps": 1}
    return {
        "optimizer": {"type": "AdamW", "params": {"lr": config["lr"], "weight_decay": 0.0}},
        "scheduler": {"type": "WarmupDecayLR", "params": decay},
        "gradient_clipping": 1.0,
        "train_micro_batch_size_per_gpu": per_worker,
        "zero_optimization": {"stage": config["stage"]},
        "wall_clock_breakdown": False,
        "steps_per_print": 10**9 if config["tuned"] else 10,
    }


def save(engine: Any, *, asynchronous: bool) -> None:
    import ray.train
    import torch
    from ray.train import Checkpoint, CheckpointUploadMode

    metrics = {"step": engine.global_steps}
    if asynchronous:
        folder = tempfile.mkdtemp()  # Ray removes it when it is uploaded
        engine.save_checkpoint(folder)
        mode = CheckpointUploadMode.ASYNC
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder), checkpoint_upload_mode=mode)
        return
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder)
        torch.distributed.barrier()
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def evaluate(engine: Any, table: Any, collate_fn: Any, *, rank: int, world: int) -> dict[str, Any]:
    """Accuracy over all ranks, and the ids that were scored. Longest rows last in all of them: alike lengths together."""
    import torch
    from torch.utils.data import DataLoader

    rows = sorted(table.to_list(), key=lambda row: len(row["input_ids"]))[rank::world]
    total, tested = torch.zeros(2), []
    engine.eval()
    with torch.no_grad():
        for batch in DataLoader(rows, batch_size=64, collate_fn=collate_fn):
            tested += batch.pop("row_id")
            found_BC = engine(**batch).logits
            total += torch.tensor([(found_BC.argmax(-1) == batch["labels"]).sum(), len(batch["labels"])])
    torch.distributed.all_reduce(total)
    return {"accuracy": (total[0] / total[1]).item(), "tested": gathered(tested)}


def gathered(values: list[Any]) -> list[Any]:
    import torch

    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, values)
    return [value for part in found for value in part]


class Teller:
    """Appends what happens to a file; on rank 0 alone."""

    def __init__(self, path: str, rank: int) -> None:
        self.path, self.silent = path, rank > 0

    def __call__(self, kind: str, **facts: Any) -> None:
        if not self.silent:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({"type": kind, "at": time.time(), **facts}) + "\n")


# -------------------------------------------------------------------------------------------------------- the driver


def work(*, workers: int, storage: str, name: str, kill_at: int | None = None, **config: Any) -> dict[str, Any]:
    """One fit. `kill_at`: the step after which rank 0's process is killed. Gives the events, and when the fit was called."""
    if config["tuned"]:
        os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    called = time.time()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if not ray.is_initialized():
        ray.init(address="local")  # else `fit` joins whatever Ray runs on this machine
    path = Path(storage) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    trainer = TorchTrainer(
        train_func,
        train_loop_config={**config, "events": str(path)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=False),
        run_config=RunConfig(name=name, storage_path=storage, failure_config=FailureConfig(max_failures=3)),
    )
    if kill_at is not None:
        threading.Thread(target=kill, args=(path, kill_at), daemon=True).start()
    result = trainer.fit()
    size = 0
    if result.checkpoint:
        with result.checkpoint.as_directory() as folder:
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"called": called, "events": events(path), "bytes": size}


def kill(path: Path, step: int) -> None:
    """Wait for that step, then kill the process that told of it."""
    while not any(event["type"] == "step" and event["step"] >= step for event in events(path)):
        time.sleep(POLL_S)
    started = [event for event in events(path) if event["type"] == "start"]
    os.kill(started[-1]["pid"], signal.SIGKILL)
    Teller(str(path), 0)("killed")


def events(path: Path) -> list[dict[str, Any]]:
    """Whole lines alone: the last may be half written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


if __name__ == "__main__":
    served.serve(work)

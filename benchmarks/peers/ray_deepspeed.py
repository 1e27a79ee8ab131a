"""Ray Train with DeepSpeed, as the Ray manual shows it: a function for each worker that builds model, rows and
`deepspeed.initialize`, handed to TorchTrainer. Run as a script: `ray_deepspeed.py CONFIG.json`; prints one JSON line when the
first step is done, then ends. Knows nothing of ours."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def train_func(config: dict[str, Any]) -> None:
    entered = time.time()
    import deepspeed
    import ray.train
    import torch
    from datasets import load_dataset
    from deepspeed.accelerator import get_accelerator
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    imported = time.time()
    torch.set_num_threads(1)  # as many as the worker has CPUs
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    model = AutoModelForSequenceClassification.from_pretrained(config["model"], num_labels=2)
    train_dataset = load_dataset("parquet", data_files=config["rows"], split="train")

    def collate_fn(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer(
            [item["text"] for item in items], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        return {**batch, "labels": torch.tensor([item["label"] for item in items])}

    loaded = time.time()
    deepspeed_config = {
        "optimizer": {"type": "AdamW", "params": {"lr": 5e-5, "weight_decay": 0.01}},
        "gradient_clipping": 1.0,
        "train_micro_batch_size_per_gpu": config["batch"] // ray.train.get_context().get_world_size(),
        "zero_optimization": {"stage": config["stage"]},
        "wall_clock_breakdown": False,
    }
    engine, _, loader, _ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        training_data=train_dataset,
        collate_fn=collate_fn,
        config=deepspeed_config,
    )
    built = time.time()
    device = get_accelerator().device_name(engine.local_rank)
    batch = {key: value.to(device) for key, value in next(iter(loader)).items()}
    loss = engine(**batch).loss
    engine.backward(loss)
    engine.step()
    if ray.train.get_context().get_world_rank() == 0:
        facts = {
            "loss": loss.item(),
            "world": ray.train.get_context().get_world_size(),
            "rows": len(train_dataset),
            "row_ids": sorted(train_dataset["row_id"]),
        }
        parts = {"entered": entered, "imported": imported, "loaded": loaded, "built": built, "stepped": time.time()}
        with open(config["result"], "w", encoding="utf-8") as handle:
            json.dump(
                {
                    **facts,
                    "stage": config["stage"],
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "parts": parts,
                },
                handle,
            )
        print("first step done", flush=True)
    ray.train.report({"loss": loss.item()})


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as handle:
        config = json.load(handle)
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        train_func,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=config["workers"], use_gpu=False),
        run_config=RunConfig(name=config["name"], storage_path=config["storage"]),
    )
    trainer.fit()


if __name__ == "__main__":
    main()

"""`transformers` Trainer on one machine, with its defaults but for what both sides share (rate, epochs, batch, seed). Run as a
script: `hf_trainer.py CONFIG.json`; writes a JSON result. Reads rows (row_id, input_ids, label) from Parquet, knows nothing of
ours, and notes the row ids it was really given."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as handle:
        config = json.load(handle)
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    set_seed(config["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(config["model"], num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    rows = load_dataset("parquet", data_files={"train": config["train"], "test": config["test"]}).remove_columns("text")
    pad = DataCollatorWithPadding(tokenizer)
    seen: list[str] = []

    def collate(items: list[dict[str, Any]]) -> Any:
        seen.extend(item["row_id"] for item in items)
        return pad(
            [
                {"input_ids": item["input_ids"], "attention_mask": [1] * len(item["input_ids"]), "label": item["label"]}
                for item in items
            ]
        )

    arguments = TrainingArguments(
        output_dir=config["output"],
        num_train_epochs=config["epochs"],
        per_device_train_batch_size=config["batch"],
        per_device_eval_batch_size=64,
        learning_rate=config["lr"],
        seed=config["seed"],
        train_sampling_strategy=config["sampling"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows["train"], eval_dataset=rows["test"], data_collator=collate
    )
    metrics = trainer.train().metrics
    trained = list(seen)
    seen.clear()
    found = trainer.predict(rows["test"])
    accuracy = float((found.predictions.argmax(-1) == found.label_ids).mean())  # both in the order of the sampler
    result = {
        "accuracy": accuracy,
        "trained": trained,
        "tested": seen,
        "rows_per_s": metrics["train_samples_per_second"],
    }
    with open(config["result"], "w", encoding="utf-8") as handle:
        json.dump(result, handle)


if __name__ == "__main__":
    main()

"""`transformers` Trainer, served: each piece of work is one fit. Takes rows (row_id, input_ids, label) as Parquet and what to pass to
TrainingArguments; gives its scores, the row ids it was really given and the seconds of its training loop. Knows nothing of ours.

`training_trainer.py --ranks 2` runs as `torchrun` would start it: two processes, gloo, each with its own thread."""

from __future__ import annotations

import time
from typing import Any

import grouped
import ranked
import torch


def work(
    *,
    model: str,
    train: str,
    held_out: str,
    output: str,
    rows: int,
    settings: dict[str, Any],
    threads: int,
    lean: bool = False,
    frozen: list[str] | None = None,
    score: bool = True,
) -> dict[str, Any]:
    """`settings`: arguments of TrainingArguments. `lean`: batches of alike lengths, rows held in memory as tensors and padded by torch
    alone, in place of the manual's `datasets` table and DataCollatorWithPadding. `frozen`: beginnings of the names of parameters that
    are not trained. `score`: also the accuracy on the held-out rows."""
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed

    torch.set_num_threads(threads)
    arguments = TrainingArguments(
        output_dir=output, save_strategy="no", report_to="none", remove_unused_columns=False, use_cpu=True, **settings
    )
    set_seed(arguments.seed)
    net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen or ())))
    seen: list[str] = []
    load, collate = (in_memory, padded) if lean else (as_table, with_tokenizer(model))

    def noting(items: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(item["row_id"] for item in items)
        return collate(items)

    watch: dict[str, float] = {}

    class Watch(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            watch.update(wall=time.perf_counter(), cpu=time.process_time())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            watch.update(seconds=time.perf_counter() - watch["wall"], cpu_seconds=time.process_time() - watch["cpu"])

    class Grouped(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows = train_dataset if train_dataset is not None else self.train_dataset
            batch = arguments.train_batch_size * arguments.world_size
            return grouped.ByLength([len(row["input_ids"]) for row in rows], batch, seed=arguments.seed)

    trainer = (Grouped if lean else Trainer)(
        model=net,
        args=arguments,
        train_dataset=load(train, rows),
        eval_dataset=load(held_out, None),
        data_collator=noting,
        callbacks=[Watch()],
    )
    trainer.train()
    trained = list(seen)
    seen.clear()
    accuracy = None
    if score:
        found = trainer.predict(trainer.eval_dataset)
        accuracy = float((found.predictions.argmax(-1) == found.label_ids).mean())  # both in the order of the sampler
    return {
        "accuracy": accuracy,
        "trained": ranked.of_all_ranks(trained),
        "tested": ranked.of_all_ranks(seen),
        "seconds": watch["seconds"],
        "cpu_seconds": sum(ranked.of_all_ranks([watch["cpu_seconds"]])),
    }


def as_table(path: str, rows: int | None) -> Any:
    from datasets import load_dataset

    table = load_dataset("parquet", data_files=path, split="train").remove_columns("text")
    return table if rows is None else table.select(range(rows))


def with_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer, DataCollatorWithPadding

    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(model))

    def collate(items: list[dict[str, Any]]) -> Any:
        kept = [{"input_ids": item["input_ids"], "label": item["label"]} for item in items]
        return pad([{**item, "attention_mask": [1] * len(item["input_ids"])} for item in kept])

    return collate


def in_memory(path: str, rows: int | None) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    columns = pq.read_table(path, columns=["row_id", "input_ids", "label"]).slice(0, rows).to_pydict()
    return [
        {"row_id": row_id, "input_ids": torch.tensor(ids), "label": label}
        for row_id, ids, label in zip(columns["row_id"], columns["input_ids"], columns["label"], strict=True)
    ]


def padded(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = [item["input_ids"] for item in items]
    pad = torch.nn.utils.rnn.pad_sequence
    ids_BL = pad(ids, batch_first=True)  # 0 is BERT's padding
    mask_BL = pad([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": torch.tensor([item["label"] for item in items])}


if __name__ == "__main__":
    ranked.main(__file__, work)

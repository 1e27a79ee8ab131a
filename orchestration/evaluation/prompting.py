"""A causal language model as a classifier, by prompts (Brown et al. 2020, "Language Models are Few-Shot Learners"): nothing is trained. Takes
staged weights and a token store; gives accuracy and macro F1 for each number of shots, beside the baselines of a trained classifier.
Called by the `prompt` verb inside a Ray session; rows are shared out among tasks.

The answer is the label whose words the model finds likeliest behind the prompt. Small models lean towards one label whatever the text
says; `calibrated` takes away what they say of a row without content (Zhao et al. 2021, arXiv 2102.09690)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.config import ModelConfig
from orchestration.data import rng
from orchestration.data.store import TokenStore
from orchestration.errors import UserError
from orchestration.evaluation import slices
from orchestration.evaluation.config import PromptConfig
from orchestration.storage import Storage

EMPTY = ("N/A", "[MASK]")  # rows without content: Zhao et al.'s, but for the empty one
BATCH = 8  # texts through the model at once, each with every label


def evaluate(
    storage: Storage,
    *,
    config: PromptConfig,
    model: ModelConfig,
    weights_rel: str,
    store_rel: str,
    seed: int,
    workers: int,
    cpus: float,
    report_rel: str,
    fold: int | None = None,
) -> dict[str, Any]:
    """Writes `<report_rel>/prompt.json` and gives it. Raises UserError for a store without classes, words for a class that it lacks, and
    too few rows to show."""
    import ray

    from orchestration.evaluation.evaluate import baselines

    began = time.monotonic()
    store = TokenStore.open(storage, store_rel)
    known_fold = fold if store.folds else None
    held, train = store.split("test", known_fold), store.split("train", known_fold)
    _refuse(config, store, held, train)
    rows = np.arange(min(config.rows, len(held)))
    task = ray.remote(num_cpus=cpus)
    parts = [rows[number::workers] for number in range(min(workers, len(rows)))]
    asked = [
        task(ask).remote(storage.url, config, model, weights_rel, store_rel, known_fold, seed, part) for part in parts
    ]
    classical = task(baselines).remote(storage.url, store_rel, "test", known_fold, None)
    raw_NSC = np.empty((len(rows), len(config.shots), len(store.labels)))
    answers = ray.get(asked)
    for part, (found, _) in zip(parts, answers, strict=True):
        raw_NSC[part] = found
    empty_SC = answers[0][1]  # the same from each task
    labels_N, count = np.asarray(held.labels)[rows], len(store.labels)
    by_shots = {}
    for number, shots in enumerate(config.shots):
        likely_NC = raw_NSC[:, number]
        by_shots[str(shots)] = {
            "as it is": slices.scores(labels_N, likely_NC.argmax(1), count),
            "calibrated": slices.scores(labels_N, (likely_NC - empty_SC[number]).argmax(1), count),
        }
    report = {
        "task": "prompted classification",
        "split": "test",
        "rows": len(rows),
        "labels": store.labels,
        "prompt": config.model_dump(mode="json"),
        "shots": by_shots,
        "baselines": {n: slices.scores(labels_N, guess_N[rows], count) for n, guess_N in ray.get(classical).items()},
        "seconds": time.monotonic() - began,
    }
    storage.write_json(f"{report_rel}/prompt.json", report)
    return report


def ask(
    storage_url: str,
    config: PromptConfig,
    model: ModelConfig,
    weights_rel: str,
    store_rel: str,
    fold: int | None,
    seed: int,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs in a Ray task: log-probabilities of each label, (rows, shots, classes), and those of rows without content, (shots, classes)."""
    import torch

    from models import text
    from models.prompting import log_likelihoods

    torch.set_num_threads(1)
    storage = Storage(storage_url)
    folder = storage.fetch(weights_rel)
    net = text.build(model, folder, []).eval()
    store = TokenStore.open(storage, store_rel)
    held, train = store.split("test", fold), store.split("train", fold)
    tokenizer = Prompts(folder, config, store.labels, max_length=store.preprocessing["tokenize"]["max_length"])
    texts, found = [*held.texts(rows), *EMPTY], []
    for count in config.shots:
        examples = [(train.texts([row])[0], int(train.labels[row])) for row in chosen(train, count, seed)]
        shared, asked = tokenizer.encode(texts, examples)
        parts = [
            log_likelihoods(net, shared, asked[at : at + BATCH], tokenizer.endings)
            for at in range(0, len(asked), BATCH)
        ]
        found.append(torch.cat(parts).numpy())
    found_NSC = np.stack(found, 1)
    return found_NSC[: len(rows)], found_NSC[len(rows) :].mean(0)


class Prompts:
    """Token ids of prompts. White space before a part goes with it, as tokenizers of words have it."""

    def __init__(self, folder: Path, config: PromptConfig, labels: list[str], *, max_length: int) -> None:
        from orchestration.data.tokenize import Tokenizer

        self.library, self.config, self.most = Tokenizer(folder, max_length).library, config, max_length
        self.words = [config.words.get(name, name) for name in labels]
        self.before, _, after = config.template.partition("{text}")
        self.after = after.removesuffix("{label}")
        gap = self.after[len(self.after.rstrip()) :]
        self.endings = [self._ids(gap + word) for word in self.words]

    def encode(self, texts: Sequence[str], examples: Sequence[tuple[str, int]]) -> tuple[list[int], list[list[int]]]:
        """What all prompts begin with, and the rest of each up to its label. A text has at most max_length tokens."""
        shots = [self.before + self._cut(text) + self.after + self.words[label] for text, label in examples]
        head = "\n\n".join([*filter(None, [self.config.task]), *shots, self.before])
        kept = head.rstrip()
        gap = head[len(kept) :] if kept else ""
        return self._ids(kept), [self._ids(gap + self._cut(text) + self.after.rstrip()) for text in texts]

    def _cut(self, text: str) -> str:
        encoded = self.library.encode(text, add_special_tokens=False)
        return text if len(encoded.ids) <= self.most else text[: encoded.offsets[self.most - 1][1]]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.library.encode(text, add_special_tokens=False).ids
        return found


def chosen(train: Any, count: int, seed: int) -> list[int]:
    """Rows to show: as many of each class as can be, the first of the training split, which lies in no order; then in an order by seed."""
    labels_N = np.where(np.asarray(train.copies) == 0, np.asarray(train.labels), -1)
    classes = np.unique(labels_N[labels_N >= 0]).tolist()
    found = [int(np.flatnonzero(labels_N == classes[i % len(classes)])[i // len(classes)]) for i in range(count)]
    return [found[int(at)] for at in np.argsort(rng.mix_array(rng.key("shots", seed, count), np.arange(count)))]


def _refuse(config: PromptConfig, store: TokenStore, held: Any, train: Any) -> None:
    if not store.labels:
        raise UserError("data.labels: a prompt needs classes to choose from; name them, and a label for each source")
    if unknown := sorted(set(config.words) - set(store.labels)):
        raise UserError(f"prompt.words.{unknown[0]}: no such class; data.labels are {', '.join(store.labels)}")
    if not len(held):
        raise UserError("the test split is empty; set data.split.test above 0")
    own = np.bincount(np.asarray(train.labels)[np.asarray(train.copies) == 0], minlength=len(store.labels))
    most = int(own[own > 0].min()) * int((own > 0).sum()) if own.any() else 0
    if max(config.shots) > most:
        raise UserError(f"prompt.shots={max(config.shots)}, but the training split has rows for {most} at most")

"""Scores of texts that are written for pictures, sounds or series, and their baselines. Takes an open package, a store and rows of a split; texts are
written greedily and scored as in `written_texts`. A row without text has nothing to be scored by; one without a picture is written nothing for. Called
by `assess`.

Baselines: the most frequent text of the training rows, and the text of the training row whose picture (sound, series) is nearest: by simple numbers of it
(`media_baselines`), and by the mean of the tokens that the towers gave before training. N rows, F numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.evaluation import media_baselines, written_texts
from orchestration.evaluation.stored import stored_rows
from orchestration.storage import Storage

MICRO_BATCH = 32


def found(opened: Any, split: Any, rows: Sequence[int]) -> list[str]:
    """What the package writes for each row, as its endpoint would: at most as many tokens as the longest text of the split has."""
    from orchestration import answers
    from orchestration.answers.kinds import KINDS

    made: Any = answers.of(opened, micro_batch=MICRO_BATCH)
    options = {**KINDS["captioning"].read({"max_new_tokens": int(np.max(split.lengths, initial=1))}), "seed": 0}
    shown = stored_rows(split, list(rows), opened.task.media)
    told = [""] * len(shown)
    there = [at for at, row in enumerate(shown) if row]
    for start in range(0, len(there), MICRO_BATCH):
        part = there[start : start + MICRO_BATCH]
        for at, one in zip(part, made.compute(made.items([shown[at] for at in part], options)), strict=True):
            told[at] = one["text"]
    return told


def wanted(folder: Path, split: Any, rows: Sequence[int]) -> list[str]:
    """As the tokenizer gives them back: a word that it cuts at marks is scored so on both sides."""
    from tokenizers import Tokenizer

    decode = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    return [decode(ids.tolist()) for ids in split.input_ids(np.asarray(rows))]


def scores(told: Sequence[str], meant: Sequence[str]) -> dict[str, float]:
    pairs = _both(told, meant)
    return written_texts.scores(*zip(*pairs, strict=True)) if pairs else {}


def by_row(told: Sequence[str], meant: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each row that has a text, the scores that are means of rows."""
    pairs = _both(told, meant)
    return written_texts.by_row(*zip(*pairs, strict=True)) if pairs else {}


def _both(told: Sequence[str], meant: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for pair in zip(told, meant, strict=True) if pair[1]]


def beside(storage: Storage, folder: Path, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """`folder`: of the package, whose lineage says what training began with."""
    seen, meant = (wanted(folder, split, range(len(split))) for split in (train, held))
    (often, _), *_ = Counter(text for text in seen if text).most_common(1)
    told = {"most_frequent_text": [often] * len(meant)}
    for name, pair in _numbers(storage, folder, train, held).items():
        told[f"nearest_by_{name}"] = [seen[row] for row in _nearest(*pair)]
    return {name: scores(texts, meant) for name, texts in told.items()}


def _numbers(storage: Storage, folder: Path, train: Any, held: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> numbers of each training and each held row."""
    from orchestration import package

    media = package.read_task(folder).media
    simple = [media_baselines.features(split, media) for split in (train, held)]
    towers = _untrained(storage, folder)
    pooled = (pooled_features(*towers, train), pooled_features(*towers, held))
    return {name: (simple[0][name], simple[1][name]) for name in simple[0]} | {"pooled_features": pooled}


def _untrained(storage: Storage, folder: Path) -> tuple[Any, Any]:
    """The model before training, and its task."""
    from models import tasks
    from models.building import build
    from models.config import ModelConfig
    from orchestration import package

    lineage = package.read_json(folder, "lineage.json")
    config, weights = (
        ModelConfig.model_validate(lineage["spec"]["model"]),
        storage.fetch(lineage["weights"]["rel"]),
    )
    return build(config, weights, []).eval(), tasks.make(config, [], weights)


def pooled_features(model: Any, task: Any, split: Any) -> np.ndarray:
    """(N, F): of each kind of media the mean of its tower's tokens, side by side; zeros where a row has none."""
    import torch

    from models.inputs import Rows
    from models.layers import masked_mean
    from models.towers import FEATURES

    parts = []
    for start in range(0, len(split), MICRO_BATCH):
        rows = np.arange(start, min(start + MICRO_BATCH, len(split)))
        media = {kind: split.media(kind, rows) for kind in task.media}
        with torch.inference_mode():
            inputs = task.given(Rows([[] for _ in rows], media=media), 0)
            pairs = [FEATURES[kind](model.encoders[kind], inputs) for kind in task.media]
            parts.append(torch.cat([masked_mean(*pair) for pair in pairs], 1).numpy())
    return np.concatenate(parts)


def _nearest(train_NF: np.ndarray, held_NF: np.ndarray) -> np.ndarray:
    """For each held row the training row of the largest cosine, of numbers that are 0 on average and vary alike."""
    mean_F, std_F = train_NF.mean(0), train_NF.std(0) + 1e-6
    units = []
    for values_NF in (train_NF, held_NF):
        scaled_NF = (values_NF - mean_F) / std_F
        units.append(scaled_NF / np.maximum(np.linalg.norm(scaled_NF, axis=1, keepdims=True), 1e-9))
    nearest_N: np.ndarray = (units[1] @ units[0].T).argmax(1)
    return nearest_N

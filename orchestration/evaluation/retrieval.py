"""How well the vectors of two encoders find each other in a whole split. Takes a package and a split; gives recall at 1, 5 and 10 and the mean
reciprocal rank, each way, beside the same model before training and chance. Called by `assess` in a Ray task."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestration.data.store import TokenStore
from orchestration.evaluation import intervals
from orchestration.storage import Storage

DEPTHS = (1, 5, 10)
SCORES = "this model"  # among the baselines' names


def vectors(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, trained: bool
) -> np.ndarray:
    """(N, 2P) of all rows of the split. `trained`: by the package's weights; else by those that it started from, with
    projections drawn anew."""
    from models.building import build
    from models.config import ModelConfig
    from orchestration import package
    from orchestration.evaluation.stored import stored_rows

    storage = Storage(storage_url)
    opened = package.opened(storage, package_rel)
    if not trained:
        config = ModelConfig.model_validate(opened.lineage["spec"]["model"])
        opened.model = build(config, storage.fetch(opened.lineage["weights"]["rel"]), []).eval()
    held = TokenStore.open(storage, store_rel).split(split, fold)
    return opened.logits(stored_rows(held, range(len(held)), opened.task.config.reads))


def recalls(found_N2P: np.ndarray, reads: tuple[str, ...], group: int) -> dict[str, float]:
    """`{text_to_image_recall_at_1: ...}`: share of the rows whose other side is among the nearest k; `recall_at_1`: inside groups, the mean
    of both ways, as validation measures it. `found_N2P`: both vectors of each row, side by side. Equal rows count as found by their equals."""
    return {name: float(values_N.mean()) for name, values_N in by_row(found_N2P, reads, group).items()}


def by_row(found_N2P: np.ndarray, reads: tuple[str, ...], group: int) -> dict[str, np.ndarray]:
    """What each row adds to the scores that are their means, (N,)."""
    first_NP, second_NP = np.split(found_N2P.astype(np.float64), 2, axis=1)
    alike_NN = first_NP @ second_NP.T
    told = {"recall_at_1": _inside(alike_NN, group)}
    for name, matrix_NN in ((f"{reads[0]}_to_{reads[1]}", alike_NN), (f"{reads[1]}_to_{reads[0]}", alike_NN.T)):
        own_N1 = np.diag(matrix_NN)[:, None]
        rank_N = (matrix_NN > own_N1).sum(1)
        told |= {f"{name}_recall_at_{depth}": (rank_N < depth).astype(np.float64) for depth in DEPTHS}
        told[f"{name}_mrr"] = 1 / (1 + rank_N)
    return told


def _inside(alike_NN: np.ndarray, group: int) -> np.ndarray:
    """Of each row, (N,): found both ways 1, one way a half."""
    found = []
    for at in range(0, len(alike_NN), group):
        part = alike_NN[at : at + group, at : at + group]
        own = np.arange(len(part))
        found.append(((part.argmax(1) == own) * 1.0 + (part.argmax(0) == own)) / 2)
    return np.concatenate(found)


def chance(rows: int, reads: tuple[str, ...], group: int) -> dict[str, float]:
    """What drawing an order at random gives."""
    ways = (f"{reads[0]}_to_{reads[1]}", f"{reads[1]}_to_{reads[0]}")
    told = {f"{way}_recall_at_{depth}": min(1.0, depth / rows) for way in ways for depth in DEPTHS}
    told |= {f"{way}_mrr": float((1 / np.arange(1, rows + 1)).mean()) for way in ways}
    return {"recall_at_1": -(-rows // group) / rows, **told}


def both(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, rows: int | None
) -> dict[str, dict[str, Any]]:
    """Runs in a Ray task: under SCORES what the package reaches, with its intervals, beside it the baselines."""
    from orchestration import package

    where = (storage_url, package_rel, store_rel, split, fold)
    task = package.read_task(Storage(storage_url).fetch(package_rel))
    reads, group = task.config.reads, int(task.group or 1)
    trained, before = (vectors(*where, trained=flag) for flag in (True, False))
    ranges = intervals.of_means(by_row(trained, reads, group))
    found: dict[str, Any] = {
        SCORES: {**recalls(trained, reads, group), "intervals": ranges},
        "untrained": recalls(before, reads, group),
    }
    return {**found, "chance": chance(len(trained), reads, group)}

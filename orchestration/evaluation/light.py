"""What exported features are worth: logistic regression on the training rows' vectors, scored on a split beside the baselines that every
classifier has. Takes features and their store, in storage; gives the report of a classifier and writes it under `reports/`. Called by
`eagleray embed` inside a Ray session."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from orchestration.data.store import TokenStore
from orchestration.evaluation import evaluate
from orchestration.features.export import read
from orchestration.storage import Storage

ITERATIONS = 1000


def score(
    storage: Storage, *, features_rel: str, rows: int | None, fold: int, report_rel: str, split: str = "test"
) -> dict[str, Any]:
    """`rows`: training rows that are used, the store's first."""
    import ray

    began = time.monotonic()
    store_rel = storage.verify(features_rel).meta["store"]
    store = TokenStore.open(storage, store_rel)
    known = fold if store.folds else None
    beside = ray.remote(evaluate.baselines).remote(storage.url, store_rel, split, known, rows)
    logits_NC = ray.get(ray.remote(head).remote(storage.url, features_rel, split, rows, store.labels))
    labels_N, guess_N = np.asarray(store.split(split, known).labels), logits_NC.argmax(1)
    report = {
        "task": "classification",
        "split": split,
        "features": features_rel,
        "store": store_rel,
        "labels": store.labels,
        **evaluate.score(logits_NC, labels_N, store.labels),
        "slices": [],
        "baselines": {name: evaluate.beside(labels_N, guess_N, other) for name, other in ray.get(beside).items()},
        "seconds": time.monotonic() - began,
    }
    return evaluate.kept(storage, report, report_rel, evaluate.picture(report))


def head(storage_url: str, features_rel: str, split: str, rows: int | None, names: list[str]) -> np.ndarray:
    """Runs in a Ray task: (N, C), the log of what a logistic regression gives each class; one that no training row has is as good as
    impossible."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    storage = Storage(storage_url)
    (train_ND, taught), (held_ND, _) = (
        read(storage, features_rel, "train", rows=rows),
        read(storage, features_rel, split),
    )
    known = [row for row, name in enumerate(taught) if name is not None]
    fit = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    fit.fit(train_ND[known], [taught[row] for row in known])
    chance_NC = np.full((len(held_ND), len(names)), 1e-12)
    chance_NC[:, [names.index(name) for name in fit.classes_]] = fit.predict_proba(held_ND)
    return np.log(np.maximum(chance_NC, 1e-12)).astype(np.float32)

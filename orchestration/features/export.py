"""A corpus through a frozen encoder: every row of a token store becomes a vector in `features/<address>`, a sealed folder of Parquet files by
split (`encode` says what is in one). Takes a store and a model, in storage; called by `eagleray embed` inside a Ray session. Ray Data gives
the files to actors, one a worker. The same model, store and pooling have the same address: what is there is not computed again, and an
interrupted export goes on with the files that are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.config import ModelConfig
from orchestration.data.prepare import run_pass
from orchestration.data.store import SPLITS, TokenStore
from orchestration.errors import UserError
from orchestration.features.config import FeaturesConfig
from orchestration.features.encode import Encoder, Work, file_name, note_name
from orchestration.storage import Storage, digest

VERSION = 1
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """`rows`: by split; `width`: of a vector; `reused`: they were there."""

    rel: str
    rows: dict[str, int]
    width: int
    reused: bool


def export(
    storage: Storage,
    *,
    store_rel: str,
    weights_rel: str,
    model: ModelConfig,
    package_rel: str | None,
    config: FeaturesConfig,
    rows: int | None,
    fold: int,
    workers: int,
    progress: Progress | None = None,
) -> Features:
    """`package_rel`: the model; None: `model` as its pretrained weights in `weights_rel` are. `rows`: of the training split, its first; None: all.
    `fold`: of a store with folds the one that validates. Raises UserError for a packed store and what the workers refuse."""
    store = TokenStore.open(storage, store_rel)
    if store.packed:
        raise UserError("data.tokenize.pack: a row of several texts has no vector of its own; set pack: false")
    work = Work(
        storage_url=storage.url,
        rel="",
        store_rel=store_rel,
        fold=fold if store.folds else None,
        pooling=config.pooling,
        weights_rel=weights_rel,
        model=model,
        package_rel=package_rel,
    )
    rel = f"features/{_address(work, store, config, rows)}"
    if (there := storage.manifest(rel)) is not None:
        return Features(rel, there.meta["rows"], there.meta["width"], reused=True)
    items = _items(store, work.fold, rows, config.file_rows)
    done = [
        json.loads(row["done"])
        for row in run_pass(
            "features",
            Encoder,
            items,
            work=Work(**{**work.__dict__, "rel": rel}),
            workers=workers,
            blocks=None,
            progress=None if progress is None else lambda phase, ready, total: progress(ready, total),
        )
    ]
    counts = {split: sum(part["rows"] for part in done if part["file"].startswith(f"{split}-")) for split in SPLITS}
    width = _width(storage, rel, done[0]["file"]) if done else 0
    said = {"store": store_rel, "model": package_rel or weights_rel, "pooling": config.pooling}
    files = {part["file"]: part["describe"] for part in sorted(done, key=lambda part: part["file"])}
    storage.seal(rel, files, {"rows": counts, "width": width, **said})
    for part in done:  # only restarts need the notes
        storage.remove(note_name(f"{rel}/{part['file']}"))
    return Features(rel, counts, width, reused=False)


def _address(work: Work, store: TokenStore, config: FeaturesConfig, rows: int | None) -> str:
    told = {"version": VERSION, "store": store.fingerprint, "fold": work.fold, "rows": rows, **config.model_dump()}
    model: Any = work.package_rel or [work.weights_rel, work.model.share_layers]
    return digest({**told, "model": model})


def _items(store: TokenStore, fold: int | None, rows: int | None, size: int) -> list[dict[str, Any]]:
    """Stretches of the splits, a file each."""
    counts = {split: len(store.split(split, fold)) for split in SPLITS}
    counts["train"] = min(counts["train"], rows or counts["train"])
    return [
        {"split": split, "number": at // size, "start": at, "stop": min(at + size, count)}
        for split, count in counts.items()
        for at in range(0, count, size)
    ]


def read(storage: Storage, rel: str, split: str, *, rows: int | None = None) -> tuple[Any, list[str | None]]:
    """`(vectors_ND, labels)` of a split's first rows, in the store's order. Raises DamagedError where a file is not as it was written."""
    import numpy as np
    import pyarrow.parquet as pq

    manifest, vectors, labels = storage.verify(rel), [], []
    folder = storage.fetch(rel, manifest)
    for number in range(sum(name.startswith(f"{split}-") for name in manifest.files)):
        table = pq.read_table(folder / file_name(split, number))
        width = table.schema.field("vector").type.list_size
        vectors.append(table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width))
        labels += table["label"].to_pylist()
    vectors_ND = np.concatenate(vectors) if vectors else np.empty((0, manifest.meta["width"]), np.float32)
    return vectors_ND[:rows], labels[:rows]


def _width(storage: Storage, rel: str, name: str) -> int:
    import io

    import pyarrow.parquet as pq

    return int(pq.read_schema(io.BytesIO(storage.read(f"{rel}/{name}"))).field("vector").type.list_size)

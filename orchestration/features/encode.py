"""One file of features. Takes a stretch of a split; writes `<split>-<number>.parquet` with a row for each row there: row_id (hex), label (null
where a row has none), vector (float32). Runs in an actor of Ray Data that opens the model once, and only where a file is missing. Knows
nothing of the driver's decisions. A user's error travels as text in the result: Ray would wrap an exception in a traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from models.config import ModelConfig
from models.families import ModelError
from orchestration import inference
from orchestration.errors import UserError
from orchestration.storage import Storage, describe

MICRO_BATCH = 32


@dataclass(frozen=True)
class Work:
    """What every file of one export needs; picklable. `package_rel`, or None: `model` with the weights in `weights_rel` as they are."""

    storage_url: str
    rel: str
    store_rel: str
    fold: int | None
    pooling: str
    weights_rel: str
    model: ModelConfig
    package_rel: str | None


class Encoder:
    """`item`: {split, number, start, stop}. Gives {file, rows, describe} as JSON under `done`."""

    def __init__(self, work: Work) -> None:
        self.work, self.storage = work, Storage(work.storage_url)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"error": "", "done": json.dumps(self._file(**item))}
        except (UserError, ModelError) as error:
            return {"error": str(error), "done": ""}

    def _file(self, split: str, number: int, start: int, stop: int) -> dict[str, Any]:
        name = file_name(split, number)
        place = f"{self.work.rel}/{name}"
        if (done := kept(self.storage, place)) is not None:
            return done
        aside = self.storage.staging()
        try:
            self._write(aside / name, split, np.arange(start, stop))
            done = {"file": name, "rows": int(stop - start), "describe": describe(aside / name)}
            self.storage.put(place, aside / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self.storage.write_json(
            note_name(place), done
        )  # last: a crash above leaves no note, and the file is written again
        return done

    def _write(self, path: Any, split: str, rows: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = self._store.split(split, self.work.fold)
        vectors_ND = self.vectors(held, rows)
        names, labels_N = self._store.labels, np.asarray(held.labels)[rows]
        columns = {
            "row_id": pa.array([row_id.hex() for row_id in held.ids_of(rows)]),
            "label": pa.array([names[label] if 0 <= label < len(names) else None for label in labels_N], pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1]),
        }
        pq.write_table(pa.table(columns), path)

    def vectors(self, held: Any, rows: np.ndarray) -> np.ndarray:
        """(N, D) float32 in the order of `rows`; rows of like length share a pass."""
        import torch

        from models.features import pooled
        from models.inputs import Rows

        encoder, task, pad_id, pooling = self._model
        pair_at = held.pair_at(rows) if self._store.pairs else None
        every = Rows(held.input_ids(rows), pair_at=None if pair_at is None else [int(at) for at in pair_at])
        found: dict[int, np.ndarray] = {}
        with inference.torch_threads(1), torch.inference_mode():
            for part in inference.micro_batches([len(row) for row in every.ids], MICRO_BATCH):
                inputs = task.given(inference.taken(every, part), pad_id)
                hidden_BLD = encoder(**inputs).last_hidden_state
                vectors_BD = pooled(hidden_BLD.float(), inputs["attention_mask"], pooling)
                found |= dict(zip(part, vectors_BD.numpy(), strict=True))
        return np.stack([found[row] for row in range(len(rows))])

    @cached_property
    def _store(self) -> Any:
        from orchestration.data.store import TokenStore

        return TokenStore.open(self.storage, self.work.store_rel)

    @cached_property
    def _model(self) -> tuple[Any, Any, int, str]:
        """The encoder, frozen; what makes its inputs; the padding token; the pooling: a package that was trained with `pooling: mean` has its
        mean in the first place already."""
        from models import features
        from models.building import build
        from models.tasks.rows import Classification
        from orchestration import package
        from orchestration.data.untokenized import tokenizer_of

        pooling = self.work.pooling
        if self.work.package_rel is not None:
            opened = package.opened(self.storage, self.work.package_rel)
            model, folder = opened.model, opened.folder
            pooling = "cls" if opened.task.config.pooling == "mean" else pooling
        else:
            folder = self.storage.fetch(self.work.weights_rel)
            model = build(self.work.model, folder, ["a", "b"]).eval()  # a head is made, and left aside
        task = Classification(ModelConfig(path=str(folder)), ["a", "b"], folder)
        return features.encoder(model), task, int(tokenizer_of(folder, 8).pad_id), pooling


def file_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.parquet"


def note_name(place: str) -> str:
    return f"{place}.json"


def kept(storage: Storage, place: str) -> dict[str, Any] | None:
    """What an interrupted export noted of a file that is there, byte for byte."""
    try:
        done: dict[str, Any] = json.loads(storage.read(note_name(place)))
        right = hashlib.sha256(storage.read(place)).hexdigest() == done["describe"]["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return done if right else None

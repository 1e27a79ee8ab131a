"""A file of features: the encoder's own hidden states, kept and taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.building import build
from models.config import ModelConfig
from orchestration.data.store import TokenStore
from orchestration.errors import DamagedError
from orchestration.features import export
from orchestration.features.config import FeaturesConfig
from orchestration.features.encode import Encoder, Work, kept
from orchestration.storage import Storage
from tests.tiny import LABELS, make_store, make_weights

ITEM = {"split": "train", "number": 1, "start": 50, "stop": 90}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    storage = Storage(str(tmp_path))
    return Work(
        storage_url=str(tmp_path),
        rel="features/f",
        store_rel=make_store(storage),
        fold=None,
        pooling="mean",
        weights_rel=make_weights(storage),
        model=ModelConfig(path="tiny"),
        package_rel=None,
    )


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_is_that_of_the_row_alone_with_its_label(work: Work, pooling: str) -> None:
    storage = Storage(work.storage_url)
    done = _done(replace(work, pooling=pooling))
    assert (done["file"], done["rows"]) == ("train-000001.parquet", 40)
    table = pq.read_table(Path(work.storage_url) / work.rel / done["file"])
    split = TokenStore.open(storage, work.store_rel).split("train")
    assert table["row_id"].to_pylist() == list(split.row_ids)[50:90]
    assert table["label"].to_pylist() == [LABELS[label] for label in split.labels[50:90]]
    model = build(work.model, storage.fetch(work.weights_rel), ["a", "b"]).eval()
    for row in (50, 71, 89):
        ids_1L = torch.from_numpy(np.array(split.input_ids([row])[0], np.int64))[None]
        with torch.inference_mode():
            hidden_LD = model.base_model(input_ids=ids_1L).last_hidden_state[0]  # type: ignore[operator]
        wanted_D = hidden_LD.mean(0) if pooling == "mean" else hidden_LD[0]
        assert np.allclose(table["vector"][row - 50].as_py(), wanted_D, atol=1e-5)


def test_a_file_that_is_there_is_taken_and_a_damaged_one_is_made_again(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _done(work)
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "vectors", lambda *_: pytest.fail("computed again"))
        assert _done(work) == first
    storage, place = Storage(work.storage_url), f"{work.rel}/train-000001.parquet"
    storage.write(place, b"half of it")
    assert kept(storage, place) is None
    assert _done(work) == kept(storage, place) == first


def _done(work: Work) -> Any:
    return json.loads(Encoder(work)(ITEM)["done"])


def test_an_export_is_sealed_under_its_address_read_back_and_not_made_twice(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(phase: str, function: Any, items: list[Any], *, work: Work, **_: Any) -> Any:
        yield from map(function(work), items)

    monkeypatch.setattr(export, "run_pass", here)
    storage = Storage(work.storage_url)
    asked: dict[str, Any] = {
        "store_rel": work.store_rel,
        "weights_rel": work.weights_rel,
        "model": work.model,
        "package_rel": None,
        "rows": None,
        "fold": 0,
        "workers": 1,
    }
    made = export.export(storage, config=FeaturesConfig(file_rows=40), **asked)
    assert (made.rows, made.width, made.reused) == ({"train": 90, "validation": 24, "test": 8}, 32, False)
    assert set(storage.verify(made.rel).files) == {
        *(f"train-{number:06d}.parquet" for number in range(3)),
        "validation-000000.parquet",
        "test-000000.parquet",
    }
    fewer = export.export(storage, config=FeaturesConfig(file_rows=40), **{**asked, "rows": 50})
    assert (fewer.rows["train"], fewer.rel == made.rel) == (50, False)
    vectors_ND, labels = export.read(storage, made.rel, "train", rows=60)
    assert (vectors_ND.shape, len(labels)) == ((60, 32), 60)
    monkeypatch.setattr(export, "run_pass", lambda *_, **__: pytest.fail("computed again"))
    again = export.export(storage, config=FeaturesConfig(file_rows=40), **asked)
    assert again == replace(made, reused=True)
    other = Work(**{**work.__dict__, "pooling": "cls"})
    store = TokenStore.open(storage, work.store_rel)
    assert export._address(other, store, FeaturesConfig(pooling="cls"), None) != made.rel.rpartition("/")[2]
    storage.write(f"{made.rel}/test-000000.parquet", b"half of it")
    with pytest.raises(DamagedError, match=r"test-000000\.parquet"):
        export.read(storage, made.rel, "test")

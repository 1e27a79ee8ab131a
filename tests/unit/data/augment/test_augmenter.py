"""The other kinds of op: voice between ops on words, and media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.augment import Augmenter, stage_ops
from orchestration.data.augment.tagger import train_bytes
from orchestration.data.config import AugmentConfig
from orchestration.errors import UserError
from orchestration.storage import Storage

ROW = bytes(range(16))


def build(storage: Storage, *ops: dict[str, Any], seed: int = 1, **more: Any) -> Augmenter:
    config = AugmentConfig.model_validate({"ops": list(ops), **more})
    return Augmenter(config, labels=["a", "b"], tables=stage_ops(config, storage), storage_url=storage.url, seed=seed)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def media(augmenter: Augmenter, kind: str, array: np.ndarray, **other: Any) -> np.ndarray:
    return augmenter.media(kind, array, **{"row_id": ROW, "label": 0, "text": "", "draw": 1, **other})


def test_voice_works_between_ops_on_words(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.data.augment import voice

    (tmp_path / "tagger.json").write_bytes(train_bytes([[("Dogs", "NNS"), ("bite", "VB"), (".", ".")]]))
    monkeypatch.setattr(
        voice, "build", lambda config, path: lambda text, key: text.replace("Dogs bite", "Cats are bitten by dogs")
    )
    augmenter = build(storage, {"op": "voice", "tagger": str(tmp_path / "tagger.json")}, {"op": "swap", "rate": 0.01})
    found = augmenter.texts(["Dogs bite."], [ROW], [0], [1])[0]
    assert found != "Cats are bitten by dogs."
    assert sorted(found.lower().rstrip(".").split()) == ["are", "bitten", "by", "cats", "dogs"]


def test_a_missing_tagger_is_refused_by_name(storage: Storage) -> None:
    with pytest.raises(UserError, match=r"tagger nowhere\.json does not exist"):
        build(storage, {"op": "voice", "tagger": "nowhere.json"})


def test_media_change_by_the_ops_of_their_kind_and_by_row_and_draw(storage: Storage) -> None:
    augmenter = build(storage, {"op": "flip", "rate": 1.0}, {"op": "noise"}, {"op": "swap"})
    image = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    assert (media(augmenter, "image", image) == image[:, :, ::-1]).all()
    sound = (1000 * np.sin(np.arange(4000))).astype(np.int16)
    first = media(augmenter, "audio", sound)
    assert (first != sound).any()
    assert (first == media(augmenter, "audio", sound)).all()
    for other in ({"draw": 2}, {"row_id": bytes(16)}):
        assert (media(augmenter, "audio", sound, **other) != first).any()
    series = np.linspace(0, 1, 60, dtype=np.float32).reshape(30, 2)
    assert (media(augmenter, "series", series) != series).any()


def test_a_flip_leaves_rows_whose_words_or_class_name_a_side(storage: Storage) -> None:
    augmenter = build(storage, {"op": "flip", "rate": 1.0, "skip": {"labels": ["b"], "words": ["left", "右"]}})
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    assert (media(augmenter, "image", image, text="an arrow to the LEFT") == image).all()
    assert (media(augmenter, "image", image, text="向右的箭头") == image).all()
    assert (media(augmenter, "image", image, label=1) == image).all()
    assert (media(augmenter, "image", image, text="leftovers") != image).any()


def test_pick_one_changes_an_image_by_one_op(storage: Storage) -> None:
    augmenter = build(storage, {"op": "flip", "rate": 1.0}, {"op": "flip", "rate": 1.0, "axis": "vertical"}, pick="one")
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    found = [media(augmenter, "image", image, draw=draw) for draw in range(30)]
    sideways = sum(bool((one == image[:, :, ::-1]).all()) for one in found)
    upside_down = sum(bool((one == image[:, ::-1]).all()) for one in found)
    assert sideways + upside_down == 30
    assert min(sideways, upside_down) > 5

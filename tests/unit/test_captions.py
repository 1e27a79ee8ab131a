"""Captions of a package and of its endpoint: what is written is what the model says token by token, alone and in company."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import ModelConfig
from models.inputs import Rows
from orchestration import package as packages
from orchestration.answers.facts import facts
from orchestration.answers.kinds import Unanswerable
from orchestration.data.config import ImageConfig
from orchestration.evaluation import written_captions
from orchestration.probes import png
from orchestration.serving.router import Router
from orchestration.storage import Storage
from tests.packages import media_package
from tests.tiny import make_tokenizer
from tests.unit.serving.test_tasks import asked, replica, route

SIZE = {"layers": 2, "width": 16, "heads": 2}
STARTS = [None, "Ada Lovelace was", "Prices"]


def _picture(seed: int) -> bytes:
    return png(np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (40, 50, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("captions") / "storage"))


@pytest.fixture(scope="module")
def opened(storage: Storage) -> Any:
    tokenizer = str(make_tokenizer(Path(storage.path("tokenizer")), "bert"))
    towers = {
        "text": {"family": "gpt2", "size": SIZE, "tokenizer": tokenizer},
        "image": {"family": "resnet", "size": SIZE},
    }
    config = ModelConfig.model_validate({"towers": towers, "task": "captioning"})
    rel = media_package(config, storage, labels=[], image=ImageConfig(size=32), wide=0.5)
    return packages.load(storage.fetch(rel))


def _asked() -> list[dict[str, Any]]:
    return [{"image": _picture(n), **({"text": text} if text else {})} for n, text in enumerate(STARTS)]


def _texts(found: list[dict[str, Any]]) -> list[str]:
    return [result["sequences"][0]["text"] for result in found]


def test_a_caption_is_what_the_model_says_token_by_token_alone_and_in_a_batch(opened: Any) -> None:
    together = opened.answer(_asked(), max_new_tokens=6)
    assert together == [opened.answer([row], max_new_tokens=6)[0] for row in _asked()]
    for item, found in zip(opened.encode(_asked()), _texts(together), strict=True):
        ids = opened.task.begun(item.ids).tolist()
        before = len(opened.tokenizer.library.decode(ids))
        while len(ids) < len(opened.task.begun(item.ids)) + 6 and ids[-1] != opened.task.end_id:
            rows = Rows([np.array(ids)], media={"image": [item.media["image"]]})
            with torch.inference_mode():
                ids.append(int(opened.model(**opened.task.given(rows, 0)).logits[0, -1].argmax()))
        assert opened.tokenizer.library.decode(ids)[before:] == found
    assert len(set(_texts(opened.answer([{"image": _picture(n)} for n in range(6)], max_new_tokens=6)))) > 1


def test_a_row_of_text_alone_is_refused_with_its_number(opened: Any) -> None:
    with pytest.raises(Unanswerable, match="image 1 has nothing that a text could be written for; send image"):
        opened.answer([_asked()[0], {"text": "Ada"}])


def test_the_endpoint_takes_a_picture_and_bounds_what_one_request_costs(storage: Storage, opened: Any) -> None:
    known = facts(opened.folder, 32)
    assert known == {"max_new_tokens": 32}
    backend = replica(storage, opened.folder)
    router = Router("demo", task="captioning", reads=("text", "image"), connect=lambda name: backend, max_queue=8)
    router.update({"1": route("captioning", known)})
    small = base64.b64encode(png(np.full((8, 8, 3), 200, np.uint8))).decode()
    response = asked(router, "POST", "/v1/caption", {"image": small, "max_new_tokens": 4})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert result == opened.answer([{"image": base64.b64decode(small)}], max_new_tokens=4)[0]
    many = {"rows": [{"image": small}] * 3, "temperature": 1.0, "sequences": 2}
    refused = asked(router, "POST", "/v1/caption", many)
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "sequences")
    assert asked(router, "POST", "/v1/generate", {"text": "a"}).status_code == 404


def test_rows_without_text_are_not_scored_and_the_nearest_row_is_the_most_alike() -> None:
    assert written_captions.scores(["a red cat", "no"], ["a red cat", ""])["rouge_l"] == 1.0
    assert written_captions.by_row(["a red cat", "no"], ["a red cat", ""])["rouge_l"].tolist() == [1.0]
    train, held = np.array([[0.0, 1.0], [1.0, 0.0], [5.0, 5.0]]), np.array([[1.0, 0.1], [4.0, 5.0]])
    assert written_captions._nearest(train, held).tolist() == [1, 2]

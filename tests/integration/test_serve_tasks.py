"""Endpoints of language models on a real Ray Serve: a causal one, then a masked one, on the same Ray. What they say is what their
packages say without Ray."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.ask import hidden, line
from orchestration import package as packages
from orchestration.errors import UserError
from orchestration.serving.config import ServeConfig
from orchestration.serving.record import Endpoint
from orchestration.storage import Storage
from tests.integration.test_serve import free_port
from tests.packages import media_package, task_package

PROMPTS = ["A quiet", "We waited two hours for a table and", "The food"]
MASKED = ["A [MASK] film.", "The food was [MASK], and the [MASK] cold."]


@pytest.fixture(scope="module")
def storage(ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


@pytest.fixture(scope="module")
def rels(storage: Storage, minilm: Path) -> dict[str, str]:
    made = {task: task_package(task, minilm, storage) for task in ("causal_lm", "masked_lm")}
    return {**made, "second": task_package("causal_lm", minilm, storage, seed=4)}


@pytest.fixture(scope="module")
def config() -> ServeConfig:
    return ServeConfig(port=free_port(), max_new_tokens=32, timeout_s=60.0)


@contextlib.contextmanager
def serving(storage: Storage, rel: str, config: ServeConfig) -> Iterator[tuple[Endpoint, httpx.Client]]:
    from orchestration.serving import app

    endpoint = app.deploy(name="words", storage=storage, package_rel=rel, version=1, config=config)
    try:
        with httpx.Client(base_url=endpoint.url, timeout=90) as client:
            yield endpoint, client
    finally:
        app.undeploy(name="words", storage=storage)


def wanted(storage: Storage, rel: str, texts: list[str], **options: Any) -> Any:
    return packages.load(storage.fetch(rel), verify=False).answer(texts, **options)


def test_a_causal_endpoint_generates_what_its_package_does_and_is_moved_without_a_lost_request(
    storage: Storage, rels: dict[str, str], config: ServeConfig
) -> None:
    from orchestration.serving import app

    drawn = {"max_new_tokens": 8, "temperature": 1.0, "seed": 5, "sequences": 2}
    expected = {
        "1": wanted(storage, rels["causal_lm"], PROMPTS, max_new_tokens=8),
        "2": wanted(storage, rels["second"], PROMPTS, max_new_tokens=8),
    }
    assert expected["1"] != expected["2"]
    with serving(storage, rels["causal_lm"], config) as (_, client):
        found = client.post("/v1/generate", json={"texts": PROMPTS, **drawn}).json()
        assert found["results"] == wanted(storage, rels["causal_lm"], PROMPTS, **drawn)
        refused = client.post("/v1/generate", json={"text": "a", "max_new_tokens": 33})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "max_new_tokens")
        assert client.post("/v1/classify", json={"text": "a"}).status_code == 404
        with pytest.raises(
            UserError, match=r"answers for causal_lm at /v1/generate, and version 3 was trained for masked"
        ):
            app.promote(name="words", storage=storage, package_rel=rels["masked_lm"], version=3, config=config)
        with asking(client, expected) as seen:
            app.promote(name="words", storage=storage, package_rel=rels["second"], version=2, config=config)
        body = client.post("/v1/generate", json={"texts": PROMPTS, "max_new_tokens": 8}).json()
        assert (body["model"]["version"], body["results"]) == ("2", expected["2"])
    assert seen["failed"] == []
    assert seen["answered"] > 0


@contextlib.contextmanager
def asking(client: httpx.Client, expected: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Three clients, a prompt each, whose answers are compared with those of the version they name."""
    seen: dict[str, Any] = {"answered": 0, "failed": []}
    stop = threading.Event()

    def run(row: int) -> None:
        while not stop.is_set():
            try:
                body = client.post("/v1/generate", json={"text": PROMPTS[row], "max_new_tokens": 8}).json()
                if body["results"] != [expected[body["model"]["version"]][row]]:
                    seen["failed"].append(body)
                seen["answered"] += 1
            except (httpx.HTTPError, KeyError) as error:
                seen["failed"].append(repr(error))
            stop.wait(0.05)

    threads = [threading.Thread(target=run, args=(row,)) for row in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_masked_endpoint_fills_what_its_package_does(
    storage: Storage, rels: dict[str, str], config: ServeConfig
) -> None:
    with serving(storage, rels["masked_lm"], config) as (_, client):
        response = client.post("/v1/fill", json={"texts": MASKED, "top": 3})
        for found, own in zip(
            response.json()["results"], wanted(storage, rels["masked_lm"], MASKED, top=3), strict=True
        ):
            assert [[one["token"] for one in mask] for mask in found["masks"]] == [
                [one["token"] for one in mask] for mask in own["masks"]
            ]
            chances = [one["probability"] for mask in found["masks"] for one in mask]
            assert chances == pytest.approx([one["probability"] for mask in own["masks"] for one in mask], abs=1e-5)
        refused = client.post("/v1/fill", json={"texts": [MASKED[0], "none"]}).json()["error"]
        assert (refused["field"], "[MASK]" in refused["message"]) == ("texts[1]", True)
        text, word = hidden("We waited two hours for a table.", "[MASK]") or ("", "")
        (result,) = client.post("/v1/fill", json={"text": text}).json()["results"]
        assert f"(hidden: {word})" in line("masked_lm", {"text": text, "wanted": word, **result})


@pytest.mark.parametrize("kind", ["ensemble", "captioning", "next_sentence", "recall", "video"])
def test_an_endpoint_says_what_its_package_says(kind: str, storage: Storage, minilm: Path, config: ServeConfig) -> None:
    """Several packages as one; a picture that a text is written for; two texts; a model that asks a memory at each token; pictures that move."""
    made = {
        "ensemble": _ensemble,
        "captioning": _captions,
        "next_sentence": _pairs,
        "recall": _remembering,
        "video": _moving,
    }
    rel, path, sent, asked = made[kind](storage, minilm)
    options = {name: value for name, value in sent.items() if name == "max_new_tokens"}
    with serving(storage, rel, config) as (_, client):
        response = client.post(path, json=sent)
        assert response.status_code == 200, response.text
        assert _rounded(response.json()["results"]) == _rounded(wanted(storage, rel, asked, **options))


Asked = tuple[str, str, dict[str, Any], list[Any]]  # package, route, what is sent, and the same for the package itself


def _ensemble(storage: Storage, minilm: Path) -> Asked:
    from orchestration import ensemble

    members = [task_package("classification", minilm, storage, seed=seed) for seed in (3, 4)]
    return ensemble.fuse(storage, members, name="both").rel, "/v1/classify", {"texts": PROMPTS}, PROMPTS


def _captions(storage: Storage, minilm: Path) -> Asked:
    import numpy as np

    from models.config import ModelConfig
    from orchestration.data.config import ImageConfig
    from orchestration.probes import png

    size = {"layers": 2, "width": 16, "heads": 2}
    text = {"family": "gpt2", "size": size, "tokenizer": str(minilm)}
    towers = {"text": text, "image": {"family": "resnet", "size": size}}
    config = ModelConfig.model_validate({"towers": towers, "task": "captioning"})
    rel = media_package(config, storage, labels=[], image=ImageConfig(size=32), wide=0.5)
    drawn = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    picture = base64.b64encode(png(drawn)).decode()
    return rel, "/v1/caption", {"image": picture, "max_new_tokens": 8}, [{"image": png(drawn)}]


def _pairs(storage: Storage, minilm: Path) -> Asked:
    first, second = PROMPTS, ["film.", "then left.", "was cold."]
    sent = {"texts": first, "pairs": second}
    return task_package("next_sentence", minilm, storage), "/v1/follows", sent, list(zip(first, second, strict=True))


def _remembering(storage: Storage, minilm: Path) -> Asked:
    """What the model itself would say is noise."""
    facts = [("the owl", "likes", "warm milk"), ("the fox", "fears", "deep water"), ("a hen", "eats", "yellow corn")]
    rel = task_package("causal_lm", minilm, storage, facts=facts)
    asked = ["the owl likes", "the fox fears", "a hen"]
    (first, *_) = wanted(storage, rel, asked, max_new_tokens=8)
    assert first["sequences"][0]["text"].strip() == "warm milk"
    return rel, "/v1/generate", {"texts": asked, "max_new_tokens": 8}, asked


def _moving(storage: Storage, minilm: Path) -> Asked:
    """Two videos that begin alike."""
    import numpy as np

    from models.config import ModelConfig
    from orchestration.data.config import ImageConfig
    from orchestration.probes import video

    towers = {"image": {"family": "resnet", "size": {"layers": 2, "width": 16, "heads": 2}}}
    config = ModelConfig.model_validate({"towers": towers, "task": "classification"})
    rel = media_package(config, storage, image=ImageConfig(size=32, frames=3))
    drawn = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (2, 3, 40, 50, 3)).astype(np.uint8)
    drawn[1, 0] = drawn[0, 0]
    asked = [{"image": video(one)} for one in drawn]
    first, second = wanted(storage, rel, asked)
    assert first["scores"] != second["scores"]
    sent = {"rows": [{"image": base64.b64encode(one["image"]).decode()} for one in asked]}
    return rel, "/v1/classify", sent, asked


def _rounded(value: Any) -> Any:
    """Other company in a batch moves the last digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value

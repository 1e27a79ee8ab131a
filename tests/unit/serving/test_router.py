"""The router and its HTTP face, with scripted applications in place of Ray's."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from orchestration.serving import router as routers
from orchestration.serving.body import Limits
from orchestration.serving.http import build_app
from orchestration.serving.router import ReplicaDied, Router, Unavailable

LIMITS = Limits(max_body_bytes=2000, max_texts=4, timeout_s=1.0)
LABELS = ["no", "yes"]
PLAIN = {"logits": False}


class Scripted:
    """An application that answers by length of the text, after its script of failures and waits."""

    def __init__(self, script: Sequence[Exception | float] = ()) -> None:
        self.script = list(script)
        self.calls: list[list[str]] = []
        self.alive = True

    async def ask(self, texts: Sequence[str], options: Mapping[str, Any]) -> tuple[np.ndarray, list[bool]]:
        self.calls.append(list(texts))
        step = self.script.pop(0) if self.script else 0.0
        if isinstance(step, Exception):
            raise step
        await asyncio.sleep(step)
        return np.array([[0.0, float(len(text))] for text in texts], np.float32), [len(text) > 50 for text in texts]

    async def ping(self) -> Any:
        if not self.alive:
            raise Unavailable("no replica")


def route(weight: float = 1.0, application: str = "v1") -> dict[str, Any]:
    return {
        "application": application,
        "weight": weight,
        "task": "classification",
        "labels": LABELS,
        "facts": {},
        "package": f"packages/{application}",
        "lineage": {"seed": 3},
    }


def routed(*applications: Scripted, max_queue: int = 8) -> Router:
    router = Router(
        "demo", task="classification", connect=lambda name: applications[int(name[1:]) - 1], max_queue=max_queue
    )
    router.update({str(i + 1): route(application=f"v{i + 1}") for i in range(len(applications))})
    return router


def asked(router: Router, talk: Callable[[httpx.AsyncClient], Any], limits: Limits = LIMITS) -> Any:
    async def main() -> Any:
        transport = httpx.ASGITransport(app=build_app(router, limits), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await talk(client)

    return asyncio.run(main())


def post(body: Any, router: Router | None = None, limits: Limits = LIMITS, **options: Any) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return asked(
        router or routed(Scripted()), lambda client: client.post("/v1/classify", content=content, **options), limits
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "FIRST_WAIT_S", 0.001)


def test_an_answer_names_label_scores_version_and_request() -> None:
    response = post({"texts": ["four", "ten chars!"], "logits": True}, headers={"x-request-id": "mine-7"})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == {"name": "demo", "version": "1"}
    assert body["request_id"] == "mine-7"
    assert [result["logits"]["yes"] for result in body["results"]] == [4.0, 10.0]
    assert body["results"][0]["scores"]["yes"] == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert body["results"][0]["label"] == "yes"


def test_one_text_may_be_sent_as_text_and_a_cut_one_is_said_to_be_cut() -> None:
    results = post({"text": "long " * 20}).json()["results"]
    assert [result["truncated"] for result in results] == [True]
    assert post({"text": "short"}).json()["results"][0]["truncated"] is False


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"{", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"[" * 1900, None, "not JSON"),
        (["a"], "body", "a list of 1"),
        ({}, "texts", "either 'texts'"),
        ({"text": "a", "texts": ["b"]}, "texts", "either 'texts'"),
        ({"texts": "a"}, "texts", "a string"),
        ({"texts": []}, "texts", "an empty list"),
        ({"texts": ["a"] * 5}, "texts", "max_texts=4"),
        ({"texts": ["a", None]}, "texts[1]", "null"),
        ({"texts": ["a", " \n "]}, "texts[1]", "empty"),
        ({"text": ""}, "text", "empty"),
        ({"text": 7}, "text", "a number"),
        ({"text": "a", "top_k": 2}, "top_k", "allowed: text, texts, pair, pairs, logits"),
        ({"text": "a", "logits": "yes"}, "logits", "true or false"),
        (b'{"text": "\\ud800"}', "text", "surrogate"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field_and_what_is_allowed(body: Any, field: str | None, words: str) -> None:
    application = Scripted()
    response = post(body, routed(application))
    assert response.status_code == 422
    assert response.json()["error"].get("field") == field
    assert words in response.json()["error"]["message"]
    assert application.calls == []


def test_a_body_above_the_limit_is_refused_by_its_announced_length() -> None:
    response = post({"text": "x" * 3000})
    assert response.status_code == 413
    assert "max_body_bytes=2000" in response.json()["error"]["message"]


def test_a_chunked_body_above_the_limit_is_refused_while_it_is_read() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 500

    response = asked(routed(Scripted()), lambda client: client.post("/v1/classify", content=endless()))
    assert response.status_code == 413
    assert sent <= 6


def test_a_body_that_never_ends_is_given_up_in_time() -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    limits = Limits(max_body_bytes=2000, max_texts=4, timeout_s=0.1)
    response = asked(routed(Scripted()), lambda client: client.post("/v1/classify", content=stuck()), limits)
    assert response.status_code == 408


def test_without_the_token_nothing_but_health_is_told() -> None:
    limits = Limits(2000, 4, 1.0, token_sha256=hashlib.sha256(b"sesame-sesame-sesame").hexdigest())

    async def talk(client: httpx.AsyncClient) -> list[int]:
        good, bad = {"authorization": "Bearer sesame-sesame-sesame"}, {"authorization": "Bearer sesame"}
        answers = [
            await client.post("/v1/classify", json={"text": "a"}, headers=headers) for headers in (good, bad, {})
        ]
        answers += [await client.get("/v1/lineage", headers=headers) for headers in (good, bad)]
        answers += [await client.get("/v1/models"), await client.get("/healthz"), await client.get("/readyz")]
        assert answers[1].headers["www-authenticate"] == "Bearer"
        return [answer.status_code for answer in answers]

    assert asked(routed(Scripted()), talk, limits) == [200, 401, 401, 200, 401, 401, 200, 200]


def test_beyond_the_queue_the_answer_is_503_with_retry_after_and_the_others_are_answered() -> None:
    router = routed(Scripted([0.3, 0.3]), max_queue=2)

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/v1/classify", json={"text": "a"}) for _ in range(5)))

    responses = asked(router, talk)
    assert collections.Counter(response.status_code for response in responses) == {200: 2, 503: 3}
    refused = next(response for response in responses if response.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert "max_queue=2" in refused.json()["error"]["message"]
    assert post({"text": "a"}, router).status_code == 200  # the places are free again


def test_a_request_whose_replica_dies_is_asked_again_and_the_caller_does_not_notice() -> None:
    application = Scripted([ReplicaDied("gone"), ReplicaDied("gone")])
    assert post({"text": "abc"}, routed(application)).status_code == 200
    assert application.calls == [["abc"]] * 3


def test_when_every_replica_dies_the_tries_are_bounded_and_the_answer_is_503() -> None:
    application = Scripted([ReplicaDied("gone")] * 50)
    response = post({"text": "abc"}, routed(application))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert len(application.calls) == routers.TRIES


def test_an_answer_that_takes_too_long_is_504_and_frees_its_place() -> None:
    router = routed(Scripted([30.0]), max_queue=1)
    limits = Limits(2000, 4, timeout_s=0.1)
    assert post({"text": "a"}, router, limits).status_code == 504
    assert router.inflight("1") == 0
    assert post({"text": "a"}, router, limits).status_code == 200


def test_a_fault_of_ours_is_500_with_the_request_id_and_no_traceback() -> None:
    response = post({"text": "a"}, routed(Scripted([RuntimeError("secret detail")])), headers={"x-request-id": "r-1"})
    assert response.status_code == 500
    assert response.json()["request_id"] == "r-1"
    assert "secret" not in response.text


def test_traffic_follows_the_weights() -> None:
    router = routed(Scripted(), Scripted())
    router.update({"1": route(3.0), "2": route(1.0, "v2")})

    async def main() -> collections.Counter[str]:
        return collections.Counter([(await router.ask(["a"], PLAIN, timeout_s=1)).version for _ in range(800)])

    count = asyncio.run(main())
    assert 0.68 < count["1"] / 800 < 0.82


def test_a_version_that_left_is_drained_when_its_last_request_is_answered() -> None:
    router = routed(Scripted([0.1]), Scripted())

    async def main() -> None:
        router.update({"1": route()})
        slow = asyncio.create_task(router.ask(["a"], PLAIN, timeout_s=1))
        await asyncio.sleep(0.01)
        router.update({"2": route(application="v2")})
        assert router.inflight("1") == 1
        assert (await router.ask(["a"], PLAIN, timeout_s=1)).version == "2"
        assert (await slow).version == "1"
        assert router.inflight("1") == 0

    asyncio.run(main())


def test_readiness_follows_the_versions_that_have_weight() -> None:
    first, second = Scripted(), Scripted()
    router = routed(first, second)
    router.update({"1": route(1.0), "2": route(0.0, "v2")})
    get = lambda client: client.get("/readyz")  # noqa: E731
    assert asked(router, get).json()["versions"] == ["1"]
    first.alive = False
    response = asked(router, get)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert asked(routed(), get).status_code == 503
    assert asked(routed(), lambda client: client.get("/healthz")).status_code == 200


def test_without_any_weight_the_answer_is_503() -> None:
    response = post({"text": "a"}, routed())
    assert response.status_code == 503
    assert "no version of demo gets traffic" in response.json()["error"]["message"]


def test_lineage_and_models_tell_of_each_version() -> None:
    router = routed(Scripted(), Scripted())
    lineage = asked(router, lambda client: client.get("/v1/lineage")).json()
    assert lineage["versions"]["2"] == {"package": "packages/v2", "seed": 3}
    models = asked(router, lambda client: client.get("/v1/models")).json()["models"]
    assert [(model["version"], model["weight"]) for model in models] == [("1", 1.0), ("2", 1.0)]


def test_openapi_describes_the_body_and_every_refusal() -> None:
    schema = asked(routed(), lambda client: client.get("/openapi.json")).json()
    classify = schema["paths"]["/v1/classify"]["post"]
    assert "texts" in classify["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"200", "401", "413", "422", "503", "504"} <= set(classify["responses"])
